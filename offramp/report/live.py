"""What a report's pages say of a run that was live."""

from __future__ import annotations

from typing import Any

from offramp.report.markdown import number
from offramp.report.results import Results
from offramp.report.table import Table


def live_warnings(results: Results) -> list[str]:
    """What the scenario says and was not so, and what else a reader has to know."""
    return list(_of(results)["warnings"])


def live_table(results: Results) -> Table:
    """Where it ran, and how punctual the devices were."""
    live = _of(results)
    rows = [
        ["broker", live["broker"]],
        ["devices that joined", ", ".join(live["joined"]) or "none"],
        *(["host: " + key, str(value)] for key, value in live["host"].items() if value),
        *_processors(live),
        *([["host: processors kept awake", "yes"]] if live.get("awake") else []),
        *(
            [f"devices sent late by, {name} (ms)", number(lag_ms)]
            for name, lag_ms in live["lag_ms"].items()
        ),
    ]
    return Table(
        ["", ""],
        rows,
        "Host: that of the devices, and of what was started for them. Lateness: from the "
        "instant for which a request was drawn until it was sent, in the worst of the arms; it is "
        "part of every latency.",
    )


def _processors(live: dict[str, Any]) -> list[list[str]]:
    """Who had which, where nodes had some for themselves."""
    shares = live.get("processors")
    if shares is None:
        return []
    by_owner = {f"node {name}": own for name, own in shares["nodes"].items()}
    rest = "broker and devices" if live["broker"] == "embedded" else "devices"
    by_owner[rest] = shares["rest"]
    return [
        [f"host: processors of {owner}", ", ".join(str(number) for number in own)]
        for owner, own in by_owner.items()
    ]


def _of(results: Results) -> dict[str, Any]:
    live: dict[str, Any] = results.manifest["live"]
    return live
