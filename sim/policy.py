"""What a policy is: what it may look at, and what it may decide.

A policy knows neither SimPy nor MQTT; the simulator and a live node call the same object. It is
any object with a ``decide(request, node)`` method; a node asks it when a worker takes a request
from the queue, and again after each exit that was computed. Two further methods are optional:

- ``check(exit_count)`` raises ``ValueError`` where the policy does not suit the network;
- ``fitted(validation, costs_s)`` returns the policy to use instead, made to suit what the network
  predicts for the validation split (:class:`models.artifacts.Predictions`) and the mean seconds
  from the image to each exit, going exit by exit. See :func:`sim.policy_building.fit_policy`.

To add one, write a class like those in :mod:`sim.policies` in a file of your own and name it in
the scenario: ``policy: my_policies.py:MyPolicy``. Its keyword arguments become keys in the YAML.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

#: No network has more exits than this.
MOST_EXITS = 64


class Decision:
    """What a node does next: :data:`ANSWER`, :data:`DROP`, :data:`OFFLOAD` or :func:`run_to`.

    Attributes:
        exit: to compute on to; 0 unless made by :func:`run_to`.
        within_s: seconds after which the computation is cut off; None for never.
    """

    __slots__ = ("exit", "name", "within_s")

    def __init__(self, name: str, exit: int = 0, within_s: float | None = None) -> None:
        self.name = name
        self.exit = exit
        self.within_s = within_s

    def __repr__(self) -> str:
        if not self.exit:
            return str(self.name)
        within = "" if self.within_s is None else f", within_s={self.within_s}"
        return f"run_to({self.exit}{within})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Decisions are told apart by identity: a copied policy must hold the same ones.
        return (run_to, (self.exit, self.within_s)) if self.exit else self.name


#: Send the answer of the last exit computed.
ANSWER = Decision("ANSWER")
#: Refuse the request; no answer is sent.
DROP = Decision("DROP")
#: Send the request, with what was computed of it, on to the next tier.
OFFLOAD = Decision("OFFLOAD")

_RUN_TO = tuple(Decision("run_to", exit) for exit in range(1, MOST_EXITS + 1))


def run_to(exit: int, within_s: float | None = None) -> Decision:
    """Compute on to ``exit`` (1 is the earliest) and its classifier, passing the exits between.

    Args:
        within_s: cut the computation off after so many seconds. The last exit that was finished
            before it is then the answer; without one, the request is dropped. Its worker is free
            when the segment ends that was being computed.

    Raises:
        ValueError: exits are numbered from 1, no network has more than 64, and no computation
            ends before it began.
    """
    if not 1 <= exit <= MOST_EXITS:
        raise ValueError(f"there is no exit {exit}: exits are numbered from 1 to {MOST_EXITS}")
    if within_s is None:
        return _RUN_TO[exit - 1]
    if not within_s >= 0:
        raise ValueError(f"within_s is {within_s}; it must be 0 or more")
    return Decision("run_to", exit, within_s)


class Foresight(NamedTuple):
    """What nobody can know of a request before it is computed.

    Attributes:
        correct: whether each exit of the network classifies its sample correctly, from exit 1.
        seconds: that this request will take from ``request.exit`` to each later exit of the node;
            the first entry belongs to exit ``request.exit + 1``.
    """

    correct: tuple[bool, ...]
    seconds: tuple[float, ...]


class RequestView(Protocol):
    """What a policy may know of a request. Valid during one call of ``decide`` only."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline passes at the device; negative when it has."""

    @property
    def exit(self) -> int:
        """The last exit computed, 0 before the first; an earlier tier may have computed it."""

    @property
    def confidence(self) -> float:
        """Largest softmax probability at that exit; NaN before the first."""

    @property
    def confidences(self) -> tuple[float, ...]:
        """At each exit computed at this node so far, in the order of computation.

        Empty when the request has just come, also if an earlier tier has computed exits of it.
        """

    @property
    def priority(self) -> int:
        """Of the request, as the scenario gives it."""

    def way_home_s(self, quantile: float) -> float:
        """Quantile of the time that the answer needs to reach the device."""

    def foresight(self) -> Foresight:
        """What will come of it, for an oracle. Only a simulator knows: live nodes raise here."""


class NextTier(Protocol):
    """What a policy may know of the node to which its own can offload."""

    @property
    def name(self) -> str:
        """The node's name in the scenario."""

    @property
    def exit_count(self) -> int:
        """The last exit that it can compute."""

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """Quantile of its seconds from exit ``since`` (0: the image) to each later exit."""

    def round_trip_s(self, request: RequestView, quantile: float) -> float:
        """Quantile of the seconds on the way there and back to this node, as far as it is known.

        The request travels with what was computed of it, so the time depends on its last exit.
        """


class NodeView(Protocol):
    """What a policy may know of its node."""

    @property
    def name(self) -> str:
        """The node's name in the scenario."""

    @property
    def exit_count(self) -> int:
        """The last exit that it can compute: of the network, or of the part that it serves."""

    @property
    def queue_length(self) -> int:
        """Requests that wait for a worker, this one excluded."""

    @property
    def workers(self) -> int:
        """Requests that it can serve at the same time."""

    @property
    def idle_workers(self) -> int:
        """Workers without a request; the one that serves this request is busy."""

    @property
    def next_tier(self) -> NextTier | None:
        """Where :data:`OFFLOAD` sends requests; None where there is nowhere to send them."""

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """Quantile of the seconds from exit ``since`` (0: the image) to each later exit.

        The first entry belongs to exit ``since + 1``. Of one image alone, also on a node that
        computes several together.
        """


class Policy(Protocol):
    """Decides what a node does with a request."""

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """Return what to do next.

        Possible are ``run_to`` a later exit of the node, :data:`ANSWER` once an exit is computed,
        :data:`OFFLOAD` where the node has a next tier, and :data:`DROP` always.
        """


def policy_text(policy: Policy) -> str:
    """A policy's name in messages: its own if it has one, else its class."""
    own = type(policy).__repr__ is not object.__repr__
    return repr(policy) if own else type(policy).__name__
