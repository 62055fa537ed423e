"""Tables of the world on a report's pages; None where there is nothing to say."""

from __future__ import annotations

import pandas as pd

from offramp.report.markdown import milliseconds, number, percent
from offramp.report.results import Results, repetitions_of
from offramp.report.table import Table
from offramp.stages.layout import DEVICES, GROUPS, NODE_TELEMETRY, REQUEST_TELEMETRY, TRACES
from offramp.words import counted, enumerated


def oracle_lines(results: Results, summary: pd.DataFrame) -> str:
    """How close each policy comes to the oracle."""
    if "oracle_share" not in summary:
        return ""
    lines = [
        f"- Under `{row.policy}`, **{row.strategy}** reaches "
        f"{percent(row.oracle_share, row.oracle_share_half_width)} of the AUD of "
        f"the greedy oracle (`{results.oracle}`)."
        for row in summary.itertuples()
        if row.policy != results.oracle
    ]
    text = "\n".join(lines) + (
        "\n\nThe greedy oracle knows which exits will be right and how long each will take, and "
        "does the best for each request by itself: it is no strict bound. Intervals: 95 %, over "
        f"{counted(results.replications, 'replication')}, each with the same requests."
    )
    if (summary["oracle_share"] > 1).any():
        text += (
            " A share above 100 % is no error: with several tiers, with batches or under load, what"
            " is best for one request can cost later ones more."
        )
    return text


def link_table(results: Results, links: pd.DataFrame) -> Table | None:
    """The load of links that can only carry so much: a column for each policy.

    Strategies with which the same policies have the same verdicts are in one row.

    Args:
        links: of :func:`offramp.report.verdicts.link_verdicts`.
    """
    if not len(links):
        return None
    policies = list(links["policy"].unique())
    rows = []
    for (link, direction), of_link in links.groupby(["link", "direction"], sort=False):
        verdicts = of_link.groupby("strategy", sort=False)["verdict"].agg(tuple)
        for verdict, together in verdicts.groupby(verdicts, sort=False):
            shown = of_link[of_link["strategy"].isin(together.index)]
            loads = shown.groupby("policy")["load"].mean()
            rows.append(
                [
                    link,
                    direction,
                    enumerated(list(together.index)),
                    f"{of_link['shared_by'].iloc[0]:,}",
                    *(number(loads.get(policy, float("nan"))) for policy in policies),
                    "OVERLOADED" if "OVERLOADED" in verdict else "STABLE",
                ]
            )
    header = ["link", "direction", "strategies", "devices on it"]
    added = "with headers and acknowledgements and " if results.scenario.get("mqtt") else ""
    return Table(
        [*header, *(f"load, {policy}" for policy in policies), "verdict"],
        rows,
        f"Load: what was sent over the busiest link of its kind in the window, {added}without "
        "retransmissions, over what it can carry: means over the runs of a row; each strategy is "
        "judged by itself.",
        names=3,
    )


def group_table(results: Results) -> Table | None:
    """What became of the requests of each group, where there are several."""
    groups = results.others.get(GROUPS)
    if groups is None or groups["group"].nunique() < 2:
        return None
    counts = ["offered", "on_time", "late", "dropped", "lost"]
    groups = groups.assign(
        hits=groups["aud"].fillna(0) * groups["offered"],
        latency_s=groups["latency_mean_s"].fillna(0) * (groups["on_time"] + groups["late"]),
    )
    by = ["policy", "strategy", "group"]
    totals = groups.groupby(by, sort=False)[[*counts, "hits", "latency_s"]].sum().reset_index()
    rows = [
        [
            row.policy,
            row.strategy,
            row.group,
            f"{row.offered:,}",
            percent(row.hits / row.offered if row.offered else float("nan")),
            *(
                percent(getattr(row, name) / row.offered if row.offered else float("nan"))
                for name in counts[1:]
            ),
            milliseconds(
                row.latency_s / (row.on_time + row.late) if row.on_time + row.late else float("nan")
            ),
        ]
        for row in totals.itertuples()
    ]
    header = ["policy", "strategy", "group", "requests", "AUD", *counts[1:], "mean latency (ms)"]
    header = [name.replace("_", " ") for name in header]
    return Table(header, rows, "Over all training seeds and replications together.", names=3)


def energy_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """What requests and correct answers cost."""
    columns = {
        "device_j_per_request": "devices, mJ per request",
        "j_per_request": "all, mJ per request",
        "j_per_correct_on_time": "all, mJ per correct answer in time",
    }
    shown = {column: title for column, title in columns.items() if column in summary}
    if not shown:
        return None
    rows = [
        [
            row.policy,
            row.strategy,
            *(
                number(1e3 * getattr(row, column), 1e3 * getattr(row, f"{column}_half_width"))
                for column in shown
            ),
        ]
        for row in summary.itertuples()
    ]
    sources = {
        part["energy"]["source"]
        for section in ("nodes", "devices")
        for part in results.scenario[section].values()
        if part.get("energy")
    }
    return Table(
        ["policy", "strategy", *shown.values()],
        rows,
        "Of devices and nodes with power states, over the measured window, idle power "
        f"included: 95 % intervals over {repetitions_of(results, 'j_per_request')}. "
        "Radio: bytes on the wire over bandwidth, without retransmissions. "
        f"Sources: {'; '.join(sorted(sources))}.",
        names=2,
    )


def fault_table(faults: pd.DataFrame) -> Table | None:
    """How often something failed."""
    if not len(faults):
        return None
    rows = [
        [
            row.kind.replace("_", " "),
            row.target or "-",
            f"{row.targets:,}",
            number(row.count),
            number(row.down_s),
        ]
        for row in faults.itertuples()
    ]
    header = ["fault", "of", "how many there are", "faults", "seconds in all"]
    return Table(
        header,
        rows,
        "Means of a replication, sums over all that bear the name; every arm meets the same.",
        names=2,
    )


def further_files(results: Results) -> list[str]:
    """Further files of the results, as code."""
    names = [GROUPS, DEVICES, NODE_TELEMETRY, REQUEST_TELEMETRY]
    found = [f"`{name}`" for name in names if (results.folder / name).exists()]
    if next(results.folder.glob(TRACES), None) is not None:
        found.append(f"`{TRACES}` (open at <https://ui.perfetto.dev>)")
    return found
