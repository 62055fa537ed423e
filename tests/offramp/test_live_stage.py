"""The live stage makes of runs what the simulation stage makes of them, and keeps what is done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from devices.joined import with_group
from offramp import Pipeline, load_scenario
from offramp.report.build import build_report
from offramp.stages.inputs import Inputs, find_inputs, world_of
from offramp.stages.jobs import Job, job_of
from offramp.stages.live import ArmRun, arms_in_order, measure_missing, write_live_results
from offramp.stages.live_parts import LIVE_PARTS, LivePart, PartsFolder, remove_parts
from offramp.store import Store
from sim.results.run import Run
from sim.running.slices import Slices
from sim.simulation import simulate_in_slices

Change = dict[str, Any]

#: A world without anything that a live run has not.
PLAIN: Change = {
    "links": {"wifi": {}},
    "policies": ["deadline_aware", {"policy": "fixed_exit", "exit": 2}],
}
CLASSES = 10


@pytest.fixture
def job(
    store: Path, scenario: Callable[..., Path], fixed_service: Change
) -> tuple[Pipeline, Inputs, Job]:
    loaded = load_scenario(str(scenario({**fixed_service, **PLAIN})))
    pipeline = Pipeline(loaded, Store(store))
    inputs = find_inputs(loaded, pipeline.store, "")
    return pipeline, inputs, job_of(loaded, inputs, world_of(loaded, inputs))


def simulated(job: Job, arm: ArmRun) -> Run:
    predictions = job.predictions[arm.network]
    labels = next(iter(job.predictions.values())).label
    workload = Slices(job.world, labels, arm.replication)
    text = next(text for text in job.policies if text.label == arm.policy)
    policy = job.policy(text, arm.network)
    return Run.joined(list(simulate_in_slices(job.world, workload, predictions, policy, 1.0)))


ABOUT = {"notes": [], "lag_ms": {"p50": 0.1, "p99": 0.4}}


def measured(job: Job) -> Callable[[ArmRun], LivePart]:
    return lambda arm: LivePart(simulated(job, arm), (), ABOUT)


def test_tables_and_records_are_those_of_a_simulation_with_the_same_runs(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    pipeline, inputs, what = job
    pipeline.simulate(tmp_path / "simulated", jobs=1)
    arms = arms_in_order(what)
    parts = PartsFolder(tmp_path / "live", "key")
    measure_missing(arms, parts, measured(what))
    write_live_results(what, CLASSES, arms, parts, inputs, tmp_path / "live")
    for name in ("runs.csv", "nodes.csv", "groups.csv", "devices.csv", "exit_accuracy.csv"):
        live, plain = ((tmp_path / it / name).read_text() for it in ("live", "simulated"))
        assert live == plain, name
    tables = [pq.read_table(tmp_path / it / "records.parquet") for it in ("live", "simulated")]
    assert tables[0].equals(tables[1])
    about = [json.loads(table.schema.metadata[b"about"]) for table in tables]
    assert about == [{"world": "live"}, {"world": "simulated"}]


def test_other_deadlines_are_told_only_of_policies_that_never_look_at_them(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    _, inputs, what = job
    arms = arms_in_order(what)
    parts = PartsFolder(tmp_path, "key")
    measure_missing(arms, parts, measured(what))
    write_live_results(what, CLASSES, arms, parts, inputs, tmp_path)
    sweep = pd.read_csv(tmp_path / "deadline_sweep.csv")
    scales = sweep.groupby("policy")["deadline_scale"].unique().map(list).to_dict()
    assert scales == {"deadline_aware": [1.0], "fixed_exit(exit=2)": [0.5, 1.0]}


def test_parts_of_arms_with_like_names_are_told_apart(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path, "key")
    less, more = (parts.path(("standard", 0, f"P(op={sign})"), 0) for sign in "<>")
    assert less != more
    assert parts.path(("standard", 0, "P(op=<)"), 0) == less


def test_what_is_compared_is_measured_one_after_the_other(
    job: tuple[Pipeline, Inputs, Job],
) -> None:
    order = [(it.replication, it.policy, it.network) for it in arms_in_order(job[2])]
    assert order[:4] == [
        (0, "deadline_aware", ("standard", 0)),
        (0, "deadline_aware", ("curriculum", 0)),
        (0, "deadline_aware", ("standard", 1)),
        (0, "deadline_aware", ("curriculum", 1)),
    ]
    assert len(set(order)) == len(order) == 2 * 2 * 2 * 2
    assert [replication for replication, *_ in order] == [0] * 8 + [1] * 8


class Killed(BaseException):
    """What ends a process."""


def test_a_killed_run_goes_on_where_it_stopped(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    _, inputs, what = job
    arms, done = arms_in_order(what), list[ArmRun]()

    def measure(arm: ArmRun) -> LivePart:
        if len(done) == 3:
            raise Killed
        done.append(arm)
        return measured(what)(arm)

    with pytest.raises(Killed):
        measure_missing(arms, PartsFolder(tmp_path, "key"), measure)
    again = list[ArmRun]()

    def go_on(arm: ArmRun) -> LivePart:
        again.append(arm)
        return measured(what)(arm)

    parts = PartsFolder(tmp_path, "key")
    measure_missing(arms, parts, go_on)
    assert done + again == arms
    write_live_results(what, CLASSES, arms, parts, inputs, tmp_path)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == len(arms)
    remove_parts(tmp_path)
    assert not (tmp_path / LIVE_PARTS).exists()


def test_what_was_measured_for_one_run_is_not_taken_for_another(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    what = job[2]
    arm = arms_in_order(what)[0]
    PartsFolder(tmp_path, "one").write(arm.arm, 0, measured(what)(arm))
    assert PartsFolder(tmp_path, "one").read(arm.arm, 0) is not None
    assert PartsFolder(tmp_path, "other").read(arm.arm, 0) is None


def test_a_part_comes_back_as_it_was_written(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    what = job[2]
    arm = arms_in_order(what)[-1]
    parts = PartsFolder(tmp_path, "key")
    run = simulated(what, arm)
    parts.write(arm.arm, 1, LivePart(run, ("pi",), {"notes": ["it was hot"]}))
    part = parts.read(arm.arm, 1)
    assert part is not None
    assert (part.joined, part.about, part.run.replication) == (
        ("pi",),
        {"notes": ["it was hot"]},
        1,
    )
    for name in ("outcome", "received_s", "exit", "correct", "predicted", "confidence", "batch"):
        before, after = getattr(run, name), getattr(part.run, name)
        assert before.dtype == after.dtype, name
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(run.requests.created_s, part.run.requests.created_s)


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_damaged_part_is_measured_anew(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path, damage: bytes | None
) -> None:
    what = job[2]
    first, second, *_ = arms_in_order(what)
    parts = PartsFolder(tmp_path, "key")
    for arm in (first, second):
        parts.write(arm.arm, 0, measured(what)(arm))
    path = parts.path(first.arm, 0)
    if damage is None:  # another part in its place
        path.write_bytes(parts.path(second.arm, 0).read_bytes())
    else:
        path.write_bytes(damage)
    assert parts.read(first.arm, 0) is None


def test_devices_that_joined_some_arms_are_the_same_in_all(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    """Each part counts those that it met; the tables count all of them."""
    _, inputs, what = job
    arms = arms_in_order(what)
    world = what.world

    def measure(arm: ArmRun) -> LivePart:
        names = ("pi", "esp32") if arm == arms[0] else ("esp32",) if arm == arms[1] else ()
        run = simulated(what, arm)
        if not names:
            return LivePart(run, (), ABOUT)
        # The first requests were theirs: of the last, which is the esp32, and with a label of
        # its own.
        count, local = 7, len(names) - 1
        run.requests.group[:count] = len(world.groups)
        run.requests.local[:count] = local
        run.requests.device[:count] = world.devices + local
        run.requests.sample[:count] = len(what.predictions[arm.network].label) + 4
        run.requests.created_s[:count] = world.warm_up_s
        return LivePart(run, names, ABOUT)

    parts = PartsFolder(tmp_path, "key")
    measure_missing(arms, parts, measure)
    write_live_results(what, CLASSES, arms, parts, inputs, tmp_path)
    records = pq.read_table(tmp_path / "records.parquet").to_pandas()
    joined = records[records["group"] == "joined"]
    assert joined["device"].unique().tolist() == ["esp32"]
    assert (joined["label"] == 4).all()
    assert (joined["sample"] == -1).all()
    assert len(joined) == 14
    devices = pd.read_csv(tmp_path / "devices.csv")
    assert set(devices[devices["group"] == "joined"]["device"]) == {"pi", "esp32"}
    assert with_group(world, ("pi",), 1.0).device_name(world.devices) == "pi"


def test_the_report_says_that_it_was_live(
    job: tuple[Pipeline, Inputs, Job], tmp_path: Path
) -> None:
    pipeline, inputs, what = job
    arms = arms_in_order(what)
    parts = PartsFolder(tmp_path, "key")
    measure_missing(arms, parts, measured(what))
    write_live_results(what, CLASSES, arms, parts, inputs, tmp_path)
    live = {
        "broker": "embedded",
        "host": {"processor": "a chip", "cores": 2},
        "joined": ["pi"],
        "lag_ms": {"p50": 0.1, "p99": 0.4},
        "processors": {"nodes": {"edge": [1, 3]}, "rest": [0, 2]},
        "awake": True,
        "warnings": ["links are not emulated (wifi)"],
    }
    manifest = {**pipeline.manifest(inputs), "world": "live", "live": live}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    report = build_report(tmp_path)
    page = report.page.read_text()
    assert "**Live**, not simulated.\n\nTo know besides:\n\n- " in page
    assert "\n- links are not emulated (wifi)" in page
    assert "measured in real time over MQTT, one arm after the other" in page
    assert "links and samples" not in page
    assert "| host: processor | a chip |" in page
    assert "| host: processors of node edge | 1, 3 |" in page
    assert "| host: processors of broker and devices | 0, 2 |" in page
    assert "| host: processors kept awake | yes |" in page
    assert "| devices sent late by, p99 (ms) | 0.4 |" in page
    assert "Measured live at the scenario's deadlines alone" in page
    assert json.loads((tmp_path / "summary.json").read_text())["world"] == "live"


def test_a_live_run_of_one_replication_is_told_how_to_have_more(
    store: Path, scenario: Callable[..., Path], fixed_service: Change, tmp_path: Path
) -> None:
    changes = {**fixed_service, **PLAIN, "simulation.replications": 1, "training.seeds": 1}
    pipeline = Pipeline(load_scenario(str(scenario(changes))), Store(store))
    pipeline.simulate(tmp_path, jobs=1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    live = {"broker": "embedded", "host": {}, "joined": [], "lag_ms": {}, "warnings": []}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "world": "live", "live": live}))
    reasons = build_report(tmp_path).reasons
    assert "too few replications: 1 gives no interval (--replications)" in reasons
    assert "too few training seeds: 1 says nothing of another training (--seed)" in reasons
