"""Tracing a network, and cutting it into segments that run one after the other.

The network is traced with torch.fx, as torchvision's feature extraction does, and its nodes keep
that module's names: ``layer1.0.conv1`` for an operation, ``layer1`` for the last operation inside
a submodule. A cut after a node may cross skip and dense connections: every value that is needed
beyond it travels on with the state.
"""

from __future__ import annotations

import inspect
import itertools
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth

from models.errors import NetworkError, did_you_mean

#: What passes from segment to segment: the activation at the exit, then every other value that
#: later segments need.
State = tuple[Any, ...]


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


@dataclass(frozen=True)
class Segment:
    """One part of a network, between two cuts.

    Attributes:
        run: takes the network and the values of the state before, returns the state after.
        owns: names of the submodules, parameters and buffers that it computes with.
    """

    run: Callable[..., State]
    owns: tuple[str, ...]


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
    nodes = list(traced.graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    for node in reversed(nodes):
        if _is_layer_with_weights(traced, node):
            before = node.args[0] if node.args else None
            if isinstance(before, fx.Node) and before.op not in ("placeholder", "get_attr"):
                beyond = _needed_beyond(nodes, position, before)
                return before if not beyond else None
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


def _needed_beyond(
    nodes: list[fx.Node], position: dict[fx.Node, int], cut: fx.Node
) -> list[fx.Node]:
    """Values computed up to ``cut`` that a later node uses, without the cut's own."""
    stop = position[cut]
    return [
        node
        for node in nodes[: stop + 1]
        # Parameters and buffers need not travel: each segment fetches its own.
        if node is not cut
        and node.op != "get_attr"
        and any(position[user] > stop for user in node.users)
    ]


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


# --- costs -------------------------------------------------------------------------------------


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Counts the FLOPs of what runs inside; a multiply-accumulate counts as two."""
    fused = torch.backends.mha.get_fastpath_enabled()
    # The counter knows neither the fused attention of inference mode nor, in some versions, that
    # of processors; as matrix products it counts attention everywhere.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class Rehearsal(fx.Interpreter):
    """Runs a traced network on one image, and notes what each operation gives.

    Attributes:
        flops: spent up to and including each operation.
        values: the result of each operation.
    """

    def __init__(self, traced: Traced, image: Tensor) -> None:
        super().__init__(fx.GraphModule(traced.module, traced.graph))
        self.flops: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        with flop_counter() as self._counter:
            self.run(image)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        result = super().run_node(n)
        self.flops[n] = self._counter.get_total_flops()
        self.values[n] = result
        return result


def is_activation(value: Any, image: Tensor) -> bool:
    """Whether a branch can be attached to ``value``, computed from ``image`` (1, C, H, W).

    Feature maps with channels first or last, tokens, or a vector.
    """
    if not torch.is_tensor(value) or not value.is_floating_point() or len(value) != len(image):
        return False
    if value.ndim != 4 or image.shape[2] != image.shape[3]:
        return 2 <= value.ndim <= 4
    return value.shape[2] == value.shape[3] or value.shape[1] == value.shape[2]


#: Layers that take channels first, and last.
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
_CHANNELS_LAST = (nn.LayerNorm, nn.Linear)
#: What becomes of feature maps by a permutation: channels last, or first.
_PERMUTED: dict[tuple[Any, ...], bool] = {(0, 2, 3, 1): True, (0, 3, 1, 2): False}


def keeps_channels_last(traced: Traced, node: fx.Node) -> bool | None:
    """Whether feature maps at an operation have their channels last; None: nothing tells.

    The nearest layer or permutation before it tells, which takes or gives them on one side.
    """
    seen: set[fx.Node] = set()
    here = [node]
    while here:
        for one in here:
            told = _told_channels_last(traced, one)
            if told is not None:
                return told
        seen.update(here)
        before = [source for one in here for source in one.all_input_nodes]
        here = [source for source in dict.fromkeys(before) if source not in seen]
    return None


def _told_channels_last(traced: Traced, node: fx.Node) -> bool | None:
    layer = traced.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(layer, _CHANNELS_FIRST):
        return False
    if isinstance(layer, _CHANNELS_LAST):
        return True
    if node.target in ("permute", torch.permute):
        given: Any = node.kwargs.get("dims") or node.args[1:]
        axes = given[0] if isinstance(given[0], tuple | list) else given
        return _PERMUTED.get(tuple(axis % 4 for axis in axes if isinstance(axis, int)))
    return None


def place_by_flops(traced: Traced, image: Tensor, shares: Sequence[float]) -> list[str]:
    """Names of the operations after which the spent share of the FLOPs is nearest to ``shares``.

    Only operations that nothing else by-passes are considered, so that no exit sits inside a
    block: cuts that cross no skip connection.

    Raises:
        NetworkError: there are not enough such places, or two shares fall on the same.
    """
    nodes = list(traced.graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    rehearsal = Rehearsal(traced, image)
    spent = rehearsal.flops
    total = max(spent.values())
    last = classifier_input(traced)
    # What costs as much as to reach the network's own classifier is that classifier's place.
    reached = total if last is None else spent[last]
    candidates = [
        node
        for node in traced.names
        if 0 < spent[node] < reached
        and is_activation(rehearsal.values[node], image)
        and not _needed_beyond(nodes, position, node)
    ]
    costs = sorted({spent[node] for node in candidates})
    chosen: list[int] = []
    for share in shares:
        nearest = min([*costs, reached], key=lambda cost: abs(cost / total - share))
        if nearest == reached or (chosen and nearest <= chosen[-1]):
            places = ", ".join(dict.fromkeys(f"{cost / total:.3f}" for cost in costs)) or "none"
            raise NetworkError(
                f"there is no place of its own for an exit at {share:g} of the FLOPs; "
                f"{type(traced.module).__name__} can be cut between its blocks at {places}"
            )
        chosen.append(nearest)
    # Of places with equal cost, such as a convolution and the activation after it, the last.
    return [
        traced.names[[node for node in candidates if spent[node] == cost][-1]] for cost in chosen
    ]
