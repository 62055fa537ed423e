"""The commands, what they print, and the public interface."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import models.errors
import offramp
from offramp import load_scenario
from offramp.cli import app
from offramp.console import Console
from offramp.scenario import shipped_scenarios
from offramp.schema import Scenario


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


# --- public interface ---------------------------------------------------------------------------


def test_public_names_are_exactly_these() -> None:
    assert offramp.__all__ == [
        "ArtifactError",
        "BrokerError",
        "CheckpointError",
        "DataError",
        "LiveError",
        "LoadedScenario",
        "NetworkError",
        "OfframpError",
        "Pipeline",
        "PolicyError",
        "ResultsError",
        "ScenarioError",
        "TrainingError",
        "load_scenario",
    ]
    for name in offramp.__all__:
        assert getattr(offramp, name).__doc__


def test_every_error_that_a_user_can_mend_is_public() -> None:
    def below(error: type) -> list[type]:
        return [one for child in error.__subclasses__() for one in (child, *below(child))]

    own = [one for one in below(models.errors.OfframpError) if one.__module__ == "models.errors"]
    assert len(own) >= 8
    for error in (models.errors.OfframpError, *own):
        assert getattr(offramp, error.__name__) is error


def test_an_error_of_a_module_that_needs_torch_is_a_kind_of_a_public_one() -> None:
    from models.training.train import DivergedError

    assert DivergedError.__mro__[1] is offramp.TrainingError


def test_the_version_is_the_package_s() -> None:
    from importlib import metadata

    ran = python("-m", "offramp", "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{offramp.__version__}\n"
    assert offramp.__version__ == metadata.version("offramp")


# --- start without torch ------------------------------------------------------------------------


def test_importing_offramp_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, offramp, offramp.cli\n"
        "print(sorted({'torch', 'torchvision', 'matplotlib', 'seaborn', 'sklearn'} "
        "& set(sys.modules)))"
    )
    ran = python("-c", code)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def imported(importtime: str) -> set[str]:
    return {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in importtime.splitlines()
        if line.startswith("import time:")
    }


def test_help_of_simulate_imports_no_torch() -> None:
    ran = python("-X", "importtime", "-m", "offramp", "simulate", "--help")
    assert ran.returncode == 0
    assert "--jobs" in ran.stdout
    assert "offramp" in imported(ran.stderr)
    assert "torch" not in imported(ran.stderr)


def test_a_whole_simulation_with_its_report_imports_no_torch(
    store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    ran = python(
        *("-X", "importtime", "-m", "offramp", "simulate", scenario({"seed": 5})),
        *("--store", store, "-o", results, "-j", 1),
    )
    assert ran.returncode == 0
    assert (results / "report.md").exists()
    assert "simpy" in imported(ran.stderr)
    assert imported(ran.stderr).isdisjoint({"torch", "torchvision", "sklearn"})


# --- real processes -----------------------------------------------------------------------------


def test_a_bad_scenario_in_a_real_process_is_status_2_and_no_traceback(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    path = scenario({"training.stps": 1})
    ran = python("-m", "offramp", "run", path, "-o", tmp_path / "results")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"error: {path}:")
    assert "did you mean 'steps'?" in ran.stderr
    assert not (tmp_path / "results").exists()


def test_without_a_terminal_there_are_plain_lines_only(trained: Any, store: Path) -> None:
    ran = python("-m", "offramp", "train", trained.scenario, "--store", store)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    assert "\r" not in ran.stdout
    assert ran.stdout.startswith("reused  standard, seed 0  (")


# --- what commands print ------------------------------------------------------------------------


RESULT = re.compile(
    r"[┏┃┡│└].*"
    r"|(curriculum − standard|fixed_exit\(exit=2\) − deadline_aware), .* points of AUD"
    r"|node edge, .*: (BACKLOGGED|OVERLOADED)"
    r"|VALID|INVALID|  .+"
    r"|report: .+/report\.md"
)


def test_quiet_prints_the_results_and_nothing_else(
    trained: Any, store: Path, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    ran = offramp(
        *("simulate", trained.scenario, "--store", store, "-o", tmp_path / "results"),
        *("--set", "seed=5", "-j", 1, "--quiet"),
    )
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line for line in lines if not RESULT.fullmatch(line)] == []
    assert sum(line.startswith("│") for line in lines) == 4
    assert lines[-1] == f"report: {tmp_path / 'results' / 'report.md'}"


def test_a_run_ends_with_table_gain_verdict_and_the_path_of_the_report(trained: Any) -> None:
    out = trained.first_run.out
    table, gain = out.index("┏"), out.index("curriculum − standard, deadline_aware: ")
    verdict = re.search(r"^(VALID|INVALID)$", out, re.M)
    assert verdict
    assert out.index("offered load") < table < gain < verdict.start()
    assert out.endswith(f"report: {trained.results / 'report.md'}\n")
    assert "AUD ± 95 % CI" in out
    assert "p50/p95/p99 (ms)" in out


def test_training_ends_with_the_accuracy_of_each_exit(
    trained: Any, store: Path, offramp: Callable[..., Any]
) -> None:
    ran = offramp("train", trained.scenario, "--store", store, "-q")
    rows = [line for line in ran.out.splitlines() if line.startswith("│")]
    assert len(rows) == 4
    for row in rows:
        assert re.search(r"│ (standard|curriculum) +│ [01] +│ [\d.]+ / [\d.]+ % +│ ", row)


def test_profiling_ends_with_the_latency_of_each_exit(
    trained: Any, store: Path, offramp: Callable[..., Any]
) -> None:
    ran = offramp("profile", trained.scenario, "--store", store, "-q")
    rows = [line for line in ran.out.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["1", "1"]
    assert [row.split("│")[2].strip() for row in rows] == ["1", "2"]
    for row in rows:
        median, p95, segment = (float(cell) for cell in row.strip("│ ").split("│")[2:])
        assert segment > 0
        assert 0 < median <= p95


# --- console ------------------------------------------------------------------------------------


def test_without_a_terminal_long_work_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("offramp.console.time.monotonic", lambda: now)
    with Console().task("train standard", 100) as update:
        for done in range(1, 101):
            now += 1.0
            update(done)
    assert capsys.readouterr().out.splitlines() == [
        "train standard: 30 of 100, about 70 s left",
        "train standard: 60 of 100, about 40 s left",
        "train standard: 90 of 100, about 10 s left",
    ]


def test_what_was_done_before_tells_nothing_of_how_long_the_rest_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("offramp.console.time.monotonic", lambda: now)
    with Console().task("train standard", 100, done=60) as update:
        for done in range(61, 101):
            now += 1.0
            update(done)
    assert capsys.readouterr().out == "train standard: 90 of 100, about 10 s left\n"


def test_short_work_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().task("train standard", 3) as update:
        for done in (1, 2, 3):
            update(done)
    assert capsys.readouterr().out == ""


def test_a_quiet_console_says_results_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp.console.PLAIN_INTERVAL_S", 0.0)
    console = Console(quiet=True)
    console.note("made it")
    with console.task("train standard", 3) as update:
        update(2)
    console.result("VALID [bold]")
    assert capsys.readouterr().out == "VALID [bold]\n"


def test_on_a_terminal_there_is_a_bar_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with Console().task("train standard", 3) as update:
        update(3)
    out = capsys.readouterr().out
    assert "train standard" in out
    assert "3/3" in out
    assert "left" in out


# --- init, check, schema ------------------------------------------------------------------------


def test_init_writes_a_scenario_that_loads_with_its_comments(
    offramp: Callable[..., Any], tmp_path: Path
) -> None:
    ran = offramp("init", "mine.yaml")
    assert ran.status == 0
    text = (tmp_path / "mine.yaml").read_text()
    shipped = shipped_scenarios()["quickstart"].read_text()
    assert text == shipped.replace("name: quickstart", 'name: "mine"')
    assert text.startswith("#")
    mine, quickstart = (load_scenario(name).scenario for name in ("mine.yaml", "quickstart"))
    assert mine == quickstart.model_copy(update={"name": "mine"})
    for command in re.findall(r"offramp check \S+", ran.out.replace(",", " ")):
        assert offramp(*shlex.split(command)[1:]).status == 0


def test_what_init_says_comes_next_can_be_pasted(
    offramp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "é ü").mkdir()
    ran = offramp("init", "é ü/my own.yaml")
    for command in ran.out.split("now: ")[1].split(", "):
        assert shlex.split(command)[2:] == ["é ü/my own.yaml"]


def test_init_writes_scenario_yaml_unless_told_otherwise_and_starts_from_any_that_ships(
    offramp: Callable[..., Any], tmp_path: Path
) -> None:
    assert offramp("init", "--from", "cifar10").status == 0
    assert load_scenario(str(tmp_path / "scenario.yaml")).scenario.data.dataset == "cifar10"


def test_init_overwrites_a_file_only_when_told_to(
    offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    ran = offramp("init", path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"error: {path} exists already; --force overwrites it\n"
    assert path.read_text() == "mine"
    assert offramp("init", path, "--force").status == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["gone/mine.yaml"], ["cannot write gone/mine.yaml", "No such file or directory"]),
        (["--force", "."], ["cannot write"]),
        (["--from", "quickstrt", "mine.yaml"], ["did you mean 'quickstart'?"]),
        (["--from", "tiny.yaml", "mine.yaml"], ["--from", "cifar10, "]),
    ],
)
def test_init_that_cannot_be_is_one_message(
    arguments: list[str],
    fragments: list[str],
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = scenario()
    ran = offramp("init", *arguments)
    assert (ran.status, ran.out) == (2, "")
    for fragment in fragments:
        assert fragment in ran.err
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
@pytest.mark.usefixtures("named_files")
def test_check_prints_a_scenario_that_loads_to_the_same(
    name: str, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    ran = offramp("check", name)
    assert ran.status == 0
    (tmp_path / "printed.yaml").write_text(ran.out)
    assert load_scenario("printed.yaml").scenario == load_scenario(name).scenario
    printed = YAML(typ="safe").load(ran.out)
    assert printed["training"]["momentum"] == 0.9, "defaults are filled in"


def test_what_is_wrong_with_the_options_is_status_2(
    offramp: Callable[..., Any], scenario: Callable[..., Path]
) -> None:
    path = scenario()
    for arguments in (
        ["run"],
        ["rum", path],
        ["run", path, "--jobs", "0"],
        ["run", path, "--jobs", "many"],
        ["run", path, "--outptu", "x"],
        ["check", path, "more"],
    ):
        ran = offramp(*arguments)
        assert (ran.status, ran.out) == (2, ""), arguments
        assert "Traceback" not in ran.err


def test_every_command_has_help_of_its_own(offramp: Callable[..., Any]) -> None:
    names = [command.callback.__name__ for command in app.registered_commands]
    assert names == [
        *("init", "check", "schema", "run", "train"),
        *("profile", "simulate", "study", "report"),
        *("sweep", "reproduce", "validate", "recommend"),
    ]
    for name in names:
        ran = offramp(name, "--help")
        assert ran.status == 0
        assert len(ran.out.splitlines()) > 5


# --- JSON Schema --------------------------------------------------------------------------------

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
#: Keywords that say nothing of a value's validity.
#: A discriminator (of OpenAPI) tells which of ``oneOf`` is meant, which the check finds itself.
ANNOTATIONS = {"title", "description", "default", "$defs", "$schema", "examples", "discriminator"}


def violations(
    value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$"
) -> list[str]:
    """Why ``value`` is not valid, by the part of JSON Schema that ``offramp schema`` uses."""
    found: list[str] = []

    def below(part: Any, inner: dict[str, Any], where: str) -> None:
        found.extend(violations(part, inner, root, where))

    # The type first: what else a schema says of it takes the type for granted.
    for keyword, wanted in sorted(schema.items(), key=lambda item: item[0] != "type"):
        match keyword:
            case "$ref":
                below(value, root["$defs"][wanted.removeprefix("#/$defs/")], at)
            case "type":
                flag = isinstance(value, bool) and wanted != "boolean"
                if flag or not isinstance(value, TYPES[wanted]):
                    found.append(f"{at} is no {wanted}")
                    break
            case "anyOf" | "oneOf":
                fitting = sum(not violations(value, one, root) for one in wanted)
                if not fitting or (keyword == "oneOf" and fitting > 1):
                    found.append(f"{at} fits {fitting} of {keyword}")
            case "properties":
                for key in wanted.keys() & value.keys():
                    below(value[key], wanted[key], f"{at}.{key}")
            case "patternProperties":
                for pattern, inner in wanted.items():
                    for key in value:
                        if re.search(pattern, key):
                            below(value[key], inner, f"{at}.{key}")
            case "additionalProperties":
                named = schema.get("properties", {})
                for key in value.keys() - named.keys():
                    if wanted is False:
                        found.append(f"{at}.{key} is unknown")
                    elif wanted is not True:
                        below(value[key], wanted, f"{at}.{key}")
            case "propertyNames":
                for key in value:
                    below(key, wanted, f"{at}: {key}")
            case "required":
                found.extend(f"{at}.{key} is missing" for key in wanted if key not in value)
            case "items":
                for index, item in enumerate(value):
                    below(item, wanted, f"{at}[{index}]")
            case "enum":
                if value not in wanted:
                    found.append(f"{at} is none of {wanted}")
            case "const":
                if value != wanted:
                    found.append(f"{at} is not {wanted}")
            case "pattern":
                if isinstance(value, str) and not re.search(wanted, value):
                    found.append(f"{at} does not match")
            case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
                sign = 1 if keyword.lower().endswith("minimum") else -1
                distance = sign * (value - wanted)
                if distance < 0 or (distance == 0 and keyword.startswith("exclusive")):
                    found.append(f"{at} breaks {keyword} {wanted}")
            case "minItems" | "minProperties" | "minLength":
                if len(value) < wanted:
                    found.append(f"{at} is too short")
            case "maxItems" | "maxLength":
                if len(value) > wanted:
                    found.append(f"{at} is too long")
            case _:
                assert keyword in ANNOTATIONS, f"{keyword} is not known here"
    return found


@pytest.fixture(scope="module")
def json_schema() -> dict[str, Any]:
    from typer.testing import CliRunner

    printed: dict[str, Any] = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    return printed


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
@pytest.mark.usefixtures("named_files")
def test_the_schema_accepts_the_scenarios_that_ship(name: str, json_schema: dict[str, Any]) -> None:
    written = YAML(typ="safe").load(shipped_scenarios()[name].read_text())
    assert violations(written, json_schema, json_schema) == []
    resolved = json.loads(load_scenario(name).scenario.model_dump_json())
    assert violations(resolved, json_schema, json_schema) == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"training.stps": 1}, "$.training.stps"),
        ({"training.steps": "5"}, "$.training.steps"),
        ({"training.steps": 0}, "$.training.steps"),
        ({"training.steps": ...}, "$.training.steps"),
        ({"nodes.edge.speed": 0}, "$.nodes.edge.speed"),
        ({"devices.cameras.deadline_ms": "soon"}, "$.devices.cameras.deadline_ms"),
        ({"data.dataset": "mnist"}, "$.data.dataset"),
        ({"data.label_noise": {"symmetric": 20}}, "$.data.label_noise"),
        ({"model.exits": {"at_flops": [1.5]}}, "$.model.exits"),
        ({"model.exits": "layer1"}, "$.model.exits"),
        ({"model.resize": 4}, "$.model.resize"),
        ({"training.regime": "jointly"}, "$.training.regime"),
        ({"training.pacing": {"function": "lineal"}}, "$.training.pacing.function"),
        ({"training.scoring": {"function": "cross_fitted"}}, "$.training.scoring.function"),
        ({"policies": []}, "$.policies"),
        ({"links.wifi.uplnk": {}}, "$.links.wifi.uplnk"),
    ],
)
def test_the_schema_refuses_what_check_refuses(
    changes: dict[str, Any],
    place: str,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    json_schema: dict[str, Any],
) -> None:
    path = scenario(changes)
    assert offramp("check", path).status == 2
    found = violations(YAML(typ="safe").load(path.read_text()), json_schema, json_schema)
    assert any(problem.startswith(place) for problem in found)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.exits": {"at_flops": [0.4, 0.7]}},
        {"model.exits": None},
        {"model.exits": []},
        {"model.backbone": "my_networks.py:Mine"},
        {"model.resize": 16},
        {"data.label_noise": {"symmetric_percent": 20}},
        {"data.mean": [0.5], "data.std": [0.25]},
        {"training.pacing": {"function": "varied_exponential", "increases_at": [0.2, 0.5]}},
        {"training.regime": "classifier_wise", "training.scoring": {"function": "final_exit"}},
    ],
    ids=str,
)
def test_the_schema_accepts_every_way_to_write_a_network_and_its_training(
    changes: dict[str, Any], scenario: Callable[..., Path], json_schema: dict[str, Any]
) -> None:
    path = scenario({**changes, "policies": ["confidence"]})
    assert violations(YAML(typ="safe").load(path.read_text()), json_schema, json_schema) == []
    load_scenario(str(path))


def test_the_schema_explains_every_key_but_sections(json_schema: dict[str, Any]) -> None:
    assert set(json_schema["properties"]) == set(Scenario.model_fields)
    for name, section in json_schema["$defs"].items():
        assert section["type"] == "object"
        assert section["description"]
        # What a policy or a distribution of scipy takes beside its name is its own.
        others = {"PolicySection": True, "ScipySpec": {"type": "number"}}
        assert section["additionalProperties"] == others.get(name, False)


def test_help_waits_for_nothing_that_it_does_not_need():
    program = (
        "import sys; from offramp.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: print(*sorted(sys.modules))\n"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"typer", "offramp.sweep.cli"} <= loaded
    assert not loaded & {"numpy", "scipy", "pandas", "pyarrow", "pydantic", "simpy", "torch"}


def test_what_a_program_imports_is_all_there():
    assert all(getattr(offramp, name) is not None for name in offramp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = offramp.Pipelines
