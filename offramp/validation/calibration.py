"""What a simulator needs to know of a real broker, network and node, as samples that were measured.

A calibration is measured with requests of its own, at rates unlike those of the run that it is
for: one device that waits for its answer and then pauses, and some from which requests come at
random. Nothing in it comes from the run that is validated.

It becomes keys of the scenario: see :func:`calibrated`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.errors import ArtifactError
from models.files import whole_file, write_text
from offramp.scenario import LoadedScenario
from offramp.schema import (
    CoolingSection,
    DirectionSection,
    LinkSection,
    MqttSection,
    OverheadSection,
    Scenario,
)
from offramp.schema.distributions import EmpiricalSpec
from offramp.validation.mixtures import evenly
from sim.distributions import Floats
from sim.network.mqtt_packets import EXCHANGES
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling

FORMAT = "offramp-calibration-8"

DESCRIPTION = "calibration.json"
SAMPLES = "samples.csv"

#: What nothing is known of takes no time.
_NOTHING: Floats = np.zeros(1)

#: Samples of all of a calibration, and of each node.
_OF_ALL = ("work_s", "rtt_s", "lag_s", "up_s", "home_s")
_OF_NODE = ("receive_s", "begin_s", "begin_idle_s", "reply_s", "ingress_busy_s", "egress_busy_s")


@dataclass(frozen=True)
class NodeSamples:
    """Seconds that a node took for requests besides inference; see :mod:`sim.nodes.overheads`.

    Attributes:
        receive_s: of an idle node, from a message's arrival until a worker had it.
        begin_s: of a busy worker, for the inference of a request or of a batch, beyond what the
            profile says.
        begin_idle_s: of an idle one, likewise.
        reply_s: of a busy worker, between an answer and the next request.
        ingress_busy_s: by which a message was read later that came while the worker computed.
        egress_busy_s: by which an answer came later whose worker went on at once.
        disturb_s: by which inference is delayed by a message that arrives meanwhile: an estimate,
            which chance may take below 0; None: not known.
        autocorrelation: of the service times of a busy worker; None: there is none.
        cooling: what takes longer at a node that has had nothing to do; None: nothing. It is not in
            the samples.
    """

    receive_s: Floats
    begin_s: Floats
    begin_idle_s: Floats
    reply_s: Floats
    ingress_busy_s: Floats = field(default_factory=lambda: _NOTHING)
    egress_busy_s: Floats = field(default_factory=lambda: _NOTHING)
    disturb_s: float | None = None
    autocorrelation: Autocorrelation | None = None
    cooling: Cooling | None = None

    def by_name(self) -> dict[str, Floats]:
        """The samples alone."""
        return {name: getattr(self, name) for name in _OF_NODE}


@dataclass(frozen=True)
class Calibration:
    """Samples in seconds; ``lag_s`` and ``up_s`` are of the same requests, others of others.

    Attributes:
        work_s: of one and the same work, again and again, before nodes were started: see
            :func:`models.inference.quietness.time_work`.
        rtt_s: of the network between this host's devices and the broker: TCP handshakes.
        lag_s: from the creation of a request until its device had sent it.
        up_s: from there until it was at its node.
        home_s: from when a node had an answer until the device had it. Both ways as they would
            have been had the node never cooled down.
        broker_s: processor seconds of the broker for a message; NaN where nobody can know.
        nodes: by kind of node.
        qos: of the messages.
        about: where, when and how it was measured.
    """

    work_s: Floats
    rtt_s: Floats
    lag_s: Floats
    up_s: Floats
    home_s: Floats
    broker_s: float
    nodes: dict[str, NodeSamples]
    qos: int
    about: dict[str, Any]

    @property
    def link_s(self) -> float:
        """One way of the network, taken to be half of the round trip."""
        return float(np.median(self.rtt_s)) / 2

    @property
    def processing_s(self) -> float:
        """Of the broker for each message, as far as it is known."""
        return self.broker_s if np.isfinite(self.broker_s) else 0.0

    @property
    def trips(self) -> int:
        """One-way trips until a message is handed on, on each side of the broker."""
        return EXCHANGES[self.qos].trips_to_act  # type: ignore[index]

    def rest_s(self, ways_s: Floats) -> Floats:
        """Of ways between device and node, what is neither network nor the broker's processing.

        That is the clients at both ends, and waking the broker. Of each trip behind the broker.
        """
        rest = ways_s - self.trips * self.link_s - self.processing_s
        return np.asarray(np.maximum(rest, 0.0) / self.trips)

    def at_broker_s(self) -> float:
        """Mean of both ways to and from a warm node, without network and the device's lag."""
        rest = [self.rest_s(ways).mean() * self.trips for ways in (self.up_s, self.home_s)]
        return float(sum(rest)) + 2 * self.processing_s


def pooled(calibrations: Sequence[Calibration]) -> Calibration:
    """Calibrations of one session as one: the samples of all."""
    return reduce(_pooled, calibrations)


def _pooled(first: Calibration, again: Calibration) -> Calibration:
    """A further calibration with those before it."""
    before = first.about.get("calibrations", 1)
    share = 1 / (before + 1)

    def both(earlier: Floats, later: Floats) -> Floats:
        # As many of each: a slow machine does less in the same time, and counts no less for it.
        return np.concatenate([earlier, evenly(later, max(1, round(len(earlier) / before)))])

    nodes = {}
    for name, samples in first.nodes.items():
        later = again.nodes[name]
        seconds = {
            what: both(values, later.by_name()[what]) for what, values in samples.by_name().items()
        }
        known = [it.disturb_s for it in (samples, later) if it.disturb_s is not None]
        disturb_s = (1 - share) * known[0] + share * known[-1] if known else None
        alike = _alike(samples.autocorrelation, later.autocorrelation, share)
        cooling = _mean_cooling(samples.cooling, later.cooling, share)
        nodes[name] = NodeSamples(
            **seconds, disturb_s=disturb_s, autocorrelation=alike, cooling=cooling
        )
    ways = {name: both(getattr(first, name), getattr(again, name)) for name in _OF_ALL}
    broker_s = (1 - share) * first.broker_s + share * again.broker_s
    last = {"measured_last_at": again.about["measured_at"], "calibrations": before + 1}
    about = {**first.about, **last}
    return Calibration(**ways, broker_s=broker_s, nodes=nodes, qos=first.qos, about=about)


def _alike(
    first: Autocorrelation | None, again: Autocorrelation | None, share: float
) -> Autocorrelation | None:
    """The mean of two; where nothing was found, nothing was alike."""
    weights = ((1 - share, first), (share, again))
    found = [(weight, it) for weight, it in weights if it is not None]
    if not found:
        return None
    common = sum(weight * it.share for weight, it in found)
    time_s = sum(weight * it.share * it.time_s for weight, it in found) / common
    return Autocorrelation(common, time_s)


def _mean_cooling(first: Cooling | None, again: Cooling | None, share: float) -> Cooling | None:
    """The mean of two; where nothing was found, cooling down cost nothing."""
    weights = ((1 - share, first), (share, again))
    found = [(weight, it) for weight, it in weights if it is not None]
    if not found:
        return None

    def mean(which: str, weights: list[float]) -> float:
        values = [getattr(it, which) for _, it in found]
        return float(np.dot(weights, values))

    shares = [weight for weight, _ in found]
    # What cost little was hardly found.
    told = np.array([weight * it.begin_s for weight, it in found])
    told = (told / told.sum()).tolist()
    seconds = (mean(which, shares) for which in ("read_s", "begin_s", "answer_s"))
    return Cooling(mean("time_s", told), mean("kept", told), *seconds)


# --- what becomes of it in a scenario ------------------------------------------------------------


def calibrated(
    loaded: LoadedScenario, calibration: Calibration, folder: Path, links: str
) -> LoadedScenario:
    """A scenario as it is run live, with what was measured.

    Args:
        loaded: what is left of the scenario live; its links do nothing.
        folder: where :func:`write_calibration` wrote it.
        links: ``measured``: the network is as the calibration found it; ``scenario``: it is as
            the scenario says, and was not there when the calibration was made.

    Raises:
        ArtifactError: nothing was measured of one of the nodes, or at another QoS.
    """
    scenario = loaded.scenario
    mqtt = scenario.mqtt or MqttSection()
    if mqtt.qos != calibration.qos:
        raise ArtifactError(
            f"the calibration is for QoS {calibration.qos}, the scenario has mqtt.qos {mqtt.qos}"
        )
    missing = sorted(set(scenario.nodes) - set(calibration.nodes))
    if missing:
        raise ArtifactError(f"nothing was calibrated of node {', '.join(missing)}")

    def file(name: str) -> EmpiricalSpec:
        path = str((folder / f"{name}.txt").absolute())
        return EmpiricalSpec(distribution="empirical", file=path)

    if links == "measured":
        ms = 1e3 * calibration.link_s
        link = LinkSection(
            uplink=DirectionSection(latency_ms=ms), downlink=DirectionSection(latency_ms=ms)
        )
        every_link = dict.fromkeys(scenario.links, link)
    else:
        every_link = dict(scenario.links)
    backhaul = _unused("broker-and-clients", every_link)
    every_link[backhaul] = LinkSection(
        uplink=DirectionSection(latency_ms=file("up_ms")),
        downlink=DirectionSection(latency_ms=file("home_ms")),
    )
    nodes = {}
    for name, node in scenario.nodes.items():
        samples = calibration.nodes[name]
        overhead: dict[str, Any] = {
            _key(what): file(f"{name}-{_key(what)}")
            for what, seconds in samples.by_name().items()
            # Waiting for an inference costs the simulator time; only where it was found.
            if seconds.any() or not what.endswith("_busy_s")
        }
        section = OverheadSection(**overhead, **_scenario_keys(samples))
        nodes[name] = node.model_copy(update={"overhead": section})
    update: dict[str, Any] = {
        "links": every_link,
        "nodes": nodes,
        "mqtt": mqtt.model_copy(
            update={"broker_ms": 1e3 * calibration.processing_s, "backhaul": backhaul}
        ),
    }
    changed: Scenario = scenario.model_copy(update=update)
    return replace(loaded, scenario=changed)


def _scenario_keys(samples: NodeSamples) -> dict[str, Any]:
    keys = _keys(samples)
    if "disturb_ms" in keys:
        keys["disturb_ms"] = max(keys["disturb_ms"], 0.0)  # below nothing by chance
    if "cooling" in keys:
        keys["cooling"] = CoolingSection(**keys["cooling"])
    return keys


def _key(what: str) -> str:
    """The name in a scenario of what was measured in seconds."""
    return what.removesuffix("_s") + "_ms"


def _attribute(key: str) -> str:
    """The name here of a scenario's key."""
    return key.removesuffix("_ms") + "_s"


def _keys(samples: NodeSamples) -> dict[str, Any]:
    """What is no sample, under the name that it has in a scenario."""
    keys, alike = dict[str, Any](), samples.autocorrelation
    if samples.disturb_s is not None:
        keys["disturb_ms"] = 1e3 * samples.disturb_s
    if alike is not None:
        keys |= {"autocorrelation": alike.share, "autocorrelation_ms": 1e3 * alike.time_s}
    if samples.cooling is not None:
        it = asdict(samples.cooling)
        keys["cooling"] = {"kept": it.pop("kept"), **{_key(name): 1e3 * it[name] for name in it}}
    return keys


def _unused(name: str, taken: dict[str, Any]) -> str:
    while name in taken:
        name += "-"
    return name


def backhaul_of(scenario: Scenario) -> str:
    """The link of a calibrated scenario that stands for broker and clients."""
    assert scenario.mqtt is not None
    assert scenario.mqtt.backhaul is not None
    return scenario.mqtt.backhaul


# --- files ---------------------------------------------------------------------------------------


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write samples and description, and the files of values that a scenario names.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / SAMPLES) as partial:
        _table(calibration).to_csv(partial, index=False)
    up_s = calibration.rest_s(calibration.up_s) + calibration.lag_s / calibration.trips
    _write_ms(folder / "up_ms.txt", up_s)
    _write_ms(folder / "home_ms.txt", calibration.rest_s(calibration.home_s))
    for name, samples in calibration.nodes.items():
        for what, seconds in samples.by_name().items():
            _write_ms(folder / f"{name}-{_key(what)}.txt", seconds)
    description = {
        "format": FORMAT,
        "qos": calibration.qos,
        "broker_ms": None if np.isnan(calibration.broker_s) else 1e3 * calibration.broker_s,
        "nodes": {name: _keys(samples) for name, samples in calibration.nodes.items()},
        "about": calibration.about,
    }
    write_text(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")


def _write_ms(path: Path, seconds: Floats) -> None:
    write_text(path, "".join(f"{1e3 * it:.6f}\n" for it in seconds.tolist()))


def _table(calibration: Calibration) -> pd.DataFrame:
    parts = [("", name, getattr(calibration, name)) for name in _OF_ALL]
    parts += [
        (node, what, seconds)
        for node, samples in calibration.nodes.items()
        for what, seconds in samples.by_name().items()
    ]
    return pd.concat(
        [
            pd.DataFrame({"node": node, "what": what.removesuffix("_s"), "seconds": seconds})
            for node, what, seconds in parts
        ]
    )


def _node_samples(
    groups: dict[tuple[str, str], Floats], node: str, keys: dict[str, Any]
) -> NodeSamples:
    seconds = {what: groups[node, what.removesuffix("_s")] for what in _OF_NODE}
    alike = None
    if "autocorrelation" in keys:
        share, time_ms = float(keys["autocorrelation"]), float(keys["autocorrelation_ms"])
        alike = Autocorrelation(share, 1e-3 * time_ms)
    disturb_s = 1e-3 * float(keys["disturb_ms"]) if "disturb_ms" in keys else None
    cooling = None
    if "cooling" in keys:
        ms = dict(keys["cooling"])
        kept = float(ms.pop("kept"))
        cooling = Cooling(**{_attribute(key): 1e-3 * ms[key] for key in ms}, kept=kept)
    return NodeSamples(**seconds, disturb_s=disturb_s, autocorrelation=alike, cooling=cooling)


def read_calibration(folder: Path) -> Calibration:
    """Read what :func:`write_calibration` wrote.

    Raises:
        ArtifactError: absent, damaged, or of another version.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description.get("format") != FORMAT:
            raise ArtifactError(
                f"{folder / DESCRIPTION}: not a calibration of this version (expected {FORMAT!r}, "
                f"found {description.get('format')!r})"
            )
        table = pd.read_csv(folder / SAMPLES, keep_default_na=False)
        groups = {
            (str(node), str(what)): rows["seconds"].to_numpy(dtype=np.float64)
            for (node, what), rows in table.groupby(["node", "what"], sort=False)
        }
        if not all(np.isfinite(it).all() and (it >= 0).all() for it in groups.values()):
            raise ArtifactError(f"{folder / SAMPLES}: a sample is negative or not finite")
        names = dict.fromkeys(node for node, _ in groups if node)
        broker_ms = description["broker_ms"]
        return Calibration(
            **{name: groups["", name.removesuffix("_s")] for name in _OF_ALL},
            broker_s=np.nan if broker_ms is None else float(broker_ms) * 1e-3,
            nodes={node: _node_samples(groups, node, description["nodes"][node]) for node in names},
            qos=int(description["qos"]),
            about=description["about"],
        )
    except OSError as error:
        raise ArtifactError(f"no calibration in {folder}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder}: the calibration is damaged: {error}") from error
