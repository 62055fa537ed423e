"""Which of a point's values decide what it shares with others: networks, profiles, policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from offramp.sweep.template import Template, as_json
from offramp.yaml_lines import Location


def decides_networks(location: Location) -> bool:
    """Whether trained networks depend on a key."""
    return location[0] in ("data", "model", "training")


def decides_fitting(location: Location) -> bool:
    """Whether it depends on a key which validation predictions are needed."""
    return decides_networks(location) or location[0] == "policies"


def decides_profile(location: Location) -> bool:
    """Whether it depends on a key which profile of the host is needed, if one is."""
    match location:
        case ("nodes", _, "profile" | "service_ms", *_) | ("devices", _, "compute", *_):
            return True
        case ("nodes" | "devices", _, _, *_):
            return False
        case (part, *_):
            return part in ("data", "model", "profile", "nodes", "devices")
    return True


class Shared:
    """Tells points apart by those values that something depends on.

    Args:
        decides: whether it depends on a key.
    """

    def __init__(self, template: Template, decides: Callable[[Location], bool]) -> None:
        self._positions = [
            position for position, location in enumerate(template.locations) if decides(location)
        ]
        self._keys = [template.keys[position] for position in self._positions]

    def among(self, values: Sequence[Any]) -> str:
        """A text that is the same for the points that share it."""
        return as_json([values[position] for position in self._positions])

    def values(self, values: Sequence[Any]) -> dict[str, Any]:
        """The values of a point that decide, by key."""
        chosen = (values[position] for position in self._positions)
        return dict(zip(self._keys, chosen, strict=True))
