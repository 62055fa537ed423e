"""Cutting a traced network into segments that run one after the other.

A cut after a node may cross skip and dense connections: every value that is needed beyond it
travels on with the state.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.nn import functional as F

from models.errors import NetworkError
from models.networks.tracing import Traced

#: What passes from segment to segment: the activation at the exit, then every other value that
#: later segments need.
State = tuple[Any, ...]


@dataclass(frozen=True)
class Segment:
    """One part of a network, between two cuts.

    Attributes:
        run: takes the network and the values of the state before, returns the state after.
        owns: names of the submodules, parameters and buffers that it computes with.
    """

    run: Callable[..., State]
    owns: tuple[str, ...]


def split(traced: Traced, ends: Sequence[fx.Node]) -> list[Segment]:
    """Cut the network after each of ``ends``, operations in the order of computation.

    Returns:
        One segment more than ``ends``. The first takes the network's input; each returns the
        state at its end, first the value of the operation there; the last returns the network's
        output alone.
    """
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"][:1]
    cuts = [*ends, _output(traced)]
    used = set().union(*(_ancestors(cut) for cut in cuts))
    computed, state, segments = set(inputs), inputs, []
    for cut in cuts:
        # Only what the cut needs: the rest is left to a later segment, or never computed.
        needed = _ancestors(cut) - computed
        # And the parts of a tuple, so that it need not travel whole.
        for node in traced.graph.nodes:
            if _takes_part(node) and node in used - computed:
                needed |= {node} if node.args[0] in computed | needed else set()
        nodes = [node for node in traced.graph.nodes if node in needed]
        computed |= needed
        after = [cut]
        if cut in ends:
            # Parameters and buffers need not travel: each segment fetches its own.
            after += [
                node
                for node in traced.graph.nodes
                if node in computed
                and node is not cut
                and node.op != "get_attr"
                and not used.isdisjoint(node.users.keys() - computed)
            ]
        segments.append(_segment(nodes, state, after))
        state = after
    return segments


def _takes_part(node: fx.Node) -> bool:
    return node.target is operator.getitem and isinstance(node.args[1], int)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """``node`` and everything it is computed from."""
    found, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += one.all_input_nodes
    return found


def exit_cuts(traced: Traced, names: Sequence[str]) -> list[fx.Node]:
    """The operations after which exits called ``names`` sit.

    Raises:
        NetworkError: a name does not exist, or they are not in the order of computation.
    """
    position = {node: index for index, node in enumerate(traced.graph.nodes)}
    found = [traced.last_node(name) for name in names]
    for index, (before, after) in enumerate(itertools.pairwise(found)):
        if position[before] >= position[after]:
            raise NetworkError(
                f"exits are named from the earliest to the last, but {names[index + 1]!r} is "
                f"computed {'with' if before is after else 'before'} {names[index]!r}"
            )
    return found


def classifier_input(traced: Traced) -> fx.Node | None:
    """The operation whose result the network's last layer with weights takes, and it alone.

    None where nothing can be cut there: other values are needed beyond it.
    """
    for node in reversed(list(traced.graph.nodes)):
        if _is_layer_with_weights(traced, node):
            before = node.args[0] if node.args else None
            if isinstance(before, fx.Node) and before.op not in ("placeholder", "get_attr"):
                return before if before in places_not_passed_by(traced) else None
            return None
    return None


def _is_layer_with_weights(traced: Traced, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(True for _ in traced.module.get_submodule(str(node.target)).parameters())
    return node.target in (F.linear, F.conv2d)


def _output(traced: Traced) -> fx.Node:
    result = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise NetworkError(f"{type(traced.module).__name__} must return one tensor of logits")
    return result


def places_not_passed_by(traced: Traced) -> set[fx.Node]:
    """Operations beyond which no value is needed but their own: no skip connection passes them."""
    position = {node: index for index, node in enumerate(traced.graph.nodes)}
    found = set()
    last_use = -1  # of what was computed before
    for node, index in position.items():
        if last_use <= index:
            found.add(node)
        # Parameters and buffers need not travel: each segment fetches its own.
        if node.op != "get_attr":
            last_use = max([last_use, *(position[user] for user in node.users)])
    return found


def _segment(nodes: list[fx.Node], inputs: list[fx.Node], outputs: list[fx.Node]) -> Segment:
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"state_{index}") for index, node in enumerate(inputs)}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            # Only a parameter or buffer of an earlier segment can be missing.
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        if node.op not in ("placeholder", "output", "get_attr"):
            copies[node] = graph.node_copy(node, copied)
    graph.output(tuple(copied(node) for node in outputs))
    graph.lint()
    # A plain function of the network, and not a GraphModule: that would hold copies of buffers,
    # which do not follow the network to another device.
    code = graph.python_code(root_module="self")
    exec(compile(code.src, "<segment>", "exec"), code.globals)
    owned = [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]
    return Segment(code.globals["forward"], tuple(dict.fromkeys(owned)))
