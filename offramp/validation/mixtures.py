"""Samples of several measurements as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.distributions import Floats


def evenly(values: Floats, count: int) -> Floats:
    """So many of the values, evenly over their positions; of few, some more than once."""
    u = (np.arange(count) + 0.5) / max(count, 1)
    return values[(u * len(values)).astype(np.int64)]


def at_rate(samples: Sequence[tuple[float, Floats]], rate_hz: float | None) -> Floats:
    """Samples as they are about at a rate, from those at others: a mixture of the nearest two.

    The less is asked of a host, the longer it takes for each. Weights are linear in the mean time
    between two requests, which is closer to what is measured between two rates than the rate;
    beyond the lowest and the highest it is taken to be as it is there.

    Args:
        samples: rates, in requests per second, with what was measured there: (N,) values, or
            (N, k) parts of values that stay together; may be nothing.
        rate_hz: None where it is not known: then there are as many of each.
    """
    by_rate = dict[float, list[Floats]]()
    for rate, values in sorted(samples, key=lambda pair: -pair[0]):
        if len(values):
            by_rate.setdefault(rate, []).append(values)
    known = [(rate, np.concatenate(it)) for rate, it in by_rate.items()]
    if not known:
        return samples[0][1][:0] if samples else np.zeros(0)
    periods_s = [_period_s(rate) for rate in by_rate]
    each = np.eye(len(known))
    shares = [
        1 / len(known) if rate_hz is None else float(np.interp(_period_s(rate_hz), periods_s, one))
        for one in each
    ]
    count = max(len(it) for _, it in known)
    mixed = []
    for share, (_, values) in zip(shares, known, strict=True):
        # By their quantiles, so that they are distributed as they were.
        order = np.argsort(values.reshape(len(values), -1).sum(axis=1), kind="stable")
        mixed.append(evenly(values[order], round(share * count)))
    return np.concatenate(mixed)


def _period_s(rate_hz: float) -> float:
    """Between two requests; a day where there are none."""
    return 1 / max(rate_hz, 1 / 86400)
