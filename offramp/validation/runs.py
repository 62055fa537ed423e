"""Two results folders side by side: are they of the same requests, and what came of each?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.errors import ArtifactError, ResultsError
from offramp.stages.layout import MANIFEST, NODES, RECORDS
from sim.results.records import read_records

#: What tells one run from another.
RUN = ["strategy", "training_seed", "policy", "replication"]
ARM = RUN[:-1]

#: Keys of a scenario on which requests, networks and decisions depend; links, and what nodes are
#: made of, are what may differ between a real world and its simulation.
_MUST_AGREE = (
    ("seed",),
    ("data",),
    ("model",),
    ("training",),
    ("devices",),
    ("policies",),
    ("simulation", "duration_s"),
    ("simulation", "warm_up_s"),
    ("simulation", "replications"),
)
_OF_NODES = ("workers", "replicas", "queue", "queue_limit", "admission", "batch", "last_exit")


@dataclass(frozen=True)
class Side:
    """The results of one world.

    Attributes:
        records: one row per request, see :mod:`sim.results.records`.
        nodes: metrics of every run and node.
    """

    folder: Path
    manifest: dict[str, Any]
    records: pd.DataFrame
    nodes: pd.DataFrame

    @property
    def scenario(self) -> dict[str, Any]:
        """As it was run."""
        scenario: dict[str, Any] = self.manifest["scenario"]
        return scenario

    @property
    def world(self) -> str:
        """``live`` or ``simulated``."""
        return str(self.manifest.get("world", "simulated"))

    @property
    def duration_s(self) -> float:
        """Of the measured window."""
        return float(self.scenario["simulation"]["duration_s"])

    @cached_property
    def loops(self) -> bool:
        """Whether when a request is created depends on the answer to another."""
        groups = self.scenario["devices"].values()
        return any(group["arrivals"]["process"] == "closed_loop" for group in groups)


def read_side(folder: Path) -> Side:
    """Read a results folder of a live run or a simulation.

    Raises:
        ResultsError: it is none, is of another version, or holds no request.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        records = read_records(folder / RECORDS).to_pandas()
        nodes = pd.read_csv(folder / NODES)
        side = Side(folder, manifest, records, nodes)
        _ = side.scenario, side.duration_s
    except ArtifactError as error:
        raise ResultsError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{folder} does not hold the results of a run ({type(error).__name__}: {error})"
        ) from error
    if not len(records):
        raise ResultsError(f"{folder} holds no request: nothing can be compared")
    for name in ("strategy", "policy", "device", "group", "node", "outcome"):
        records[name] = records[name].astype(str)
    return side


def check_comparable(live: Side, simulated: Side) -> None:
    """See whether two results are of the same scenario, arms and networks.

    Raises:
        ResultsError: they are not; the message names every field that differs.
    """
    problems = list[str]()
    for side, world in ((live, "live"), (simulated, "simulated")):
        if side.world != world:
            problems.append(f"{side.folder} is of a {side.world} world, not a {world} one")
    for key in _MUST_AGREE:
        mine, theirs = (_at(side.scenario, key) for side in (live, simulated))
        problems += _differences(".".join(key), mine, theirs)
    for name, node in live.scenario["nodes"].items():
        other = simulated.scenario["nodes"].get(name)
        if other is None:
            problems.append(f"nodes.{name} is in one of them alone")
            continue
        for what in _OF_NODES:
            problems += _differences(f"nodes.{name}.{what}", node.get(what), other.get(what))
    qos = [(side.scenario.get("mqtt") or {}).get("qos", 1) for side in (live, simulated)]
    problems += _differences("mqtt.qos", *qos)
    inputs = [side.manifest.get("inputs", {}) for side in (live, simulated)]
    for what in inputs[0].keys() & inputs[1].keys():
        if what.startswith("predictions of") and inputs[0][what] != inputs[1][what]:
            problems.append(f"the {what} are not the same file")
    if problems:
        raise ResultsError(
            f"{live.folder} and {simulated.folder} cannot be compared:\n  " + "\n  ".join(problems)
        )


def _at(scenario: dict[str, Any], key: tuple[str, ...]) -> Any:
    value: Any = scenario
    for part in key:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _differences(key: str, mine: Any, theirs: Any) -> list[str]:
    """Of two parts of a scenario, the keys at which they differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            problem
            for name in {**mine, **theirs}
            if name != "energy"  # which is not measured live
            for problem in _differences(f"{key}.{name}", mine.get(name), theirs.get(name))
        ]
    if mine == theirs:
        return []
    return [f"{key} differs: {_short(mine)} live, {_short(theirs)} simulated"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def check_same_requests(live: Side, simulated: Side) -> int:
    """See, request by request, whether both worlds were asked the same.

    Device, creation, deadline, sample and label of each request of an open workload are equal to
    the last bit. In a closed loop, when a request is created follows from the answers: there
    nothing but the arms is compared.

    Returns:
        How many requests were found to be the same.

    Raises:
        ResultsError: they are not; says which, and what differs.
    """
    names = ("device", "created_s", "deadline_s", "sample", "label")
    tables = [dict(iter(side.records.groupby(RUN, sort=False))) for side in (live, simulated)]
    if missing := tables[0].keys() ^ tables[1].keys():
        of = ", ".join(map(str, sorted(missing)[0]))
        raise ResultsError(f"cannot be compared: only one of the worlds has the run {of}")
    if live.loops:
        return 0
    count = 0
    for run, mine in tables[0].items():
        sides = [
            table.sort_values(["created_s", "device", "sample"], kind="stable")
            for table in (mine, tables[1][run])
        ]
        of = ", ".join(map(str, run))
        if len(sides[0]) != len(sides[1]):
            raise ResultsError(
                f"cannot be compared: the run {of} has {len(sides[0])} requests live and "
                f"{len(sides[1])} simulated"
            )
        for name in names:
            differ = sides[0][name].to_numpy() != sides[1][name].to_numpy()
            if differ.any():
                row = int(np.argmax(differ))
                values = [side[name].iloc[row] for side in sides]
                raise ResultsError(
                    f"cannot be compared: {name} of request {sides[0]['request'].iloc[row]} of the "
                    f"run {of} is {values[0]} live and {values[1]} simulated"
                )
        count += len(mine)
    return count
