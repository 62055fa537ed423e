"""What of a world changes inside the measured window at times that are planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def planned_changes(scenario: dict[str, Any]) -> list[str]:
    """What a resolved scenario lets change at given times inside the window, a clause each.

    Latency follows it, the same way in every replication: a first quarter of the window that is
    unlike the rest then says nothing of the warm-up. What happens at random times, and a fault
    that is over before the window opens, do not count.
    """
    return [*_varying_requests(scenario), *_planned_faults(scenario), *_varying_links(scenario)]


def _varying_requests(scenario: dict[str, Any]) -> Iterator[str]:
    for name, group in scenario["devices"].items():
        arrivals = group["arrivals"]
        if arrivals["process"] == "trace":
            yield f"requests of `{name}` come at the times of a trace"
        elif arrivals["process"] == "diurnal" and len({hz for _, hz in arrivals["curve"]}) > 1:
            yield f"requests of `{name}` follow a curve"


def _planned_faults(scenario: dict[str, Any]) -> Iterator[str]:
    opens_s = scenario["simulation"]["warm_up_s"]
    ends_s = opens_s + scenario["simulation"]["duration_s"]
    for fault in scenario.get("faults") or ():
        at_s = fault.get("at_s")
        if at_s is not None and at_s < ends_s and at_s + fault["for_s"] > opens_s:
            target = next((fault[key] for key in ("node", "link", "devices") if key in fault), "")
            of = f" of `{target}`" if target else ""
            yield f"a {fault['kind'].replace('_', ' ')}{of} is planned for {at_s:g} s"


def _varying_links(scenario: dict[str, Any]) -> Iterator[str]:
    used = {group["link"] for group in scenario["devices"].values()}
    used |= {
        node["next_tier"]["link"]
        for node in scenario.get("nodes", {}).values()
        if node.get("next_tier")
    }
    used.add((scenario.get("mqtt") or {}).get("backhaul"))
    for name, link in scenario.get("links", {}).items():
        traced = any(link[way].get("bandwidth_trace") for way in ("uplink", "downlink"))
        if name in used and traced:
            yield f"the bandwidth of `{name}` follows a trace"
