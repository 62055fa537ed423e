"""What the report page says of a run that was live."""

from __future__ import annotations

from typing import Any

from offramp.report.markdown import number, table
from offramp.report.results import Results


def live_warnings(results: Results) -> str:
    """What the scenario says and was not so, and what else a reader has to know."""
    live = _of(results)
    return "**Live**, not simulated:\n\n" + "\n".join(
        f"- {warning}" for warning in live["warnings"] or ["nothing of the scenario was left out"]
    )


def live_table(results: Results) -> str:
    """Where it ran, and how punctual the devices were."""
    live = _of(results)
    rows = [
        ["broker", live["broker"]],
        ["devices that joined", ", ".join(live["joined"]) or "none"],
        *(["host: " + key, str(value)] for key, value in live["host"].items() if value),
        *(
            [f"devices sent late by, {name} (ms)", number(lag_ms)]
            for name, lag_ms in live["lag_ms"].items()
        ),
    ]
    return table(["", ""], rows) + (
        "\n\nHost: that of the devices, and of what was started for them. Lateness: from the "
        "instant for which a request was drawn until it was sent, in the worst of the arms; it is "
        "part of every latency."
    )


def _of(results: Results) -> dict[str, Any]:
    live: dict[str, Any] = results.manifest["live"]
    return live
