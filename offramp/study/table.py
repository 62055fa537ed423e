"""The two tables of a study, on disk after every training: what it leaves, and resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.errors import ResultsError
from models.files import whole_file
from offramp.study.cells import Cell
from offramp.study.definition import Configuration, Study

#: Rows of the table of accuracies, and of that of learning curves.
Outcome = tuple[list[dict[str, Any]], list[dict[str, Any]]]

#: Columns of numbers that each table must have.
_ACCURACY_NUMBERS = ("test_accuracy", "validation_accuracy", "curve_area")
_CURVE_NUMBERS = ("step", "validation_accuracy")

#: Columns that say where a row comes from; see :class:`~offramp.study.cells.Cell`.
_ORIGIN = ("asked", "computed_by", "made_from")

ACCURACY = "accuracy.csv"
CURVES = "curves.csv"


class Table:
    """The study's two tables, on disk after every training.

    A row that another host computed, or other versions, is as good as one of this host's, since
    they differ in rounding alone; but strategies are compared by seed, and rounding early in a
    training makes another network, as another seed does. So all strategies of a seed are of one
    kind of host: where some are missing, those of other kinds are trained again.
    """

    def __init__(self, study: Study, results: Path) -> None:
        self.axes = study.axes
        self.files = (results / ACCURACY, results / CURVES)
        texts = {
            axis: {str(it.values[axis]): it.values[axis] for it in study.configurations}
            for axis in study.axes
        }
        self._places = {
            (*self._values(configuration), strategy): (number, at)
            for number, configuration in enumerate(study.configurations)
            for at, strategy in enumerate(configuration.experiment.training.strategies)
        }
        read = (
            _read(self.files[0], texts, _ACCURACY_NUMBERS),
            _read(self.files[1], texts, _CURVE_NUMBERS),
        )
        self.accuracy, self.curves = map(self._in_order, read)
        self._was_in_order = self.accuracy.equals(read[0]) and self.curves.equals(read[1])
        self._note_present()

    def _in_order(self, table: pd.DataFrame) -> pd.DataFrame:
        """Seed by seed in the study's order, whichever training was the first to end."""
        if not len(table):
            return table
        end = (len(self._places), 0)
        names = ["seed", *self.axes, "strategy"]
        rows = [
            (seed, self._places.get(tuple(map(str, values)), end))
            for seed, *values in table[names].itertuples(index=False)
        ]
        order = sorted(range(len(rows)), key=rows.__getitem__)
        return table.iloc[order].reset_index(drop=True)

    def _rows(self, table: pd.DataFrame) -> list[tuple[str, ...]]:
        """Of every row: the values of the axes, what was asked and what computed it."""
        if not len(table):
            return []
        names = [*self.axes, "asked", "computed_by"]
        return [tuple(map(str, row)) for row in table[names].itertuples(index=False)]

    def _note_present(self) -> None:
        rows = set(self._rows(self.accuracy)) & set(self._rows(self.curves))
        self._computed_by = {row[:-1]: row[-1] for row in rows}

    def _values(self, configuration: Configuration) -> tuple[str, ...]:
        return tuple(str(configuration.values[axis]) for axis in self.axes)

    def _identity(self, cell: Cell) -> tuple[str, ...]:
        return (*self._values(cell.configuration), cell.asked)

    def _has(self, cell: Cell) -> bool:
        return self._identity(cell) in self._computed_by

    def has(self, training: list[Cell]) -> bool:
        """Whether every cell of a training has its rows."""
        return all(self._has(cell) for cell in training)

    def keep(self, trainings: dict[str, list[Cell]]) -> None:
        """Drop the rows that the study no longer asks for, and those that would not pair."""
        by_seed: dict[tuple[Any, ...], list[Cell]] = {}
        for training in trainings.values():
            for cell in training:
                by_seed.setdefault((*self._values(cell.configuration), cell.seed), []).append(cell)
        wanted = set()
        for group in by_seed.values():
            whole = self.has(group)
            for cell in filter(self._has, group):
                identity = self._identity(cell)
                if whole or self._computed_by[identity] == cell.computed_by:
                    wanted.add((*identity, self._computed_by[identity]))
        changed = not self._was_in_order
        for name in ("accuracy", "curves"):
            table = getattr(self, name)
            kept = [row in wanted for row in self._rows(table)]
            if not all(kept):
                setattr(self, name, table[kept])
                changed = True
        self._note_present()
        if changed:
            self._write()

    def copy_within(self, training: list[Cell]) -> None:
        """Give every cell the rows that another cell of the same training has."""
        if self.has(training):
            return
        about = [*self.axes, "strategy", "seed", *_ORIGIN]
        outcome = []
        for table in (self.accuracy, self.curves):
            if not len(table):
                return
            rows = table[table["made_from"] == training[0].made_from]
            outcome.append(rows.drop(columns=about).drop_duplicates().to_dict("records"))
        if all(outcome):
            self.add(training, (outcome[0], outcome[1]))

    def add(self, training: list[Cell], outcome: Outcome) -> None:
        """Add one training's rows, for all of its cells, and write the tables."""
        new = [cell for cell in training if not self._has(cell)]
        of_cells = [self._frame(new, rows) for rows in outcome]
        self.accuracy, self.curves = (
            self._in_order(pd.concat([table, rows]) if len(table) else rows)
            for table, rows in zip((self.accuracy, self.curves), of_cells, strict=True)
        )
        for cell in new:
            self._computed_by[self._identity(cell)] = cell.computed_by
        self._write()

    def _frame(self, cells: list[Cell], rows: list[dict[str, Any]]) -> pd.DataFrame:
        """The rows of a training, for each of some cells."""
        frame = pd.DataFrame(
            {
                "strategy": cell.strategy,
                "seed": cell.seed,
                **row,
                **{name: getattr(cell, name) for name in _ORIGIN},
            }
            for cell in cells
            for row in rows
        )
        for at, axis in enumerate(self.axes):
            # Objects: pandas would make 1.0 of 1 beside 0.5, and NaN of null beside a number.
            values = [cell.configuration.values[axis] for cell in cells for _ in rows]
            frame.insert(at, axis, pd.Series(values, dtype=object))
        return frame

    def _write(self) -> None:
        # Curves first: a training counts as done once it is in the table of accuracies.
        for file, table in reversed(
            list(zip(self.files, (self.accuracy, self.curves), strict=True))
        ):
            with whole_file(file) as partial:
                texts = {axis: table[axis].map(str) for axis in self.axes if len(table)}
                table.assign(**texts).to_csv(partial, index=False, float_format="%.6g")


def _read(file: Path, texts: dict[str, dict[str, Any]], numbers: Sequence[str]) -> pd.DataFrame:
    axes = tuple(texts)
    if not file.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(file, dtype=dict.fromkeys(axes, str), keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file}: not a readable table: {error}") from error
    missing = {*axes, "strategy", "seed", "exit", *_ORIGIN, *numbers} - set(table.columns)
    if missing:
        raise ResultsError(
            f"{file}: no table of this study: it has no column {', '.join(sorted(missing))}; "
            "name another folder with --output, or remove it"
        )
    for name in ("seed", "exit", *numbers):
        try:
            table[name] = pd.to_numeric(table[name])
        except (ValueError, TypeError) as error:
            raise ResultsError(f"{file}: not numbers in column {name}: {error}") from error
    for axis, values in texts.items():
        # Other values are of rows that are no longer asked for.
        table[axis] = pd.Series([values.get(text, text) for text in table[axis]], dtype=object)
    return table
