"""The policies that ship. :mod:`sim.policy` says what a policy may look at and decide.

Where the network is split over tiers, a policy that wants more than its node can compute sends the
request on. Latencies and ways enter with a ``quantile`` where a rule looks at the deadline: higher
is more cautious.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sim.confidence import ByConfidence
from sim.policy import (
    ANSWER,
    DROP,
    MOST_EXITS,
    OFFLOAD,
    Decision,
    NodeView,
    Policy,
    RequestView,
    run_to,
)

WhenNoneFits = Literal["earliest_exit", "drop"]

#: By the exit that was computed: on to the next.
_TO_NEXT = tuple(run_to(exit) for exit in range(1, MOST_EXITS + 1))

#: What is decided before the first exit, by the name that it has in a scenario.
_WHEN_NONE_FITS: dict[str, Decision] = {"earliest_exit": run_to(1), "drop": DROP}


def _check_exit(name: str, exit: int) -> None:
    if exit < 1:
        raise ValueError(f"{name} is {exit}; exits are numbered from 1")


def _check_exit_exists(name: str, exit: int, exit_count: int) -> None:
    if exit > exit_count:
        raise ValueError(f"{name} is {exit}, but the network has exits 1 to {exit_count}")


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; it lies between 0 and 1, both excluded")


def _send_on(exit: int, node: NodeView) -> Decision:
    """At the node's last exit: to the next tier if it goes deeper, else the answer."""
    tier = node.next_tier
    return OFFLOAD if tier is not None and tier.exit_count > exit else ANSWER


def _next_tier_fits(request: RequestView, node: NodeView, budget_s: float, quantile: float) -> bool:
    """Whether the next tier can compute a later exit and send its answer back in time."""
    tier = node.next_tier
    if tier is None or tier.exit_count <= request.exit:
        return False
    there_s = tier.latencies_s(quantile, request.exit)[0]
    return tier.round_trip_s(request, quantile) + there_s <= budget_s


# --- without a look at the deadline --------------------------------------------------------------


@dataclass(frozen=True)
class FixedExit:
    """Always answer at ``exit``."""

    exit: int
    _run: Decision = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_exit("exit", self.exit)
        object.__setattr__(self, "_run", run_to(self.exit))

    def check(self, exit_count: int) -> None:
        """Refuse an exit that the network lacks."""
        _check_exit_exists("exit", self.exit, exit_count)

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit >= self.exit:
            return ANSWER
        if self.exit <= node.exit_count or node.next_tier is None:
            return self._run
        return run_to(node.exit_count) if exit < node.exit_count else OFFLOAD


@dataclass(frozen=True)
class Full:
    """Always answer at the last exit, the backbone's own classifier."""

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        return run_to(node.exit_count) if exit < node.exit_count else _send_on(exit, node)


@dataclass(frozen=True)
class Confidence(ByConfidence):
    """Answer at the first exit whose confidence reaches its threshold, at the latest at the last.

    The rule of BranchyNet (Teerapittayanon et al. 2016) and MSDNet (Huang et al. 2018, section 4),
    and over tiers of DDNN (Teerapittayanon et al. 2017), with the largest softmax probability as
    the confidence. It does not look at deadlines. Thresholds as in
    :class:`sim.confidence.ByConfidence`.
    """

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit and request.confidence >= self._enough[exit]:
            return ANSWER
        return _TO_NEXT[exit] if exit < node.exit_count else _send_on(exit, node)


# --- under a deadline ----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeadlineAware:
    """Answer at the deepest exit whose latency still fits what is left of the deadline.

    What is left is counted when a worker takes the request, so the way up and the queue are spent
    already; the way home and the inference enter with their ``quantile``. Only the exits of the
    node itself count.

    Attributes:
        quantile: of the latencies; higher is more cautious.
        when_none_fits: ``earliest_exit`` answers all the same, late perhaps; ``drop`` refuses.
    """

    quantile: float = 0.95
    when_none_fits: WhenNoneFits = "earliest_exit"
    _otherwise: Decision = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_quantile(self.quantile)
        object.__setattr__(self, "_otherwise", _WHEN_NONE_FITS[self.when_none_fits])

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit and request.confidences:
            return ANSWER
        budget_s = request.remaining_s - request.way_home_s(self.quantile)
        return self._deepest_within(budget_s, exit, node)

    def _deepest_within(self, budget_s: float, exit: int, node: NodeView) -> Decision:
        latencies = node.latencies_s(self.quantile, exit)
        for steps in range(len(latencies), 0, -1):
            if latencies[steps - 1] <= budget_s:
                return run_to(exit + steps)
        return ANSWER if exit else self._otherwise


@dataclass(frozen=True)
class LoadAdaptive(DeadlineAware):
    """Answer at the deepest exit at which the node could serve the queue too before the deadline.

    With q requests waiting for w workers, an exit is deep enough to be affordable when
    (1 + q / w) times its latency fits what is left of the deadline: this request and its share of
    those that wait behind it, all at that exit. As the queue grows, the exit gets earlier; while
    nobody waits, this is :class:`DeadlineAware`. It needs no threshold that would have to be
    tuned for the load.

    Attributes:
        quantile, when_none_fits: as in :class:`DeadlineAware`.
    """

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit and request.confidences:
            return ANSWER
        budget_s = request.remaining_s - request.way_home_s(self.quantile)
        return self._deepest_within(budget_s / (1 + node.queue_length / node.workers), exit, node)


@dataclass(frozen=True)
class DeadlineConfidence(ByConfidence):
    """Go on exit by exit until confident enough, or until the next exit would be too late.

    The usual combination: the threshold of BranchyNet (Teerapittayanon et al. 2016) within a
    latency bound as in Edgent (Li, Zhou & Chen 2018). After the node's last exit, the first exit
    of the next tier is the next one, with the way there and back.

    Attributes:
        quantile: of the latencies and the way home; higher is more cautious.
        when_none_fits: before the first exit, if even that would be late: ``earliest_exit``
            computes it all the same; ``drop`` refuses.
    """

    quantile: float = 0.95
    when_none_fits: WhenNoneFits = "earliest_exit"
    _otherwise: Decision = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_quantile(self.quantile)
        object.__setattr__(self, "_otherwise", _WHEN_NONE_FITS[self.when_none_fits])

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit and request.confidence >= self._enough[exit]:
            return ANSWER
        quantile = self.quantile
        budget_s = request.remaining_s - request.way_home_s(quantile)
        if exit < node.exit_count:
            if node.latencies_s(quantile, exit)[0] <= budget_s:
                return _TO_NEXT[exit]
        elif _next_tier_fits(request, node, budget_s, quantile):
            return OFFLOAD
        return ANSWER if exit else self._otherwise


@dataclass(frozen=True)
class Offload(DeadlineConfidence):
    """Finish here or send on: where not confident enough, the next tier computes the rest.

    After each exit: answer if confident enough; else send on if the next tier can compute an exit
    and have its answer back in time; else go on here if the next exit fits; else answer with what
    there is. In the manner of DDNN (Teerapittayanon et al. 2017), Edgent (Li, Zhou & Chen 2018)
    and SPINN (Laskaridis et al. 2020), which send a split network's activations on. What the next
    tier's queue costs is not known, and not counted.

    Attributes:
        quantile, when_none_fits: as in :class:`DeadlineConfidence`.
        raw_input: whether a request may be sent on before its first exit, as it came.
    """

    raw_input: bool = False

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit and request.confidence >= self._enough[exit]:
            return ANSWER
        quantile = self.quantile
        budget_s = request.remaining_s - request.way_home_s(quantile)
        if (exit or self.raw_input) and _next_tier_fits(request, node, budget_s, quantile):
            return OFFLOAD
        if exit < node.exit_count and node.latencies_s(quantile, exit)[0] <= budget_s:
            return _TO_NEXT[exit]
        return ANSWER if exit else self._otherwise


@dataclass(frozen=True)
class Anytime:
    """Go on segment by segment until the deadline cuts it; answer with the last finished exit.

    Anytime prediction (Zilberstein 1996; Huang et al. 2018, section 4): it does not foresee
    whether the next exit fits, but cuts the computation off when an answer must leave to be on
    time. It passes through every exit, and pays for each classifier on its way.

    Attributes:
        quantile: of the way home; higher is more cautious.
        first_exit: ``finish`` computes the first exit however long it takes, so that there is
            always an answer; ``cut`` drops requests without one.
    """

    quantile: float = 0.95
    first_exit: Literal["finish", "cut"] = "finish"
    _may_cut_from: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_quantile(self.quantile)
        object.__setattr__(self, "_may_cut_from", {"finish": 1, "cut": 0}[self.first_exit])

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit < self._may_cut_from:
            return run_to(1)
        budget_s = request.remaining_s - request.way_home_s(self.quantile)
        if budget_s <= 0:
            return ANSWER if exit else DROP
        if exit < node.exit_count:
            return run_to(exit + 1, budget_s)
        return OFFLOAD if _next_tier_fits(request, node, budget_s, self.quantile) else ANSWER


@dataclass(frozen=True)
class Imprecise:
    """Compute the mandatory exits; go on while the next exit fits and nobody waits.

    Imprecise computation (Liu et al. 1991): the segments up to exit ``mandatory`` are the
    mandatory part, which is always computed, and the others are optional parts, shed first; cast
    so for networks by Yao et al. (2020, "Scheduling real-time deep learning services as imprecise
    computations"), whose scheduler also reckons what each optional part is worth. Once begun, an
    optional segment is finished even if a request arrives.

    Attributes:
        mandatory: the exit that every request reaches.
        quantile: of the latencies and the way home; higher is more cautious.
    """

    mandatory: int = 1
    quantile: float = 0.95
    _run: Decision = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_exit("mandatory", self.mandatory)
        _check_quantile(self.quantile)
        object.__setattr__(self, "_run", run_to(self.mandatory))

    def check(self, exit_count: int) -> None:
        """Refuse an exit that the network lacks."""
        _check_exit_exists("mandatory", self.mandatory, exit_count)

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        if exit < self.mandatory:
            if self.mandatory <= node.exit_count or node.next_tier is None:
                return self._run
            return run_to(node.exit_count) if exit < node.exit_count else OFFLOAD
        if exit < node.exit_count and not node.queue_length:
            budget_s = request.remaining_s - request.way_home_s(self.quantile)
            if node.latencies_s(self.quantile, exit)[0] <= budget_s:
                return _TO_NEXT[exit]
        return ANSWER


# --- knowing what cannot be known ----------------------------------------------------------------


@dataclass(frozen=True)
class Oracle:
    """Answer where it is soonest correct, if in time; refuse at once what cannot be.

    It sees which exits classify the sample correctly and how long each will take this request
    (:meth:`sim.policy.RequestView.foresight`); the way home it knows only by its quantile. If no
    exit of the node will do, it sends on what a later exit of the next tier classifies correctly
    and, as far as is known, in time.

    What it bounds: of requests taken from the queue at the same moment, none that it refuses could
    have been answered at this node correctly and in time, and none that it answers could have
    freed its worker earlier with such an answer, on the direct way to an exit. A refusal holds the
    worker for no time at all, so it delays nobody. Hence no policy has a higher AUD at a node
    where requests do not wait for each other; nor behind one FIFO worker, if the soonest correct
    answer takes the same time for every request.

    What it does not bound: policies that serve in another order; that refuse a request which could
    succeed, but takes so long that several others would fail; that answer together, in a batch;
    or that choose among tiers better than it does, one request at a time. Under heavy load with
    unequal times such a policy may do better. With a random way home the statements hold for its
    quantile only.

    Attributes:
        quantile: of the way home, and of what the next tier takes. A low one refuses only what
            would be late even on a quick way home.
    """

    quantile: float = 0.05

    def __post_init__(self) -> None:
        _check_quantile(self.quantile)

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        """See :class:`sim.policy.Policy`."""
        exit = request.exit
        correct, seconds = request.foresight()
        if exit and correct[exit - 1]:
            return ANSWER
        budget_s = request.remaining_s - request.way_home_s(self.quantile)
        soonest = _soonest_correct(exit, correct, seconds, budget_s)
        if soonest:
            return run_to(soonest)
        tier = node.next_tier
        if tier is not None:
            there_s = budget_s - tier.round_trip_s(request, self.quantile)
            if _soonest_correct(exit, correct, tier.latencies_s(self.quantile, exit), there_s):
                return OFFLOAD
        return DROP


def _soonest_correct(
    exit: int, correct: Sequence[bool], seconds: Sequence[float], budget_s: float
) -> int:
    """The correct exit after ``exit`` that is reached first, 0 if none is within the budget."""
    possible = (
        (time_s, later)
        for later, time_s in enumerate(seconds, start=exit + 1)
        if time_s <= budget_s and correct[later - 1]
    )
    return min(possible, default=(0.0, 0))[1]


#: By the name that they have in a scenario.
POLICIES: dict[str, Callable[..., Policy]] = {
    "fixed_exit": FixedExit,
    "full": Full,
    "confidence": Confidence,
    "deadline_aware": DeadlineAware,
    "deadline_confidence": DeadlineConfidence,
    "anytime": Anytime,
    "load_adaptive": LoadAdaptive,
    "offload": Offload,
    "imprecise": Imprecise,
    "oracle": Oracle,
}
