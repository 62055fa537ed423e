"""A scenario with gaps: what is the same at every point of a sweep, and where its values go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.key_paths import put
from offramp.scenario import LoadedScenario, checked_scenario
from offramp.yaml_lines import Location
from offramp.yaml_source import Source


@dataclass(frozen=True)
class Template:
    """What makes a scenario of the values of a point: small, and to be sent to workers.

    Attributes:
        data: the scenario's data without the key ``sweep``; never changed.
        keys: swept keys, dotted.
        locations: of each key, where in ``data`` it leads.
        folder: files named in the scenario are relative to it.
        source: the path or name of the scenario that was given.
        overrides: of keys that are the same at every point, as they were given.
        written: where each key was written, swept ones included.
    """

    data: dict[str, Any]
    keys: tuple[str, ...]
    locations: tuple[Location, ...]
    folder: Path
    source: str
    overrides: tuple[str, ...]
    written: Source

    def scenario_at(self, values: Sequence[Any]) -> LoadedScenario:
        """The checked scenario of a point.

        Its overrides are those of the sweep and one for each swept key: with them, ``offramp run``
        runs the same.

        Args:
            values: one for each of :attr:`keys`.

        Raises:
            ScenarioError: these values are not valid together.
        """
        return self.scenario_with(dict(zip(self.keys, values, strict=True)))

    def scenario_with(self, values: dict[str, Any]) -> LoadedScenario:
        """The checked scenario with some of the swept keys set, by key.

        Raises:
            ScenarioError: these values are not valid together.
        """
        data = _copied(self.data)
        for key, location in zip(self.keys, self.locations, strict=True):
            if key in values:
                put(data, location, _copied(values[key]))
        overrides = (*self.overrides, *(f"{key}={as_json(it)}" for key, it in values.items()))
        return checked_scenario(data, self.folder, self.source, overrides, self.written)


def as_json(value: Any) -> str:
    """A value as compact JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)


def _copied(value: Any) -> Any:
    """A copy that shares no list and no mapping: a policy may be given one, and change it."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
