"""Tracing a network with torch.fx, as torchvision's feature extraction does.

Its nodes keep that module's names: ``layer1.0.conv1`` for an operation, ``layer1`` for the last
operation inside a submodule. Operations in place return new values, and constants that differ
between training and inference follow the mode.
"""

from __future__ import annotations

import inspect
import itertools
import operator
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth

from models.errors import NetworkError, did_you_mean


@dataclass(frozen=True)
class Traced:
    """A traced network.

    Attributes:
        module: the network, whose weights every segment shares.
        graph: its operations, in the order of computation.
        names: the qualified name of each operation.
    """

    module: nn.Module
    graph: fx.Graph
    names: dict[fx.Node, str]

    def last_node(self, name: str) -> fx.Node:
        """The operation called ``name``, or the last one inside the submodule of that name.

        Raises:
            NetworkError: there is none.
        """
        inside = [
            node
            for node, known in self.names.items()
            if node.op != "get_attr" and (known == name or known.startswith(f"{name}."))
        ]
        if not inside:
            raise NetworkError(
                f"{type(self.module).__name__} has no node {name!r}"
                f"{did_you_mean(name, self.places())} (submodules to attach exits to: "
                f"{', '.join(self._outer_places())})"
            )
        return inside[-1]

    def places(self) -> list[str]:
        """Names of all operations, and of the submodules that hold them."""
        parts = [name.split(".") for name in self.names.values()]
        return list(
            dict.fromkeys(
                ".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)
            )
        )

    def _outer_places(self) -> list[str]:
        return [name for name in self.places() if name.count(".") <= 1][:24]


class ByMode(nn.Module):
    """A constant that differs between training and inference, such as a functional dropout's."""

    def __init__(self, training: Any, inference: Any) -> None:
        super().__init__()
        self.values = (inference, training)

    def forward(self) -> Any:
        """The constant for the mode that this module is in."""
        return self.values[self.training]


def trace(module: nn.Module) -> Traced:
    """Trace ``module``; operations in place are made to return new values.

    It is traced in training and in inference mode. Constants that differ follow the mode in which
    a segment runs; operations must not differ.

    Raises:
        NetworkError: it cannot be traced; the message says why.
    """
    changing = {name for name, part in module.named_modules() if getattr(part, "inplace", False)}
    for name in changing:
        module.get_submodule(name).inplace = False  # type: ignore[assignment]
    was_training = module.training
    try:
        training_graph, _ = _traced_as_it_is(module.train())
        graph, tracer = _traced_as_it_is(module.eval())
    finally:
        module.train(was_training)
    for traced in (graph, training_graph):
        _take_out_of_place(traced, changing)
    names = {
        node: tracer.node_to_qualname.get(node, node.name)
        for node in graph.nodes
        if node.op not in ("placeholder", "output")
    }
    # The tracer takes a layer's own number, as in conv_1, for a count of its uses.
    taken = {name for name, _ in module.named_modules()}
    used = set()
    for node in names:
        if node.op == "call_module":
            target = str(node.target)
            names[node] = target if target not in used else _free_name(target, taken)
            used.add(target)
            taken.add(names[node])
    _follow_mode(module, graph, training_graph)
    return Traced(module, graph, names)


def _free_name(name: str, taken: set[str]) -> str:
    """A name for a layer's further use."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(it for it in numbered if it not in taken)


def _traced_as_it_is(module: nn.Module) -> tuple[fx.Graph, NodePathTracer]:
    tracer = NodePathTracer(leaf_modules=[StochasticDepth])
    # A buffer that forward reads is fetched each time, and follows weights that are loaded later.
    tracer.proxy_buffer_attributes = True
    parameters = list(inspect.signature(module.forward).parameters.values())
    # Whatever else forward takes keeps its default.
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters[1:]
        if parameter.default is not parameter.empty
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tracer.trace(module, concrete_args=defaults or None)
    except Exception as error:
        # Whatever stops the tracer lies in the network's own code.
        raise NetworkError(
            f"torch.fx cannot trace {type(module).__name__}: {error}\n"
            "What needs a tensor's values or sizes as numbers (control flow that depends on the "
            "input, int(), assigning to a part) cannot be traced: move it into a function marked "
            "with torch.fx.wrap."
        ) from error
    return graph, tracer


def _take_out_of_place(graph: fx.Graph, changing: set[str]) -> None:
    """Let operations in place return new values, which all that comes after them takes.

    Args:
        changing: submodules that were told to work in place, and no longer are.
    """
    changed = [node for node in graph.nodes if _was_in_place(node, changing)]
    for node in changed:
        before = node.args[0] if node.args else None
        if isinstance(before, fx.Node):
            nodes = list(graph.nodes)
            later = set(nodes[nodes.index(node) + 1 :])
            before.replace_all_uses_with(node, delete_user_cb=later.__contains__)


def _was_in_place(node: fx.Node, changing: set[str]) -> bool:
    """Whether an operation changed its first argument; now it returns a new value."""
    if node.op == "call_module":
        return str(node.target) in changing
    if node.op == "call_function":
        return _no_longer_asked_to(node) or _is_plain_function(node)
    if node.op != "call_method":
        return False
    name = str(node.target)
    if name == "view":
        node.target = "reshape"  # images are channels_last, where views are few
    if not _says_in_place(name) or not hasattr(Tensor, name[:-1]):
        return False
    node.target = name[:-1]
    return True


def _says_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _is_plain_function(node: fx.Node) -> bool:
    """Whether it was one as ``torch.relu_``; the function out of place takes its place."""
    name = getattr(node.target, "__name__", "")
    plain = getattr(torch, name[:-1], None) or getattr(F, name[:-1], None)
    if not _says_in_place(name) or plain is None:
        return False
    node.target = plain
    return True


def _no_longer_asked_to(node: fx.Node) -> bool:
    """Whether a function was told ``inplace=True``, by name or by position."""
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # built in, and without such an argument
        return False
    if not bound.arguments.get("inplace"):
        return False
    bound.arguments["inplace"] = False
    node.args, node.kwargs = bound.args, bound.kwargs
    return True


def _follow_mode(module: nn.Module, graph: fx.Graph, training_graph: fx.Graph) -> None:
    """Replace every constant that differs in training by a module that knows the mode."""
    nodes, others = list(graph.nodes), list(training_graph.nodes)
    same = len(nodes) == len(others) and all(
        node.op == other.op and (node.target == other.target or _same_constant(module, node, other))
        for node, other in zip(nodes, others, strict=True)
    )
    if not same:
        raise NetworkError(
            f"{type(module).__name__} computes other operations in training than in inference, "
            "which cannot be cut: put what differs into a module that torch.fx does not look into"
        )
    count = 0

    def merged(node: fx.Node, inference: Any, training: Any) -> Any:
        nonlocal count
        if isinstance(inference, fx.Node):
            return inference
        if isinstance(inference, tuple | list) and isinstance(training, tuple | list):
            parts = [merged(node, *pair) for pair in zip(inference, training, strict=True)]
            return type(inference)(parts)
        if isinstance(inference, slice) and isinstance(training, slice):
            ends = [(it.start, it.stop, it.step) for it in (inference, training)]
            return slice(*(merged(node, *pair) for pair in zip(*ends, strict=True)))
        if isinstance(inference, dict) and isinstance(training, dict):
            return {key: merged(node, inference[key], training[key]) for key in inference}
        if inference == training:
            return inference
        name = f"traced_constant_{count}"
        count += 1
        module.add_module(name, ByMode(training, inference).train(module.training))
        with graph.inserting_before(node):
            return graph.create_node("call_module", name)

    for node, other in zip(nodes, others, strict=True):
        node.args = merged(node, node.args, other.args)
        node.kwargs = merged(node, node.kwargs, other.kwargs)


def _same_constant(module: nn.Module, node: fx.Node, other: fx.Node) -> bool:
    """Whether both fetch equal tensors: one made in ``forward`` has another name in each trace."""
    if node.op != "get_attr":
        return False
    one, another = (operator.attrgetter(str(it.target))(module) for it in (node, other))
    return (
        torch.is_tensor(one)
        and torch.is_tensor(another)
        and one.dtype == another.dtype
        and torch.equal(one, another)
    )
