"""What a reader has to know before relying on a result: each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from models.inference.quietness import noise_of
from offramp import __version__
from offramp.report.live import live_warnings
from offramp.report.results import Results
from offramp.report.verdicts import alike, node_verdicts, not_judged
from offramp.words import capitalised

#: Facts by which two hosts are told apart; see :func:`models.host.host_facts`.
_FACTS = ("processor", "board", "machine", "system", "cores")


def notices(results: Results) -> list[str]:
    """All but the reasons why a result is INVALID, which are said elsewhere."""
    return [
        *_version(results.manifest),
        *_intervals(results),
        *not_judged(results),
        *_nodes(results),
        *_profiles(results),
        *_noise(results),
        *_doubtful(results.manifest),
        *_live(results),
        *_records(results),
    ]


def _version(manifest: dict[str, Any]) -> Iterator[str]:
    made_by = manifest.get("versions", {}).get("offramp")
    if made_by is None:
        yield "The manifest does not say which Offramp made these results, nor with what."
    elif made_by != __version__:
        yield f"Offramp {made_by} made these results, and Offramp {__version__} this report."


def _intervals(results: Results) -> Iterator[str]:
    # Where there is one, and it makes the result INVALID, the verdict says so.
    if 2 <= results.replications < 5:
        yield (
            f"{results.replications} replications: intervals over them are wide, and rest on few "
            "numbers."
        )
    if len(results.strategies) > 1 and 2 <= results.training_seeds < 5:
        yield (
            f"{results.training_seeds} training seeds: intervals over them are wide, and rest on "
            "few numbers."
        )
    if results.training_seeds < 2 and len(results.strategies) < 2:
        yield "One training seed: intervals are of these networks, and say nothing of others."


def _nodes(results: Results) -> Iterator[str]:
    for row in alike(node_verdicts(results), ["policy", "node"]).itertuples():
        under = f"under `{row.policy}` with {row.strategies}"
        if row.verdict == "BACKLOGGED":
            yield (
                f"Node `{row.node}` is BACKLOGGED {under}: it kept up, but its queue took longer "
                "than a deadline to empty after the window."
            )
        elif row.verdict == "SATURATED":
            yield (
                f"Node `{row.node}` is SATURATED {under}: it is busy nearly all the time, and its "
                "queue cannot grow further."
            )


def _profiles(results: Results) -> Iterator[str]:
    """Latencies that were not measured on the host that ran the simulation."""
    hosts = results.manifest.get("profiles", {})
    here = results.manifest.get("host")
    for place, name in _named_profiles(results.scenario):
        host = hosts.get(f"{place}.profile")
        if host and here and _is_same(host, here):
            continue
        measured = f"measured on {_host(host)}" if host else "measured on another host"
        yield (
            f"Latencies of `{place}` come from the profile `{name}`, {measured}: it was brought "
            "along."
        )
    if results.profile is None or results.is_live or not here:
        return
    there = results.profile.about.get("host", {})
    if not _is_same(there, here):
        yield (
            f"A profile from another host: latencies were measured on {_host(there)}, and the "
            f"simulation ran on {_host(here)}."
        )


def _is_same(host: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two hosts cannot be told apart."""
    return all(host.get(fact) == other.get(fact) for fact in _FACTS)


def _noise(results: Results) -> Iterator[str]:
    """A profile whose latencies are those of other programs, too."""
    noise = noise_of(results.profile) if results.profile else None
    if noise:
        yield f"{capitalised(noise)}. `offramp profile --again` measures it anew."


def _named_profiles(scenario: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the scenario names a profile of its own, and which."""
    for name, node in scenario.get("nodes", {}).items():
        if node.get("profile"):
            yield f"nodes.{name}", node["profile"]
    for name, group in scenario.get("devices", {}).items():
        if (group.get("compute") or {}).get("profile"):
            yield f"devices.{name}.compute", group["compute"]["profile"]


def _doubtful(manifest: dict[str, Any]) -> Iterator[str]:
    """What the scenario says, but its author may not have meant."""
    for warning in manifest.get("warnings", []):
        key, _, text = warning.partition(": ")
        yield f"`{key}`: {text}"


def _host(facts: dict[str, Any]) -> str:
    known = [str(facts[fact]) for fact in ("board", "processor") if facts.get(fact)]
    cores = facts.get("cores")
    return ", ".join([*known, *([f"{cores} cores"] if cores else [])]) or "an unknown host"


def _live(results: Results) -> Iterator[str]:
    if results.is_live:
        yield from live_warnings(results) or ["Live: nothing of the scenario was left out."]


def _records(results: Results) -> Iterator[str]:
    if not results.has_records:
        yield (
            "No record per request was kept (`simulation.records: summary`): there is no figure of "
            "the distribution of latencies."
        )
