"""Reading YAML into plain Python values, with the line on which every key and item stands."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

#: Keys and list positions that lead to a value.
Location = tuple[str | int, ...]

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "null", "bool")} | {
    f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")
}
_MERGE = "tag:yaml.org,2002:merge"


class NotYamlError(Exception):
    """The text is not YAML that we read; ``line`` is None where it is not known."""

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class Tagged:
    """A value with a tag that we do not construct; no type of the schema accepts it."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def __repr__(self) -> str:
        return f"a value tagged {self.tag}"


def read_yaml(text: str) -> tuple[Any, dict[Location, int]]:
    """Values of ``text``, and the line (from 1) of each key and item.

    Raises:
        NotYamlError: the syntax is wrong, a key stands twice, or it is nested too deeply.
    """
    yaml = YAML(typ="safe", pure=True)
    lines: dict[Location, int] = {}
    try:
        tree = yaml.compose(text)
        return (None if tree is None else _Reader(yaml, lines).value(tree, ()), lines)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise NotYamlError(f"not valid YAML: {error.problem}", line) from None
    except YAMLError as error:
        raise NotYamlError(f"not valid YAML: {error}", None) from None
    except RecursionError:
        raise NotYamlError("nested too deeply", None) from None


class _Reader:
    """Turns nodes into values; a node that contains itself ends as a :class:`Tagged` value."""

    def __init__(self, yaml: YAML, lines: dict[Location, int]) -> None:
        self.yaml = yaml
        self.lines = lines
        self.open: set[int] = set()

    def value(self, node: Node, location: Location) -> Any:
        if node.tag not in _PLAIN_TAGS:
            return Tagged(str(node.tag))
        if isinstance(node, ScalarNode):
            return self.scalar(node)
        if id(node) in self.open:
            return Tagged("an alias of what holds it")
        self.open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.item(index, item, location) for index, item in enumerate(node.value)]
            return self.mapping(node.value, location)
        finally:
            self.open.remove(id(node))

    def scalar(self, node: ScalarNode) -> Any:
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, LookupError) as error:  # the second where a tag names another type
            raise NotYamlError(f"not valid YAML: {error}", node.start_mark.line + 1) from None

    def item(self, index: int, node: Node, location: Location) -> Any:
        self.lines[(*location, index)] = node.start_mark.line + 1
        return self.value(node, (*location, index))

    def mapping(self, pairs: list[tuple[Node, Node]], location: Location) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        merged: list[Node] = []
        for key_node, value_node in pairs:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                several = isinstance(value_node, SequenceNode)
                merged += value_node.value if several else [value_node]
                continue
            key = _hashable(self.value(key_node, location))
            if key in values:
                raise NotYamlError(f'duplicate key "{key}"', line)
            self.lines[(*location, key)] = line
            values[key] = self.value(value_node, (*location, key))
        for source in merged:
            if not isinstance(source, MappingNode):
                raise NotYamlError("only a mapping can be merged", source.start_mark.line + 1)
            mine = {key: line for key, line in self.lines.items() if key[:-1] == location}
            inherited = self.value(source, location)
            # What the mapping says itself comes before what it merges.
            values = inherited | values
            self.lines.update(mine)
        return values


def _hashable(key: Any) -> Any:
    return (
        tuple(map(_hashable, key))
        if isinstance(key, list)
        else (repr(key) if isinstance(key, dict | Tagged) else key)
    )
