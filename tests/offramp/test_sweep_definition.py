"""What a sweep varies: read from ``--set`` and from the block ``sweep``, and checked."""

import copy
import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from offramp import ScenarioError, load_scenario
from offramp.schema import Scenario
from offramp.sweep.definition import Sweep, load_block, load_sweep


@pytest.fixture
def swept(scenario: Callable[..., Path]) -> Callable[..., Sweep]:
    """Loads the tiny scenario, with a block, and with overrides."""

    def load(*overrides: str, block: Any = ...) -> Sweep:
        return load_sweep(str(scenario({} if block is ... else {"sweep": block})), overrides)

    return load


# --- what varies ---------------------------------------------------------------------------------


def test_several_values_vary_and_one_is_the_same_everywhere(swept: Callable[..., Sweep]) -> None:
    sweep = swept("devices.cameras.count=2,4", "training.steps=7", "seed=1,2,3")
    assert sweep.keys == ("devices.cameras.count", "seed")
    assert list(sweep.points) == [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2), (4, 3)]
    assert sweep.base.scenario.devices["cameras"].count == 5
    assert sweep.base.scenario.training.steps == 7
    at = sweep.scenario_at(sweep.points[4]).scenario
    assert (at.devices["cameras"].count, at.seed, at.training.steps) == (4, 2, 7)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("seed=1,2", [1, 2]),
        (" seed = 1 , 2", [1, 2]),
        ("seed=1,2,", [1, 2]),
        ("seed=1,2 # as usual", [1, 2]),
        ("seed=01, 2", [1, 2]),
        ("devices.cameras.deadline_ms=1e1,12.5", [10.0, 12.5]),
        ("training.augment=true,false", [True, False]),
        ("nodes.edge.queue_limit=3,null", [3, None]),
        ("nodes.edge.queue_limit=3,~", [3, None]),
        ("nodes.edge.queue=fifo,edf", ["fifo", "edf"]),
        ('description="a, b",c', ["a, b", "c"]),
        ("training.seeds=[0, 1],[2, 3]", [[0, 1], [2, 3]]),
        ("training.seeds=2,[2, 3]", [2, [2, 3]]),
        ("model.exits=[layer1],{at_flops: [0.5]}", [["layer1"], {"at_flops": [0.5]}]),
        (
            "devices.cameras.arrivals={process: poisson, rate_hz: 3},"
            '{"process": "periodic", "rate_hz": 2}',
            [{"process": "poisson", "rate_hz": 3}, {"process": "periodic", "rate_hz": 2}],
        ),
    ],
)
def test_what_stands_between_commas_is_yaml(
    override: str, values: list[object], swept: Callable[..., Sweep]
) -> None:
    (key,) = (sweep := swept(override)).keys
    assert key == override.partition("=")[0].strip()
    assert [value for (value,) in sweep.points] == values
    assert [type(value) for (value,) in sweep.points] == list(map(type, values))


def test_a_thousand_values_of_one_key(swept: Callable[..., Sweep]) -> None:
    sweep = swept("seed=" + ",".join(map(str, range(1000))))
    assert [seed for (seed,) in sweep.points] == list(range(1000))


BLOCK = {
    "zip": {"links.wifi.uplink.latency_ms": [1, 3], "links.wifi.downlink.latency_ms": [2, 4]},
    "random": {"points": 3, "keys": {"nodes.edge.speed": {"log_uniform": [0.05, 0.5]}}},
    "grid": {"devices.cameras.count": [2, 4], "policies.1.exit": [1, 2]},
    "latin_hypercube": {
        "points": 5,
        "keys": {
            "devices.cameras.deadline_ms": {"uniform": [10, 40]},
            "devices.cameras.priority": {"integers": [1, 9]},
            "nodes.edge.queue": ["edf", "priority"],
        },
    },
    "seed": 4,
}


def test_the_parts_of_a_block_are_crossed_in_the_order_in_which_they_are_written(
    swept: Callable[..., Sweep],
) -> None:
    sweep = swept("seed=1,2", block=BLOCK)
    assert sweep.keys == (
        "links.wifi.uplink.latency_ms",
        "links.wifi.downlink.latency_ms",
        "nodes.edge.speed",
        "devices.cameras.count",
        "policies.1.exit",
        "devices.cameras.deadline_ms",
        "devices.cameras.priority",
        "nodes.edge.queue",
        "seed",
    )
    points = list(sweep.points)
    assert len(points) == 2 * 3 * 2 * 2 * 5 * 2
    assert {point[:2] for point in points} == {(1, 2), (3, 4)}
    assert len({point[2] for point in points}) == 3
    assert len({point[5:8] for point in points}) == 5
    assert all(0.05 <= point[2] <= 0.5 and 10 <= point[5] <= 40 for point in points)
    assert {point[7] for point in points} == {"edf", "priority"}
    last = sweep.scenario_at(points[-1]).scenario
    assert last.nodes["edge"].queue == points[-1][7]
    assert last.links["wifi"].downlink.latency_ms == 4


def test_the_seed_of_a_block_decides_what_is_drawn(swept: Callable[..., Sweep]) -> None:
    drawn = [list(swept(block={**BLOCK, "seed": seed}).points) for seed in (4, 4, 5)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_same_points_are_found_in_a_block_and_on_the_command_line(
    swept: Callable[..., Sweep],
) -> None:
    values = {"seed": [1, 2], "training.seeds": [[0, 1], 3], "nodes.edge.queue": ["fifo", "edf"]}
    block = swept(block={"grid": values})
    line = swept(*(f"{key}={json.dumps(given)[1:-1]}" for key, given in values.items()))
    assert block.keys == line.keys
    assert list(block.points) == list(line.points)
    assert block.data == line.data
    assert [block.scenario_at(at).scenario for at in block.points] == [
        line.scenario_at(at).scenario for at in line.points
    ]


def test_overrides_reach_into_the_block(swept: Callable[..., Sweep]) -> None:
    block = {"grid": {"devices.cameras.count": [2, 4]}}
    assert list(swept("sweep.grid.devices.cameras.count=[3]", block=block).points) == [(3,)]
    more = swept("sweep.grid.nodes.edge.speed=[0.1, 0.2]", block=block)
    assert more.keys == ("devices.cameras.count", "nodes.edge.speed")
    assert swept("sweep=null", "seed=1,2", block=block).keys == ("seed",)


# --- which keys can vary -------------------------------------------------------------------------


def paths(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted key of everything in a resolved scenario."""
    if path:
        yield ".".join(path)
    items = dict(enumerate(node)) if isinstance(node, list) else node
    for key, inner in items.items() if isinstance(items, dict) else ():
        yield from paths(inner, (*path, str(key)))


RICH = {
    "mqtt": {"qos": 1},
    "nodes.edge.batch": {"size": 1},
    "devices.cameras.energy": {
        "idle_w": 1,
        "compute_w": 2,
        "transmit_w": 2,
        "receive_w": 2,
        "source": "a guess",
    },
    "devices.cameras.deadline_ms": {"distribution": "uniform", "low": 10, "high": 40},
    "faults": [{"kind": "node_crash", "node": "edge", "at_s": 1, "for_s": 1}],
}


def at_path(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def test_every_key_of_a_resolved_scenario_can_vary(
    scenario: Callable[..., Path], written: Callable[..., Path], tmp_path: Path
) -> None:
    path = scenario(RICH)
    whole = load_scenario(str(path)).scenario
    resolved = whole.model_dump()
    del resolved["sweep"]
    keys = list(paths(resolved))
    assert len(keys) > 150
    for key in keys:
        block = {"sweep": {"grid": {key: [at_path(resolved, key)]}}}
        sweep = load_sweep(str(written(tmp_path / "one.yaml", {**RICH, **block})))
        assert sweep.scenario_at(sweep.points[0]).scenario == whole, key


@pytest.mark.parametrize(
    "override",
    [
        "policies.0.quantile=0.5,0.9",  # of a policy that is written as its name alone
        "policies.1.exit=1,2",
        "policies.1=full,confidence",
        "policies=[full],[confidence, full]",
        "training.seeds=2,3",
        "training.seeds=[4],[5, 6]",
        "training.strategies=[standard],[curriculum]",
        "training.strategies.1=curriculum,anti_curriculum",
        "training.pacing.full_at=0.2,0.4",
        "training.scoring={folds: 2},{folds: 3}",
        "training.scoring.folds=2,3",
        "data.label_noise.symmetric_percent=10,20",
        "data.label_noise=null,{symmetric_percent: 10}",
        "devices.cameras.count=1,2",
        "devices.cameras.arrivals.rate_hz=1,2.5",
        "devices.cameras.compute.speed=0.1,0.2",
        "devices.cameras.samples=drawn,shuffled,{correlated: 4}",
        "links.wifi.downlink.latency_ms=1,{distribution: exponential, mean: 3}",
        "links.wifi.uplink.jitter_ms=0,1",
        "links.wifi.shared_by=1,all",
        "links.wifi.preset=wifi,lte",
        "links={wifi: {preset: wifi}},{wifi: {preset: lte}}",
        "mqtt.qos=0,1,2",
        "mqtt=null,{},{qos: 2}",
        "nodes.edge.batch.wait_ms=0,1",
        "nodes.edge.service_ms=3,null",
        "faults=[],[{kind: node_crash, node: edge, at_s: 1, for_s: 1}]",
        "model.branch=linear,conv",
        "model.exits.0=layer1,layer2",
        "simulation.deadline_scales.0=0.1,0.2",
        "simulation.trace_window_s=null,[0, 1]",
        "profile.batch_sizes=[1],[1, 8]",
        "name=one,two",
    ],
)
def test_a_point_is_the_scenario_with_its_values_set(
    override: str, scenario: Callable[..., Path]
) -> None:
    path = str(scenario({"profile.batch_sizes": ..., "nodes.edge.batch": {"size": 1}}))
    sweep = load_sweep(path, [override])
    key = override.partition("=")[0]
    assert len(sweep.points) >= 2
    for values in sweep.points:
        at = sweep.scenario_at(values)
        # As `offramp run` has it, with the overrides that a point says of itself.
        assert at.overrides == (f"{key}={json.dumps(values[0])}",)
        assert at.scenario == load_scenario(path, at.overrides).scenario
        assert (at.folder, at.source) == (sweep.base.folder, path)
    assert len({sweep.scenario_at(at).scenario.model_dump_json() for at in sweep.points}) > 1


def test_names_with_dots_can_vary(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(tmp_path / "s.yaml", {"nodes": {"edge": {}, "edge.2": {"speed": 0.2}}})
    sweep = load_sweep(str(path), ["nodes.edge.2.speed=0.3,0.4"])
    assert sweep.scenario_at((0.3,)).scenario.nodes["edge.2"].speed == 0.3


# --- the scenario of a point ---------------------------------------------------------------------


def test_the_base_is_the_scenario_without_the_block(swept: Callable[..., Sweep]) -> None:
    sweep = swept("seed=8", block=BLOCK)
    assert sweep.base.scenario == swept("seed=8", "name=a,b").base.scenario
    assert sweep.base.scenario.sweep is None
    assert "sweep" not in sweep.data
    assert sweep.scenario_at(sweep.points[0]).scenario.sweep is None
    assert sweep.base.overrides == ("seed=8",)


def test_a_block_makes_nothing_anew(
    trained: Any, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    """The same networks, the same profile, the same simulation, and one line that says why."""
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    path = scenario({"sweep": BLOCK})
    ran = offramp("run", path, "--store", trained.store, "-o", results, "-j", 1)
    assert ran.status == 0, ran.err
    assert not re.search(r"^made", ran.out + ran.err, re.MULTILINE)
    notes = [line for line in (ran.out + ran.err).splitlines() if "offramp sweep" in line]
    assert notes == ["the block `sweep` is for `offramp sweep`; this is the scenario without it"]


def test_points_share_nothing_that_a_policy_could_change(tmp_path: Path, written: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n"
        "    def __init__(self, seen, more): self.seen = seen\n"
        "    def decide(self, request, node): ...\n"
    )
    policy = {"policy": "mine.py:Mine", "seen": [0], "more": 1}
    path = written(tmp_path / "s.yaml", {"policies": [policy]})
    sweep = load_sweep(str(path), ["policies.0.more=[1],[2]"])
    before = copy.deepcopy(sweep.data)
    values = sweep.points[0]
    parameters = sweep.scenario_at(values).scenario.policies[0].parameters
    parameters["seen"].append(1)
    parameters["more"].append(1)
    assert sweep.data == before
    assert sweep.points[0] == ([1],)
    assert sweep.scenario_at(values).scenario.policies[0].parameters["seen"] == [0]


def test_a_point_needs_no_yaml_and_travels_to_other_processes(
    swept: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = swept("seed=4,5", "nodes.edge.speed=0.1,0.2")
    sweep.scenario_at(sweep.points[3])

    def refuse(*_: object) -> None:
        pytest.fail("YAML was read")

    for module in ("yaml_lines", "yaml_source", "presets"):
        monkeypatch.setattr(f"offramp.{module}.read_yaml", refuse)
    sent = pickle.loads(pickle.dumps(sweep.template))
    for values in sweep.points:
        assert sent.scenario_at(values).scenario == sweep.scenario_at(values).scenario


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("devices.cameras.cuont=1,2", ["unknown key", "did you mean 'count'?"]),
        ("devices.camera.count=1,2", ["'camera'", "did you mean 'cameras'?", "there are: cameras"]),
        ("nodes.egde.speed=1,2", ["unknown key", "did you mean 'edge'?"]),
        ("links.wfi.uplink.latency_ms=1,2", ["unknown key", "did you mean 'wifi'?"]),
        ("device.cameras.count=1,2", ["unknown key", "did you mean 'devices'?"]),
        ("training.stps=1,2", ["unknown key", "did you mean 'steps'?"]),
        ("mqtt.qso=1,2", ["unknown key", "did you mean 'qos'?"]),
        ("policies.0.quantil=0.5,0.9", ["did you mean 'quantile'?"]),
        ("policies.2=full,confidence", ["policies is a list of 2", "0 to 1"]),
        ("seed.value=1,2", ["seed is 3 and has no keys"]),
        ("seed=1,1", ["seed: 1 is named twice"]),
        ("seed=1,-2", ["given -2", "at seed=-2"]),
        ("seed=1,two", ["given 'two'", "integer", 'at seed="two"']),
        ("seed=", ["no value is given", "seed=null"]),
        ("seed= ", ["no value is given"]),
        ("seed", ["write it as key.path=value"]),
        ("=1,2", ["write it as key.path=value"]),
        ("seed=1,,2", ["not valid YAML"]),
        ("seed=1,[2", ["not valid YAML"]),
        ("seed=1],[2", ["not valid YAML"]),
        ("devices.cameras.link=wifi,wfi", ["did you mean 'wifi'?", 'link="wfi"']),
        ("devices.cameras.count=[1, 2]", ["given [1, 2]", "integer"]),
        ("sweep.seed=1,2", ["cannot itself be varied"]),
        ("policies.1.exit=1,9", ["exit is 9", "exits 1 to 2", "at policies.1.exit=9"]),
        ("nodes.edge.batch.size=1,4", ["batches of 4", "profile.batch_sizes"]),
    ],
)
def test_a_bad_override_is_one_message_that_quotes_it(
    override: str, fragments: list[str], swept: Callable[..., Sweep]
) -> None:
    with pytest.raises(ScenarioError) as raised:
        swept(override)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"--set {override}: ")
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("block", "key", "fragments"),
    [
        (3, "sweep", ["given 3", "mapping"]),
        ({"gird": {}}, "sweep.gird", ["unknown key", "did you mean 'grid'?"]),
        ({"grid": {"seed": []}}, "sweep.grid.seed", ["given []", "a list with an entry"]),
        ({"grid": {"seed": 3}}, "sweep.grid.seed", ["given 3", "a list"]),
        ({"grid": {"seed": [1, 2, 1]}}, "sweep.grid.seed", ["1 is named twice"]),
        ({"grid": {"sed": [1, 2]}}, "sweep.grid.sed", ["unknown key", "did you mean 'seed'?"]),
        ({"grid": {"seed": [1, -1]}}, "sweep.grid.seed", ["given -1", "at seed=-1"]),
        (
            {"grid": {"nodes.egde.speed": [1]}},
            "sweep.grid.nodes.egde.speed",
            ["unknown key", "did you mean 'edge'?"],
        ),
        ({"zip": {"seed": [1, 2], "name": ["a"]}}, "sweep.zip", ["2 for seed, 1 for name"]),
        (
            {"grid": {"seed": [1]}, "zip": {"seed": [1]}},
            "sweep.zip.seed",
            ["varied twice", "sweep.grid.seed"],
        ),
        (
            {"grid": {"devices.cameras.count": [1], "devices": [{}]}},
            "sweep.grid.devices",
            ["devices.cameras.count"],
        ),
        (
            {"grid": {"devices.cameras": [{}], "devices.cameras.count": [1]}},
            "sweep.grid.devices.cameras.count",
            ["a part of devices.cameras"],
        ),
        ({"grid": {"sweep.seed": [1, 2]}}, "sweep.grid.sweep.seed", ["cannot itself be varied"]),
        ({"random": {"keys": {"seed": [1]}}}, "sweep.random", ["points", "required"]),
        ({"random": {"points": 0, "keys": {"seed": [1]}}}, "sweep.random.points", ["given 0"]),
        ({"random": {"points": 2, "keys": {}}}, "sweep.random.keys", ["given {}"]),
        (
            {"random": {"points": 2, "keys": {"seed": {"unifrm": [1, 2]}}}},
            "sweep.random.keys.seed.unifrm",
            ["unknown key", "did you mean 'uniform'?"],
        ),
        (
            {"random": {"points": 2, "keys": {"seed": {"integers": [2, 1]}}}},
            "sweep.random.keys.seed",
            ["low below high"],
        ),
        (
            {"latin_hypercube": {"points": 2, "keys": {"seed": {"log_uniform": [0, 1]}}}},
            "sweep.latin_hypercube.keys.seed",
            ["numbers above 0"],
        ),
        (
            {"latin_hypercube": {"points": 2, "keys": {"seed": {}}}},
            "sweep.latin_hypercube.keys.seed",
            ["one of uniform, log_uniform and integers"],
        ),
        (
            {"random": {"points": 2, "keys": {"seed": 7}}},
            "sweep.random.keys.seed",
            ["given 7", "a list, or a range"],
        ),
        (
            {"random": {"points": 2, "keys": {"nodes.edge.speed": {"uniform": [0, 1]}}}},
            "sweep.random.keys.nodes.edge.speed",
            ["given 0", "at nodes.edge.speed=0"],
        ),
    ],
)
def test_a_bad_block_is_one_message_with_its_place(
    block: Any, key: str, fragments: list[str], scenario: Callable[..., Path]
) -> None:
    path = scenario({"sweep": block})
    with pytest.raises(ScenarioError) as raised:
        load_sweep(str(path))
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}:{line_of(path, key)}: ")
    for fragment in fragments:
        assert fragment in line


def line_of(path: Path, key: str) -> int:
    """The line of a key whose own parts may hold dots."""
    node, left, line = YAML().compose(path.read_text(encoding="utf-8")), key, 0
    while left:
        # The longest first: `devices.cameras` may stand beside `devices.cameras.count`.
        pairs = sorted(getattr(node, "value", []), key=lambda pair: -len(pair[0].value))
        for name, inner in pairs:
            if left == name.value or left.startswith(f"{name.value}."):
                node, left = inner, left[len(name.value) + 1 :]
                line = name.start_mark.line + 1
                break
        else:
            raise AssertionError(f"no {left} in {path}")
    return line


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (["seed=1,2", "seed=3,4"], ["--set seed=3,4: ", "varied twice", "--set seed=1,2"]),
        (["seed=1", "seed=3,4"], ["--set seed=3,4: ", "--set seed=1 sets it"]),
        (["seed=3,4", "seed=1"], ["--set seed=3,4: ", "--set seed=1 sets it"]),
        (
            ["devices.cameras.count=3", "devices={},{a: {}}"],
            ["--set devices={},{a: {}}: ", "--set devices.cameras.count=3 sets it"],
        ),
        (
            ["policies.1.exit=1,2", "policies=[full],[confidence]"],
            ["policies holds policies.1.exit"],
        ),
        (
            ["policies=[full],[confidence]", "policies.01.exit=1,2"],
            ["policies.1.exit is a part of policies"],
        ),
    ],
)
def test_overrides_that_contradict_each_other(
    overrides: list[str], fragments: list[str], swept: Callable[..., Sweep]
) -> None:
    with pytest.raises(ScenarioError) as raised:
        swept(*overrides)
    for fragment in fragments:
        assert fragment in str(raised.value)


@pytest.mark.parametrize("override", ["devices.cameras.count=3", "devices.cameras.count=1,2"])
def test_an_override_of_what_the_block_varies(override: str, scenario: Callable[..., Path]) -> None:
    path = scenario({"sweep": {"grid": {"devices.cameras.count": [2, 4]}}})
    with pytest.raises(ScenarioError) as raised:
        load_sweep(str(path), [override])
    assert f"{path}:" in str(raised.value)
    assert f"--set {override}" in str(raised.value)


@pytest.mark.parametrize("block", [..., None, {}, {"seed": 3}, {"grid": {}, "zip": {}}])
def test_a_sweep_of_nothing_is_refused(
    block: object, swept: Callable[..., Sweep], scenario: Callable[..., Path]
) -> None:
    with pytest.raises(ScenarioError, match="nothing varies"):
        swept("seed=1", block=block)


def test_every_bad_value_is_named_and_none_that_is_good(swept: Callable[..., Sweep]) -> None:
    with pytest.raises(ScenarioError) as raised:
        swept("devices.cameras.count=3,0,2,-1", "nodes.edge.speed=0.1,0")
    named = re.findall(r"\(at (.*)\)", str(raised.value))
    assert named == ["devices.cameras.count=0", "devices.cameras.count=-1", "nodes.edge.speed=0"]


def test_a_key_that_is_wrong_for_all_its_values_is_one_message(
    swept: Callable[..., Sweep],
) -> None:
    with pytest.raises(ScenarioError) as raised:
        swept("seed=1,2", "training.stps=" + ",".join(map(str, range(500))))
    (line,) = str(raised.value).splitlines()
    assert "did you mean 'steps'?" in line
    assert len(line) < 800, "the many values are not repeated"


def test_hundreds_of_bad_values_do_not_flood_the_terminal(swept: Callable[..., Sweep]) -> None:
    with pytest.raises(ScenarioError) as raised:
        swept("devices.cameras.count=" + ",".join(map(str, range(-500, 0))))
    assert len(str(raised.value).splitlines()) == 20


# --- values that depend on each other ------------------------------------------------------------


@pytest.mark.parametrize("way", ["grid", "zip"])
def test_values_that_are_valid_in_company_are_no_mistake(
    way: str, swept: Callable[..., Sweep]
) -> None:
    sweep = swept(
        block={way: {"nodes.edge.batch.size": [1, 4], "profile.batch_sizes": [[1], [1, 4]]}}
    )
    failed = []
    for values in sweep.points:
        try:
            sweep.scenario_at(values)
        except ScenarioError as error:
            failed.append((values, str(error)))
    if way == "zip":
        assert (len(sweep.points), failed) == (2, [])
    else:
        ((values, text),) = failed
        assert (len(sweep.points), values) == (4, (4, [1]))
        assert "batches of 4 are asked for, but profile.batch_sizes has at most 1" in text


def test_keys_that_are_required_together_vary_together(swept: Callable[..., Sweep]) -> None:
    states = {"idle_w": [1, 2], "compute_w": [5], "transmit_w": [5], "receive_w": [5]}
    grid = {f"nodes.edge.energy.{state}": watts for state, watts in states.items()}
    sweep = swept(block={"grid": {**grid, "nodes.edge.energy.source": ["a guess"]}})
    energy = sweep.scenario_at(sweep.points[1]).scenario.nodes["edge"].energy
    assert energy is not None
    assert (energy.idle_w, energy.compute_w) == (2, 5)
    with pytest.raises(ScenarioError, match=r"energy\.source: this key is required"):
        swept(block={"grid": grid})


# --- the commands --------------------------------------------------------------------------------


def test_check_prints_the_block_and_how_many_points_it_makes(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario({"sweep": BLOCK})
    ran = offramp("check", path)
    assert ran.status == 0, ran.err
    assert "sweep: 120 points: " in ran.err
    assert "nodes.edge.speed (3)" in ran.err
    again = tmp_path / "again.yaml"
    again.write_text(ran.out)
    printed, given = load_scenario(str(again)).scenario, load_scenario(str(path)).scenario
    assert printed.sweep == given.sweep is not None
    assert "sweep: 120 points" in offramp("check", again).err


def test_check_reads_an_override_as_one_value_and_tells_a_bad_block(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    path = scenario({"sweep": {"grid": {"seed": [1, 2]}}})
    assert load_block(str(path), ["description=a, b"]).base.scenario.description == "a, b"
    ran = offramp("check", path, "--set", "sweep.grid.seed=[1, 2, 3]")
    assert "sweep: 3 points: seed (3)" in ran.err
    ran = offramp("check", path, "--set", "sweep.grid.sed=[1, 2, 3]")
    assert ran.status == 2
    assert "did you mean 'seed'?" in ran.err


def test_the_block_is_in_the_json_schema() -> None:
    schema = Scenario.model_json_schema()
    assert set(schema["$defs"]["SweepSection"]["properties"]) == {
        "grid",
        "zip",
        "random",
        "latin_hypercube",
        "seed",
    }
