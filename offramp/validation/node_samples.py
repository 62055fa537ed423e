"""What a node took besides inference, from runs in which it was asked little and much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from offramp.validation.calibration import NodeSamples
from offramp.validation.cooling import NodePhase, fitted_cooling, warmed
from offramp.validation.excess import (
    Spans,
    autocorrelation_of,
    began_at_once,
    disturb_s,
    excess_s,
    found_idle,
    pauses_s,
    receives_s,
    replies_s,
    spans_of,
    undisturbed,
)
from offramp.validation.mixtures import at_rate
from offramp.validation.ways import answered_hz, ways_of
from sim.distributions import Floats
from sim.results.run import Run
from sim.world import World

#: Services of a calibration: of one that found the worker idle, and of neither of those that are
#: compared. Who waited is compared with batches of the same size.
_ALONE, _NEITHER = 0, -1
#: So many services after the beginning, what was before does not matter any more; a quarter of few.
_AT_FIRST = 20


def node_samples(
    world: World,
    name: str,
    from_s: float,
    idle: Run,
    half: Run | None,
    busy: Run,
    rate_hz: float | None,
) -> NodeSamples:
    """Samples of a kind of node, whose replicas are taken to be alike.

    Args:
        from_s: when what counts begins, in each run.
        idle: one device asked, and paused.
        half, busy: requests came at random, and kept the worker busy for half of the time, and for
            most of it. No ``half``: nobody knows when a worker was idle, and in ``busy`` all of
            them were busy all the time.
        rate_hz: at which the samples are wanted: what a request takes depends on how often one
            comes, see :func:`at_rate`. None: it is not known.
    """
    kind = world.kind(name)
    spec, numbers = world.nodes[kind], world.nodes_of(kind)
    asked = [run for run in (half, busy) if run is not None]
    spans = [spans_of(run, number, from_s) for run in asked for number in numbers]
    calm = [spans_of(idle, number, from_s) for number in numbers]
    batches = (spec.batch_size, spec.batch_wait_s)
    reply_s = np.concatenate([replies_s(it, spec.workers, *batches) for it in spans])
    usual_s = float(np.median(reply_s)) if len(reply_s) else 0.0

    def phase(run: Run, number: int, it: Spans, alike: NDArray[np.int64]) -> NodePhase:
        # How cold the node was is not known at first.
        first = min(_AT_FIRST, len(it) // 4)
        known = np.where(np.arange(len(it)) < first, _NEITHER, alike)
        ways = ways_of(run, number, from_s, it, usual_s)
        return NodePhase(it, pauses_s(it, usual_s), known, ways)

    quiet = list[NodePhase]()
    for number, it in zip(numbers, calm, strict=True):
        alone = it.size == 1
        if spec.workers == 1:
            alone &= found_idle(it, usual_s)
        quiet.append(phase(idle, number, it, np.where(alone, _ALONE, _NEITHER)))
    loud, disturb = list[NodePhase](), None
    if half is not None:
        delays = list[float | None]()
        of_runs = [(run, number) for run in asked for number in numbers]
        for (run, number), it in zip(of_runs, spans, strict=True):
            is_idle = found_idle(it, usual_s)
            waited = ~is_idle & began_at_once(it, usual_s) if spec.batch_wait_s else ~is_idle
            # Who came last to a batch says nothing of how long it takes to wake a worker.
            alone = is_idle & (it.size == 1)
            compared = np.select([waited, alone], [it.size, _ALONE], _NEITHER)
            loud.append(phase(run, number, it, compared))
            delays.append(disturb_s(run, number, it, is_idle))
        known = [delay_s for delay_s in delays if delay_s is not None]
        disturb = float(np.mean(known)) if known else None
    by_s = max(disturb or 0.0, 0.0)
    quiet, loud = (
        [replace(it, spans=undisturbed(it.spans, by_s)) for it in phases]
        for phases in (quiet, loud)
    )
    cooling = fitted_cooling([*quiet, *loud])
    if cooling is not None:
        quiet, loud = ([warmed(it, cooling) for it in phases] for phases in (quiet, loud))

    def as_asked(parts: list[Floats], runs: list[Run]) -> Floats:
        """Samples of the replicas in some runs, at the rate that is wanted."""
        rates = [answered_hz(run, from_s) for run in runs for _ in numbers]
        return at_rate(list(zip(rates, parts, strict=True)), rate_hz)

    def beyond_s(parts: list[Spans], runs: list[Run]) -> Floats:
        """What inference took beyond the profile."""
        return as_asked([excess_s(it, spec.service) for it in parts], runs)

    found = [it.of(_ALONE) for it in (*quiet, *loud)]
    found_in = [idle, *asked] if loud else [idle]
    busy_spans = [it.spans.where(it.alike > _ALONE) for it in loud] or spans
    begin_s, begin_idle_s = beyond_s(busy_spans, asked), beyond_s(found, found_in)
    receive_s = as_asked([receives_s(it, spec.batch_wait_s) for it in found], found_in)
    ingress_s, egress_s = np.zeros(0), np.zeros(0)
    if loud:
        ingress_s = as_asked([it.ways.ingress_busy_s for it in loud], asked)
        egress_s = as_asked([it.ways.egress_busy_s for it in loud], asked)
    # The profiler cannot have been slower than what it measures, but for chance, and so on.
    receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s = (
        np.maximum(it, 0.0) if len(it) else np.zeros(1)
        for it in (receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s)
    )
    # Who found a worker idle takes longer by what is known already.
    alike = autocorrelation_of(max(busy_spans[-spec.replicas :], key=len))
    return NodeSamples(
        receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s, disturb, alike, cooling
    )
