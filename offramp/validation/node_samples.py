"""What a node took besides inference, from runs in which it was asked little and much."""

from __future__ import annotations

import numpy as np

from offramp.validation.calibration import NodeSamples
from offramp.validation.cooling import POINTS_S, cooling_curve_s
from offramp.validation.excess import (
    Spans,
    autocorrelation_of,
    began_at_once,
    disturb_s,
    excess_s,
    found_idle,
    free_before_s,
    receives_s,
    replies_s,
    spans_of,
    undisturbed,
    without_pauses,
)
from offramp.validation.mixtures import at_rate
from offramp.validation.ways import Ways, answered_hz, way_curves_s, ways_of
from sim.distributions import Floats
from sim.nodes.cooling import Cooling
from sim.results.run import Run
from sim.world import World


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

    calm_ways = [
        ways_of(idle, number, from_s, it, usual_s) for number, it in zip(numbers, calm, strict=True)
    ]
    waited, disturb = spans, None
    found = [(it, np.ones(len(it), dtype=bool)) for it in calm]
    found_in = [idle]
    ways = list[Ways]()
    if half is not None:
        idles = [found_idle(it, usual_s) for it in spans]
        warm = [
            ~rows & began_at_once(it, usual_s) if spec.batch_wait_s else ~rows
            for it, rows in zip(spans, idles, strict=True)
        ]
        waited = [it.where(rows) for it, rows in zip(spans, warm, strict=True)]
        # Who came last to a batch says nothing of how long it takes to wake a worker.
        found += [(it, rows & (it.size == 1)) for it, rows in zip(spans, idles, strict=True)]
        found_in += asked
        of_runs = [(run, number) for run in asked for number in numbers]
        ways = [
            ways_of(*of_run, from_s, it, usual_s) for of_run, it in zip(of_runs, spans, strict=True)
        ]
        delays = [
            disturb_s(*of_run, it, rows)
            for of_run, it, rows in zip(of_runs, spans, idles, strict=True)
        ]
        known = [delay_s for delay_s in delays if delay_s is not None]
        disturb = float(np.mean(known)) if known else None
    by_s = max(disturb or 0.0, 0.0)

    def as_asked(parts: list[Floats], runs: list[Run]) -> Floats:
        """Samples of the replicas in some runs, at the rate that is wanted."""
        rates = [answered_hz(run, from_s) for run in runs for _ in numbers]
        return at_rate(list(zip(rates, parts, strict=True)), rate_hz)

    def beyond_s(parts: list[Spans], runs: list[Run]) -> Floats:
        """What inference took beyond the profile."""
        return as_asked([excess_s(it, spec.service) for it in parts], runs)

    waited = [undisturbed(it, by_s) for it in waited]
    alone = [undisturbed(it.where(rows), by_s) for it, rows in found]
    pauses_s = [(it.started_s - free_before_s(it, usual_s))[rows] for it, rows in found]
    begin_curve_s = cooling_curve_s(
        [(pause_s, it.busy_s) for pause_s, it in zip(pauses_s, alone, strict=True)]
    )
    read_curve_s, answer_curve_s = way_curves_s([*calm_ways, *ways])
    curves_s = (read_curve_s, begin_curve_s, answer_curve_s)
    cooling = None
    if any(it.any() for it in curves_s):
        cooling = Cooling(POINTS_S, *(tuple(it.tolist()) for it in curves_s))
    alone = [
        without_pauses(it, pause_s, begin_curve_s)
        for it, pause_s in zip(alone, pauses_s, strict=True)
    ]
    ways = [it.without_pauses(read_curve_s, answer_curve_s) for it in ways]
    begin_s, begin_idle_s = beyond_s(waited, asked), beyond_s(alone, found_in)
    receive_s = as_asked([receives_s(it, spec.batch_wait_s) for it in alone], found_in)
    ingress_s, egress_s = np.zeros(0), np.zeros(0)
    if ways:
        ingress_s = as_asked([it.ingress_busy_s for it in ways], asked)
        egress_s = as_asked([it.egress_busy_s for it in ways], asked)
    # The profiler cannot have been slower than what it measures, but for chance, and so on.
    receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s = (
        np.maximum(it, 0.0) if len(it) else np.zeros(1)
        for it in (receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s)
    )
    # Who found a worker idle takes longer by what is known already.
    alike = autocorrelation_of(max(waited[-spec.replicas :], key=len))
    return NodeSamples(
        receive_s, begin_s, begin_idle_s, reply_s, ingress_s, egress_s, disturb, alike, cooling
    )
