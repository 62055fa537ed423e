"""Files that are no scenario, names that are no file, and all that YAML may hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offramp import ScenarioError, load_scenario
from offramp.scenario import shipped_scenarios

VALID = """\
name: tiny
data: {dataset: digits}
model: {backbone: resnet8, exits: [layer1]}
training:
  steps: 5
links:
  wifi:
    uplink: &up {latency_ms: 3, jitter_ms: 1}
    downlink: *up
nodes:
  edge: {}
devices:
  cameras:
    arrivals: {process: poisson, rate_hz: 8}
    deadline_ms: 40
    link: wifi
    node: edge
policies: [deadline_aware]
"""


def test_the_valid_file_that_the_others_are_made_from_loads(tmp_path: Path) -> None:
    path = tmp_path / "valid.yaml"
    path.write_text(VALID)
    assert load_scenario(str(path)).scenario.training.steps == 5


@pytest.mark.parametrize(
    ("old", "new", "line", "fragments"),
    [
        ("  steps: 5", "  steps: 5\n  steps: 6", 6, ["duplicate key", "steps"]),
        ("policies:", "name: other\npolicies:", 18, ["duplicate key", "name"]),
        ("exits: [layer1]", "exits: [layer1", 3, ["not valid YAML"]),
        ("name: tiny", "name: tiny: er", 1, ["not valid YAML"]),
        ("  steps: 5", "\tsteps: 5", 5, ["not valid YAML", "\\t"]),
        ("exits: [layer1]", "exits: *gone", 3, ["not valid YAML", "'gone'"]),
        ("  steps: 5", "  steps: !!bool maybe", 5, ["not valid YAML"]),
        ("  steps: 5", '  steps: !!int ""', 5, ["not valid YAML"]),
        ("policies: [", "---\npolicies: [", 18, ["not valid YAML"]),
    ],
    ids=[
        *("duplicate", "duplicate at top", "unclosed", "colon", "tab", "alias"),
        *("no boolean", "no number", "two documents"),
    ],
)
def test_bad_yaml_is_one_message_with_the_line(
    old: str,
    new: str,
    line: int,
    fragments: list[str],
    tmp_path: Path,
    offramp: Callable[..., Any],
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(VALID.replace(old, new))
    ran = offramp("run", path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {path}:{line}: ")
    assert len(ran.err.splitlines()) == 1
    for fragment in fragments:
        assert fragment in ran.err
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "mapping of keys"),
        (b"# only a comment\n", "mapping of keys"),
        (b"- a\n- list\n", "mapping of keys"),
        (b"just words\n", "mapping of keys"),
        (b"42\n", "mapping of keys"),
        (bytes(range(256)), "not a text file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a text file"),
        ("name: tiny\n".encode("utf-16"), "not a text file"),
        (b"name: t\xefny\n", "not a text file"),
        (b"name: a\0b\n", "not valid YAML"),
        (b"a: " + b"[" * 1000 + b"]" * 1000, "nested"),
        (b"seed: 1" + b"0" * 5000 + b"\n", ""),
    ],
    ids=[
        "empty",
        "comment",
        "list",
        "words",
        "number",
        "bytes",
        "png",
        "utf-16",
        "latin-1",
        "nul",
        "deep",
        "long number",
    ],
)
def test_a_file_that_holds_no_scenario_is_one_message(
    content: bytes, fragment: str, tmp_path: Path, offramp: Callable[..., Any]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    ran = offramp("check", path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {path}")
    assert fragment in ran.err


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quickstrt", "did you mean 'quickstart'?"),
        ("quickstart.yaml", "did you mean 'quickstart'?"),
        ("cifar", "did you mean 'cifar10'?"),
        ("nothing-like-it", "fleet, load_sweep, quickstart)"),
        (".", "fleet, load_sweep, quickstart)"),
        ("", "fleet, load_sweep, quickstart)"),
        (
            "x" * 5000,
            "(they are: bursts_and_faults, cifar10, cifar100, edge_cloud, fleet, load_sweep",
        ),
    ],
    ids=["typo", "with suffix", "part", "unlike", "folder", "empty", "long"],
)
def test_a_name_that_is_no_file_names_the_nearest_scenario_that_ships(name: str, hint: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        load_scenario(name)
    assert "no such file" in str(raised.value)
    assert hint in str(raised.value)


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
@pytest.mark.usefixtures("named_files")
def test_every_scenario_that_ships_loads_by_its_name(name: str) -> None:
    loaded = load_scenario(name)
    assert loaded.scenario.name == name
    assert loaded.source == name


def test_these_scenarios_ship() -> None:
    assert sorted(shipped_scenarios()) == [
        "bursts_and_faults",
        "cifar10",
        "cifar100",
        "edge_cloud",
        "fleet",
        "load_sweep",
        "quickstart",
    ]


def test_a_file_of_the_users_own_goes_before_a_scenario_that_ships(tmp_path: Path) -> None:
    (tmp_path / "quickstart").write_text(VALID)
    assert load_scenario("quickstart").scenario.name == "tiny"


def test_files_are_relative_to_the_scenario_and_for_shipped_ones_to_the_working_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "tiny.yaml"
    path.write_text(VALID)
    assert load_scenario(str(path)).folder == tmp_path / "there"
    assert load_scenario("quickstart").folder == tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps: 5", "steps: 0x5"),
        ("steps: 5", "steps: +5"),
        ("steps: 5", "steps: &steps 5"),
        ("deadline_ms: 40", "deadline_ms: 4e1"),
        ("deadline_ms: 40", "deadline_ms: &deadline 40.0"),
        ("name: tiny", "name: &name 'tiny'"),
        ("steps: 5", "steps: 5\n  augment: &flag true"),
        ("downlink: *up", "downlink:\n      <<: *up"),
        ("downlink: *up", "downlink:\n      <<: *up\n      jitter_ms: 1"),
        (VALID, VALID.replace("\n", "\r\n")),
        (VALID, "\ufeff" + VALID),
        (VALID, "%YAML 1.2\n---\n" + VALID),
    ],
    ids=[
        "hexadecimal",
        "sign",
        "anchored integer",
        "exponent",
        "anchored float",
        "anchored text",
        "anchored flag",
        "merge key",
        "merge key and own key",
        "crlf",
        "byte order mark",
        "directive",
    ],
)
def test_whatever_way_yaml_allows_to_write_it_the_scenario_is_the_same(
    old: str, new: str, tmp_path: Path
) -> None:
    plain, other = tmp_path / "plain.yaml", tmp_path / "other.yaml"
    plain.write_text(VALID)
    other.write_text(VALID.replace(old, new), newline="")
    assert load_scenario(str(other)).scenario == load_scenario(str(plain)).scenario


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("{dataset: digits}", "!!omap [dataset: digits]", "2: data: "),
        ("name: tiny", "name: !!python/object/apply:os.system [ls]", "1: name: "),
        ("name: tiny", "name: !mine tiny", "1: name: "),
        ("name: tiny", "name: 2026-01-01", "1: name: "),
        ("name: tiny", "name: !!binary aGVsbG8=", "1: name: "),
        ("exits: [layer1]", "exits: !!set {layer1}", "3: model.exits: "),
        ("exits: [layer1]", "exits: &again [*again]", "3: model.exits.0: "),
        ("edge: {}", "edge: {}\n  ? [a, b]\n  : {}", "10: nodes: "),
    ],
    ids=["omap", "python", "tag", "date", "binary", "set", "within itself", "list as key"],
)
def test_yaml_that_is_no_plain_value_is_refused_like_any_other_wrong_type(
    old: str, new: str, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(VALID.replace(old, new))
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    assert str(raised.value).startswith(f"{path}:{place}")


def test_a_key_wrong_in_a_merged_mapping_is_blamed_where_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    text = VALID.replace("jitter_ms: 1}", "jiter_ms: 1}")
    path.write_text(text.replace("downlink: *up", "downlink:\n      <<: *up"))
    with pytest.raises(ScenarioError, match=r"bad\.yaml:8: links\.wifi\.uplink\.jiter_ms"):
        load_scenario(str(path))


@pytest.mark.parametrize(
    ("training", "function", "steps"),
    [
        ("steps: 50", "self_taught", 50),
        ("steps: 50\n  regime: layer_wise", "self_taught", 50),
        ("steps: 50\n  regime: classifier_wise", "final_exit", 50),
        ("steps: 50\n  regime: classifier_wise\n  scoring: {per_exit: true}", "self_taught", 50),
        ("steps: 50\n  scoring: {function: early_checkpoint}", "early_checkpoint", 5),
        ("steps: 5\n  scoring: {function: early_checkpoint}", "early_checkpoint", 1),
        ("steps: 50\n  scoring: {steps: 7}", "self_taught", 7),
        (
            "steps: 50\n  regime: classifier_wise\n  scoring: {function: self_taught}",
            "self_taught",
            50,
        ),
    ],
)
def test_what_is_left_out_of_the_scoring_follows_the_regime_and_the_budget(
    training: str, function: str, steps: int, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(VALID.replace("steps: 5", training))
    scoring = load_scenario(str(path)).scenario.training.scoring
    assert (scoring.function, scoring.steps) == (function, steps)


@pytest.mark.parametrize(
    ("exits", "count"),
    [
        ("", 3),
        (", exits: null", 3),
        (", exits: []", 1),
        (", exits: [relu, layer1, layer2]", 4),
        (", exits: {at_flops: [0.4]}", 2),
    ],
)
def test_every_way_to_write_exits_tells_how_many_there_are(
    exits: str, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(VALID.replace(", exits: [layer1]", exits))
    assert load_scenario(str(path)).experiment.architecture.exit_count == count
