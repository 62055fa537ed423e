"""Loading a scenario: YAML and overrides in, a checked :class:`~offramp.schema.Scenario` out.

Everything wrong with it is reported at once, each with file, line, key, what was given and what
is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.errors import ScenarioError, did_you_mean
from offramp.checks import check_across_keys
from offramp.experiment import Experiment
from offramp.schema import Scenario
from offramp.yaml_lines import Location
from offramp.yaml_source import Source, apply_override, describe_all, read_file


@dataclass(frozen=True)
class LoadedScenario:
    """A checked scenario and where it came from.

    Attributes:
        scenario: the resolved scenario.
        folder: files named in the scenario are relative to this folder: its own, or for a
            scenario that ships, the working folder.
        source: the path or name that was given.
        overrides: as they were given.
    """

    scenario: Scenario
    folder: Path
    source: str
    overrides: tuple[str, ...] = ()
    written: Source | None = field(default=None, compare=False, repr=False)

    @cached_property
    def experiment(self) -> Experiment:
        """The part that trains networks."""
        scenario = self.scenario
        return Experiment(scenario.data, scenario.model, scenario.training, self.folder)

    @cached_property
    def warnings(self) -> list[str]:
        """What is doubtful, each with the place where it was written; nothing was refused."""
        from offramp.checks.warnings import warnings_of

        found = warnings_of(self.scenario, self.folder)
        return [
            self.written.message(place, text) if self.written else text for place, text in found
        ]

    def error_at(self, location: Location, text: str) -> ScenarioError:
        """An error about a key, with the place where it was written."""
        return ScenarioError(self.written.message(location, text) if self.written else text)


def shipped_scenarios() -> dict[str, Path]:
    """Scenarios that come with Offramp, by name."""
    folder = Path(str(resources.files("scenarios")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_scenario(name_or_path: str) -> Path:
    """The file of a scenario given by path or by the name of one that ships.

    Raises:
        ScenarioError: neither is there.
    """
    if _is_file(name_or_path):
        return Path(name_or_path)
    shipped = shipped_scenarios()
    if name_or_path in shipped:
        return shipped[name_or_path]
    raise ScenarioError(
        f"{name_or_path}: no such file, and no scenario of that name ships with Offramp"
        f"{did_you_mean(name_or_path, shipped)} (they are: {', '.join(shipped)})"
    )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False  # too long for a file, or with a null byte


def folder_of(name_or_path: str) -> Path:
    """The folder that files of a scenario are relative to."""
    # A scenario that ships is named, not found in a folder: its files are the user's.
    return Path(name_or_path).parent if _is_file(name_or_path) else Path.cwd()


def load_scenario(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Read, override and check a scenario.

    Args:
        name_or_path: a YAML file, or the name of a scenario that ships.
        overrides: ``key.path=value`` each, the value in YAML.

    Raises:
        ScenarioError: anything is wrong with it; the message lists every problem.
    """
    path = find_scenario(name_or_path)
    folder = folder_of(name_or_path)
    data, lines = read_file(path)
    source = Source(str(path), lines, {})
    for override in overrides:
        apply_override(data, override, source)
    return checked_scenario(data, folder, name_or_path, overrides, source)


def checked_scenario(
    data: dict[str, Any], folder: Path, name: str, overrides: Sequence[str], written: Source
) -> LoadedScenario:
    """Check the data of a scenario.

    Args:
        folder: files that it names are relative to it.
        name: the path or name that was given.
        written: where its keys were written.

    Raises:
        ScenarioError: anything is wrong with it; the message lists every problem.
    """
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError("\n".join(describe_all(written, data, error.errors()))) from None
    problems = [
        written.message(location, text) for location, text in check_across_keys(scenario, folder)
    ]
    if problems:
        raise ScenarioError("\n".join(problems))
    return LoadedScenario(scenario, folder, name, tuple(overrides), written)
