"""A study: one experiment, and the settings that are crossed to make its configurations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from models.errors import ScenarioError, did_you_mean
from offramp.checks import check_experiment
from offramp.experiment import Experiment
from offramp.schema import DataSection, ModelSection, Name, Section, TrainingSection
from offramp.study.statistics import GAIN_COLUMNS
from offramp.yaml_lines import Location
from offramp.yaml_source import Source, apply_override, describe_all, read_file

#: Columns of a study's tables, and of the data behind its figures, that no axis may be called.
COLUMNS = (
    "strategy",
    "seed",
    "exit",
    "test_accuracy",
    "validation_accuracy",
    "curve_area",
    "step",
    "asked",
    "computed_by",
    "made_from",
    "mean",
    "low",
    "high",
)


class StudySection(Section):
    """A whole study."""

    name: Name = Field(description="results go to results/NAME")
    description: str = Field("", description="what is asked, shown on the page")
    data: DataSection
    model: ModelSection
    training: TrainingSection
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]] = Field(
        {},
        description="what is crossed: a key and its values, or a name and for each label the keys "
        "that it sets",
    )
    measures: Annotated[
        list[Literal["test_accuracy", "validation_accuracy", "curve_area"]], Field(min_length=1)
    ] = Field(
        ["test_accuracy", "curve_area"],
        description="what strategies are compared by; a study that chooses among settings "
        "compares validation_accuracy",
    )
    notes: list[str] = Field([], description="what a reader must know, a paragraph each")


@dataclass(frozen=True)
class Configuration:
    """One point of the grid.

    Attributes:
        values: its value on each axis.
        experiment: what is trained there.
    """

    values: dict[str, Any]
    experiment: Experiment


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        axes: names of the axes, which are columns of the table.
        source: the path or name that was given.
        overrides: as they were given.
    """

    name: str
    description: str
    notes: tuple[str, ...]
    measures: tuple[str, ...]
    axes: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    source: str
    overrides: tuple[str, ...]
    written: Source = field(compare=False, repr=False)

    def error_at(
        self, configuration: Configuration, location: Location, text: str
    ) -> ScenarioError:
        """An error about a key of a configuration, with the place where it was written."""
        return ScenarioError(self.written.message(location, text) + _where(configuration.values))


def shipped_studies() -> dict[str, Path]:
    """Studies that come with Offramp, by name."""
    folder = Path(str(resources.files("scenarios"))) / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(name_or_path: str, overrides: Sequence[str] = ()) -> Study:
    """Read, override and check a study.

    Args:
        name_or_path: a YAML file, or the name of a study that ships.
        overrides: ``key.path=value`` each, the value in YAML; an axis that sets the same key wins.

    Raises:
        ScenarioError: anything is wrong with it; the message lists every problem.
    """
    shipped = shipped_studies()
    given = Path(name_or_path)
    if not given.is_file() and name_or_path not in shipped:
        raise ScenarioError(
            f"{name_or_path}: no such file, and no study of that name ships with Offramp"
            f"{did_you_mean(name_or_path, shipped)} (they are: {', '.join(shipped)})"
        )
    path = given if given.is_file() else shipped[name_or_path]
    folder = path.parent if given.is_file() else Path.cwd()
    data, lines = read_file(path)
    source = Source(str(path), lines, {})
    for override in overrides:
        apply_override(data, override, source)
    section = _validated(data, source, "")
    axes = tuple(_axis_name(key, values) for key, values in section.axes.items())
    problems = list(_problems(section, axes))
    if problems:
        raise ScenarioError("\n".join(source.message(place, text) for place, text in problems))
    configurations = []
    seen: dict[str, str] = {}
    for values, settings in _grid(section.axes):
        where = _where(values)
        point = _validated(_with(data, settings, source), source, where)
        experiment = Experiment(point.data, point.model, point.training, folder)
        for location, text in (
            *_training_problems(point.training),
            *check_experiment(point.data, point.model, point.training, folder),
        ):
            seen.setdefault(source.message(location, text), where)
        configurations.append(Configuration(values, experiment))
    if seen:
        raise ScenarioError("\n".join(text + where for text, where in seen.items()))
    return Study(
        section.name,
        section.description,
        tuple(section.notes),
        tuple(section.measures),
        axes,
        tuple(configurations),
        name_or_path,
        tuple(overrides),
        source,
    )


def _validated(data: dict[str, Any], source: Source, where: str) -> StudySection:
    try:
        return StudySection.model_validate(data)
    except ValidationError as error:
        messages = describe_all(source, data, error.errors())
        raise ScenarioError("\n".join(text + where for text in messages)) from None


def _where(values: dict[str, Any]) -> str:
    """The point of the grid, after a message about it."""
    point = ", ".join(f"{axis}={value}" for axis, value in values.items())
    return f" (at {point})" if point else ""


def _axis_name(key: str, values: Any) -> str:
    """The last part of a key, or the whole name of an axis of labels."""
    return key.rpartition(".")[2] if isinstance(values, list) else key


def _problems(section: StudySection, axes: Sequence[str]) -> Iterator[tuple[Location, str]]:
    yield from _training_problems(section.training)
    yield from ((("axes",), text) for text in _overlapping(section.axes))
    for index, (key, values) in enumerate(section.axes.items()):
        place: Location = ("axes", key)
        texts = [str(value) for value in values]
        for text in texts:
            if texts.count(text) > 1:
                yield place, f"{text!r} is named twice"
                break
        if axes[index] in (*COLUMNS, *GAIN_COLUMNS):
            yield place, f"{axes[index]!r} is a column of the table already"
        if axes[index] in axes[:index]:
            yield place, f"two axes are called {axes[index]!r}"
        if not values:
            yield place, "an axis needs values"
        if isinstance(values, list):
            if not key.startswith(("data.", "model.", "training.")):
                yield (
                    place,
                    "a key of data, model or training is expected; or labels, each with keys",
                )
            if any(isinstance(value, dict | list) for value in values):
                yield place, "values that are no numbers or texts need labels"
        else:
            for label, settings in values.items():
                for setting in settings:
                    if not setting.startswith(("data.", "model.", "training.")):
                        yield (*place, label), f"{setting!r} is no key of data, model or training"


def _overlapping(axes: dict[str, list[Any] | dict[str, dict[str, Any]]]) -> Iterator[str]:
    """Axes that set the same key, or a key and one within it: the later would win unseen."""
    of_axes = [
        (
            axis,
            {axis} if isinstance(values, list) else {key for it in values.values() for key in it},
        )
        for axis, values in axes.items()
    ]
    for (axis, mine), (other, theirs) in combinations(of_axes, 2):
        for key, again in product(sorted(mine), sorted(theirs)):
            if f"{key}.".startswith(f"{again}.") or f"{again}.".startswith(f"{key}."):
                yield f"{axis} sets {key}, and {other} sets {again}: one would undo the other"


def _training_problems(training: TrainingSection) -> Iterator[tuple[Location, str]]:
    if "standard" not in training.strategies or len(training.strategies) < 2:
        yield (
            ("training", "strategies"),
            "a study compares strategies with 'standard': name it and another",
        )
    if training.checkpoints:
        yield ("training", "checkpoints"), "a study trains its networks itself"


def _grid(
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]],
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Values on every axis, and the keys that they set, for every point of the grid."""
    choices = [
        [(_axis_name(key, values), value, {key: value}) for value in values]
        if isinstance(values, list)
        else [(key, label, settings) for label, settings in values.items()]
        for key, values in axes.items()
    ]
    for point in product(*choices):
        values = {axis: value for axis, value, _ in point}
        yield values, {key: value for _, _, settings in point for key, value in settings.items()}


def _with(data: dict[str, Any], settings: dict[str, Any], source: Source) -> dict[str, Any]:
    """``data`` with ``settings``, a value by dotted key."""
    changed = copy.deepcopy(data)
    for key, value in settings.items():
        *above, last = key.split(".")
        node = changed
        for part in above:
            inner = node.get(part)
            if inner is None:
                inner = node[part] = {}
            if not isinstance(inner, dict):
                raise ScenarioError(
                    source.message(("axes",), f"{key}: {part!r} holds no keys: {inner!r}")
                )
            node = inner
        node[last] = copy.deepcopy(value)
    return changed
