"""What queueing theory says of queues that it can solve; nothing here knows of the simulator.

Mean service time is 1 throughout, so that times count services and an arrival rate is a load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy import optimize, stats

# --- waiting ----------------------------------------------------------------------------------


def erlang_c(workers: int, offered: float) -> float:
    """Share of the requests that wait in M/M/c (Erlang 1917)."""
    terms = [offered**k / math.factorial(k) for k in range(workers)]
    last = offered**workers / math.factorial(workers) * workers / (workers - offered)
    return last / (sum(terms) + last)


def pollaczek_khinchine(load: float, cv: float) -> float:
    """Mean wait in M/G/1, given the coefficient of variation of service times."""
    return load * (1 + cv**2) / (2 * (1 - load))


def cobham(loads: Sequence[float]) -> list[float]:
    """Mean wait of each class of M/M/1 that nobody interrupts, the most urgent first (1954)."""
    residual = sum(loads)  # mean work that the one in service has left, times how often
    before = np.cumsum([0.0, *loads])
    return [
        residual / ((1 - more_urgent) * (1 - with_it)) for more_urgent, with_it in pairwise(before)
    ]


def gm1_wait(transform: Callable[[float], float]) -> float:
    """Mean wait in G/M/1, given the Laplace transform of the times between arrivals."""
    waits = optimize.brentq(lambda share: transform(1 - share) - share, 1e-9, 1 - 1e-9)
    return waits / (1 - waits)


def mmpp_m1_wait(generator: np.ndarray, rates: np.ndarray) -> float:
    """Mean wait in MMPP/M/1, by the matrix-geometric solution of its QBD (Neuts 1981).

    Args:
        generator: (M, M) of the phases.
        rates: (M,) of arrivals in each of them.
    """
    up, down = np.diag(rates), np.eye(len(rates))
    stay_inverse = np.linalg.inv(generator - up - down)
    ratio = np.zeros_like(generator)
    while True:  # R = -(A0 + R² A2) A1⁻¹, the least solution, from below
        following = -(up + ratio @ ratio @ down) @ stay_inverse
        if np.abs(following - ratio).max() < 1e-13:
            break
        ratio = following
    beyond = np.linalg.inv(np.eye(len(rates)) - ratio)
    # Balance of the empty node, and probabilities that add up to 1.
    balance = np.column_stack([(generator - up + ratio @ down)[:, 1:], beyond.sum(axis=1)])
    empty = np.linalg.solve(balance.T, np.append(np.zeros(len(rates) - 1), 1.0))
    phases = empty @ beyond
    number = float((empty @ ratio @ beyond @ beyond).sum())
    return number / float(phases @ rates) - 1  # Little, less the service


def on_off_phases(
    devices: int, on_hz: float, off_hz: float, mean_on: float, mean_off: float
) -> tuple[np.ndarray, np.ndarray]:
    """Generator and rates of how many of several on/off devices are on."""
    generator = np.zeros((devices + 1, devices + 1))
    for on in range(devices + 1):
        if on:
            generator[on, on - 1] = on / mean_on
        if on < devices:
            generator[on, on + 1] = (devices - on) / mean_off
    generator -= np.diag(generator.sum(axis=1))
    on = np.arange(devices + 1)
    return generator, on * on_hz + (devices - on) * off_hz


def bulk_md1(load: float, most: int) -> tuple[float, float]:
    """Mean wait and mean batch of M/D/1 that serves up to ``most`` at once, whoever waits.

    By the chain of the numbers left waiting when a service ends (Bailey 1954; here a worker does
    not wait for a batch to fill); each service takes 1 whatever its size.
    """
    states = 400
    come = stats.poisson.pmf(np.arange(states), load)
    chain = np.zeros((states, states))
    left = np.maximum(np.arange(states) - most, 0)
    for waiting in range(states):
        chain[waiting, left[waiting] :] = come[: states - left[waiting]]
    chain[:, -1] += 1 - chain.sum(axis=1)
    share = np.linalg.matrix_power(chain, 2**14)[0]
    cycle = 1 + share[0] / load
    waiting = float((share * (left + load / 2)).sum()) / cycle
    return waiting / load, load * cycle


# --- loss -------------------------------------------------------------------------------------


def erlang_b(workers: int, offered: float) -> float:
    """Share of the requests refused by M/G/c/c, whatever the law of service times."""
    refused = 1.0
    for k in range(1, workers + 1):
        refused = offered * refused / (k + offered * refused)
    return refused


def mmck(workers: int, places: int, offered: float) -> np.ndarray:
    """(places + 1,) share of time with each number in M/M/c/K."""
    weights = [1.0]
    for k in range(1, places + 1):
        weights.append(weights[-1] * offered / min(k, workers))
    return np.array(weights) / sum(weights)


def engset(sources: int, workers: int, think: float) -> float:
    """Share of the requests refused where so many sources think between their requests (1918)."""
    weights = [math.comb(sources - 1, k) / think**k for k in range(workers + 1)]
    return weights[-1] / sum(weights)


# --- networks ---------------------------------------------------------------------------------


def sum_of_exponentials(rates: Sequence[float], time: float) -> float:
    """Probability that a sum of independent exponential times, of different rates, is over."""
    rate = np.array(rates)
    others = [
        np.prod(np.delete(rate, i) / (np.delete(rate, i) - one)) for i, one in enumerate(rate)
    ]
    return 1 - float(np.sum(others * np.exp(-rate * time)))


def mva(think: float, demands: Sequence[float], population: int) -> tuple[float, list[float]]:
    """Throughput and mean times at each station of a closed network.

    Exact mean value analysis (Reiser & Lavenberg 1980), of single exponential workers that serve
    in the order of arrival.
    """
    number, throughput, times = np.zeros(len(demands)), 0.0, np.array(demands)
    for members in range(1, population + 1):
        times = np.array(demands) * (1 + number)
        throughput = members / (think + times.sum())
        number = throughput * times
    return throughput, times.tolist()


def repairmen(population: int, think: float, workers: int) -> float:
    """Throughput of M/M/c//N: so many devices that think, and workers that serve them."""
    weights = [1.0]
    for k in range(1, population + 1):
        weights.append(weights[-1] * (population - k + 1) / think / min(k, workers))
    busy = [min(k, workers) for k in range(population + 1)]
    return float(np.dot(weights, busy) / sum(weights))
