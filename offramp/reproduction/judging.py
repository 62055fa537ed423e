"""From comparisons to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from offramp.reproduction.contents import IDENTICAL as SAME_CONTENT
from offramp.reproduction.contents import FileComparison
from offramp.reproduction.statistics import COMPATIBLE as WITHIN_CHANCE
from offramp.reproduction.statistics import MOVED, UNTESTED
from offramp.stages.layout import RECORDS

IDENTICAL = "IDENTICAL"
COMPATIBLE = "COMPATIBLE"
DIFFERENT = "DIFFERENT"
UNDECIDED = "UNDECIDED"

#: Verdicts that confirm a run.
CONFIRMING = (IDENTICAL, COMPATIBLE)

#: What the records of a simulation are known to depend on, besides their inputs.
_DEPENDS_ON = ("numpy", "scipy", "simpy", "datasketches")


@dataclass(frozen=True)
class Verdict:
    """What came of a reproduction, in a word and a sentence."""

    word: str
    sentence: str

    @property
    def confirms(self) -> bool:
        """Whether the run was reproduced."""
        return self.word in CONFIRMING

    def __str__(self) -> str:
        return f"{self.word}: {self.sentence}"


def judge(
    files: Sequence[FileComparison], figures: pd.DataFrame | None, apart: str = ""
) -> Verdict:
    """The verdict on a reproduction.

    Args:
        files: what became of records and tables.
        figures: of :func:`offramp.reproduction.statistics.with_verdicts`; None: the run's tables
            are not there to compare with.
        apart: what one of both has and the other has not, in words.
    """
    if all(file.state == SAME_CONTENT for file in files):
        what = "all records and tables" if _has_records(files) else "all tables"
        return Verdict(IDENTICAL, f"{what} hold the same, value by value")
    parted = ", ".join(file.name for file in files if file.state != SAME_CONTENT)
    if apart:
        return Verdict(DIFFERENT, apart)
    if figures is None:
        return Verdict(
            UNDECIDED,
            f"not identical ({parted}), and the tables of the run are not there to say by how much",
        )
    counts = figures["verdict"].value_counts()
    moved, untested = int(counts.get(MOVED, 0)), int(counts.get(UNTESTED, 0))
    tested = moved + int(counts.get(WITHIN_CHANCE, 0))
    if moved:
        return Verdict(
            DIFFERENT,
            f"{moved} of {len(figures)} figures moved by more than chance ({_largest(figures)})",
        )
    if untested and not tested:
        return Verdict(
            UNDECIDED,
            f"not identical ({parted}), and {untested} of {len(figures)} figures differ with too "
            "few repetitions to tell whether by more than chance",
        )
    same = len(figures) - tested - untested
    beside = f", {untested} not testable" if untested else ""
    return Verdict(
        COMPATIBLE,
        f"not identical ({parted}), but none of {len(figures)} figures moved by more than chance "
        f"({same} the same, {tested} within it{beside}){_hidden(figures)}",
    )


def _hidden(figures: pd.DataFrame) -> str:
    """How large a difference in AUD the intervals leave room for."""
    of_aud = figures[figures["metric"] == "aud"]
    room = (of_aud["difference"].abs() + of_aud["half_width"]).max()
    return f"; AUD may differ by up to {100 * room:.1f} points" if room > 0 else ""


def _has_records(files: Sequence[FileComparison]) -> bool:
    return any(file.name == RECORDS for file in files)


def _largest(figures: pd.DataFrame) -> str:
    """The figure that is least likely to have moved by chance."""
    moved = figures[figures["verdict"] == MOVED]
    row = moved.loc[moved["p_holm"].idxmin()]
    arm = ", ".join(str(row[name]) for name in ("point", "strategy", "policy") if name in row)
    return f"first of them {row['metric']} of {arm}: {row['before']:.4g} → {row['after']:.4g}"


@dataclass(frozen=True)
class Change:
    """A fact about software or machine that is not what it was."""

    what: str
    before: Any
    after: Any


def environment_changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """What differs of the software, the machine and how networks are trained on it.

    Args:
        before, after: manifests.
    """
    found = list[Change]()
    for part, name in (
        ("versions", "{}"),
        ("stages", "stage {}"),
        ("host", "host: {}"),
        ("training", "training here: {}"),
    ):
        old, new = before.get(part, {}), after.get(part, {})
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        found += [Change(name.format(key), old.get(key), new.get(key)) for key in changed]
    return found


def unexplained(changes: Sequence[Change], networks_anew: bool, files_changed: bool) -> bool:
    """Whether nothing is known to have changed of what records depend on."""
    known = {*_DEPENDS_ON, "offramp", "stage simulation", "host: machine", "host: processor"}
    return not (networks_anew or files_changed or any(it.what in known for it in changes))
