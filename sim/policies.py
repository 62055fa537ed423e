"""Policies: what decides at a node which exit answers a request.

A policy knows neither SimPy nor MQTT; the simulator and a live node call the same object. It is
any object with a ``decide(request, node)`` method; a node asks it when a worker takes a request
from the queue, and again after each exit that was computed. To add one, write a class like those
below in a file of your own and name it in the scenario: ``policy: my_policies.py:MyPolicy``. Its
keyword arguments become keys in the YAML.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from models.errors import PolicyError, did_you_mean
from models.importing import import_callable, is_import_path


class Decision:
    """What a node does next with a request: :data:`ANSWER`, :data:`DROP` or :func:`run_to`."""

    __slots__ = ("exit", "name")

    def __init__(self, name: str, exit: int = 0) -> None:
        self.name = name
        self.exit = exit

    def __repr__(self) -> str:
        return f"run_to({self.exit})" if self.exit else self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Decisions are told apart by identity: a copied policy must hold the same ones.
        return (run_to, (self.exit,)) if self.exit else self.name


#: Send the answer of the last exit computed.
ANSWER = Decision("ANSWER")
#: Refuse the request; no answer is sent.
DROP = Decision("DROP")

_RUN_TO = tuple(Decision("run_to", exit) for exit in range(1, 65))


def run_to(exit: int) -> Decision:
    """Compute on to ``exit`` (1 is the earliest) and its classifier, passing the exits between.

    Raises:
        ValueError: exits are numbered from 1, and no network has more than 64.
    """
    if not 1 <= exit <= len(_RUN_TO):
        raise ValueError(f"there is no exit {exit}: exits are numbered from 1 to {len(_RUN_TO)}")
    return _RUN_TO[exit - 1]


class RequestView(Protocol):
    """What a policy may know of a request. Valid during one call of ``decide`` only."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline passes at the device; negative when it has."""

    @property
    def exit(self) -> int:
        """The last exit computed, 0 before the first."""

    @property
    def confidence(self) -> float:
        """Largest softmax probability at that exit; NaN before the first."""

    def way_home_s(self, quantile: float) -> float:
        """Quantile of the time that the answer needs to reach the device."""


class NodeView(Protocol):
    """What a policy may know of its node."""

    @property
    def name(self) -> str:
        """The node's name in the scenario."""

    @property
    def exit_count(self) -> int:
        """Number of exits of the network that it serves."""

    @property
    def queue_length(self) -> int:
        """Requests that wait for a worker, this one excluded."""

    @property
    def workers(self) -> int:
        """Requests that it can serve at the same time."""

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """Quantile of the seconds from exit ``since`` (0: the image) to each later exit.

        The first entry belongs to exit ``since + 1``.
        """


def policy_text(policy: Policy) -> str:
    """A policy's name in messages: its own if it has one, else its class."""
    own = type(policy).__repr__ is not object.__repr__
    return repr(policy) if own else type(policy).__name__


class Policy(Protocol):
    """Decides what a node does with a request."""

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """Return :data:`ANSWER` (once an exit was computed), :data:`DROP`, or ``run_to(exit)``."""


@dataclass(frozen=True)
class FixedExit:
    """Always answer at ``exit``."""

    exit: int

    def __post_init__(self) -> None:
        if self.exit < 1:
            raise ValueError(f"exit is {self.exit}; exits are numbered from 1")

    def check(self, exit_count: int) -> None:
        """Refuse an exit that the network lacks."""
        if self.exit > exit_count:
            raise ValueError(f"exit is {self.exit}, but the network has exits 1 to {exit_count}")

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`Policy`."""
        return ANSWER if request.exit else run_to(self.exit)


@dataclass(frozen=True)
class Confidence:
    """Answer at the first exit whose confidence reaches ``threshold``, at the latest at the last.

    The rule of BranchyNet (Teerapittayanon et al. 2016) and MSDNet (Huang et al. 2018, section 4),
    with the largest softmax probability as the confidence. It does not look at deadlines.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it lies between 0 and 1")

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`Policy`."""
        exit = request.exit
        if exit and (exit == node.exit_count or request.confidence >= self.threshold):
            return ANSWER
        return run_to(exit + 1)


@dataclass(frozen=True)
class DeadlineAware:
    """Answer at the deepest exit whose latency still fits what is left of the deadline.

    What is left is counted when a worker takes the request, so the way up and the queue are spent
    already; the way home and the inference enter with their ``quantile``.

    Attributes:
        quantile: of the latencies; higher is more cautious.
        when_none_fits: ``earliest_exit`` answers all the same, late perhaps; ``drop`` refuses.
    """

    quantile: float = 0.95
    when_none_fits: Literal["earliest_exit", "drop"] = "earliest_exit"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it lies between 0 and 1, both excluded")

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`Policy`."""
        if request.exit:
            return ANSWER
        budget = request.remaining_s - request.way_home_s(self.quantile)
        latencies = node.latencies_s(self.quantile)
        for exit in range(node.exit_count, 0, -1):
            if latencies[exit - 1] <= budget:
                return run_to(exit)
        return DROP if self.when_none_fits == "drop" else run_to(1)


POLICIES: dict[str, Callable[..., Policy]] = {
    "fixed_exit": FixedExit,
    "confidence": Confidence,
    "deadline_aware": DeadlineAware,
}


def build_policy(
    reference: str, parameters: dict[str, Any], folder: Path, exit_count: int
) -> Policy:
    """Build a policy from its name or import path and its parameters.

    Args:
        reference: a name in :data:`POLICIES`, ``package.module:Class``, ``package.module.Class``,
            or ``file.py:Class`` with the file relative to ``folder``.
        exit_count: exits of the network; a policy with a ``check(exit_count)`` method may refuse.

    Raises:
        PolicyError: it is unknown, cannot be imported, or refuses its parameters.
    """
    factory = POLICIES.get(reference) or _import(reference, folder)
    _check_parameters(factory, reference, parameters)
    try:
        policy = factory(**parameters)
        if hasattr(policy, "check"):
            policy.check(exit_count)
    except ValueError as error:
        raise PolicyError(f"policy {reference!r}: {error}") from error
    except Exception as error:
        # Whatever a user's class raises is theirs to mend.
        raise PolicyError(f"policy {reference!r}: {type(error).__name__}: {error}") from error
    if not callable(getattr(policy, "decide", None)):
        raise PolicyError(f"policy {reference!r} has no method decide(request, node)")
    return policy


def _import(reference: str, folder: Path) -> Callable[..., Policy]:
    if not is_import_path(reference):
        raise PolicyError(
            f"unknown policy {reference!r}{did_you_mean(reference, POLICIES)} "
            f"(allowed: {', '.join(POLICIES)}, or an import path such as my_policies.py:MyPolicy)"
        )
    try:
        return import_callable(reference, folder)
    except ImportError as error:
        raise PolicyError(f"policy {reference!r} {error}") from error


def _check_parameters(
    factory: Callable[..., Policy], reference: str, parameters: dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    accepted = signature.parameters
    if any(item.kind is item.VAR_KEYWORD for item in accepted.values()):
        return
    for name in parameters:
        if name not in accepted:
            allowed = f"allowed: {', '.join(accepted)}" if accepted else "it has none"
            raise PolicyError(
                f"policy {reference!r} has no parameter {name!r}{did_you_mean(name, accepted)} "
                f"({allowed})"
            )
    for name, item in accepted.items():
        if item.default is item.empty and name not in parameters:
            raise PolicyError(f"policy {reference!r} needs the parameter {name!r}")
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except Exception:
        return  # annotations that cannot be looked up, say for type checkers only
    for name, value in parameters.items():
        if not _fits(value, hints.get(name)):
            raise PolicyError(
                f"policy {reference!r}: {name} is {value!r}; allowed: {_hint_text(hints[name])}"
            )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a parameter from YAML is what its annotation says; what we cannot tell, fits."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, hint) if hint in (str, bool) else True


def _hint_text(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    return {int: "an integer", float: "a number", str: "text", bool: "true or false"}[hint]
