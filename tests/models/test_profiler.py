"""The profiler: what it times, what it leaves out, and what it says of the host."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_networks import TINY

import models.profiler
from models.artifacts import MEASUREMENTS, read_profile, write_profile
from models.host import fingerprint
from models.multi_exit import MultiExitNetwork, build_network, exit_costs
from models.profiler import ProfilingSettings, measure_profile


@pytest.fixture(scope="module")
def measured(one_thread):
    """A real profile of a tiny network."""
    return measure_profile(TINY, ProfilingSettings((1, 4), repetitions=21, warm_up=3))


# --- real measurements ---------------------------------------------------------------------------


def test_every_repetition_of_every_batch_size_is_kept(measured):
    assert list(measured.seconds) == [1, 4]
    for times in measured.seconds.values():
        shapes = {name: array.shape for name, array in times.items()}
        assert shapes == {"exit": (21, 3), "segment": (21, 3), "branch": (21, 3)}
    assert measured.exit_count == 3


def test_every_time_is_positive_and_finite(measured):
    for times in measured.seconds.values():
        for array in times.values():
            assert np.isfinite(array).all()
            assert (array > 0).all()


def test_the_last_exit_takes_longer_than_the_first(measured):
    for times in measured.seconds.values():
        first, _, last = np.median(times["exit"], axis=0)
        assert last > first


def test_it_says_for_which_network_on_which_host_and_how_it_was_measured(measured):
    assert measured.architecture == TINY.fingerprint()
    assert measured.about["network"] == str(TINY)
    assert measured.about["host"] == fingerprint(1, "fp32")
    assert measured.about["settings"] == {
        "batch_sizes": (1, 4),
        "repetitions": 21,
        "warm_up": 3,
        "threads": 1,
        "precision": "fp32",
    }


def test_it_says_what_every_exit_costs(measured):
    costs = exit_costs(build_network(TINY, 0))
    assert measured.about["exits"] == [asdict(cost) for cost in costs]
    assert [cost["node"] for cost in measured.about["exits"]] == ["relu", "layer1", ""]


def test_a_profile_survives_its_file(measured, tmp_path):
    write_profile(tmp_path / "profile.parquet", measured)
    read = read_profile(tmp_path / "profile.parquet")
    for batch_size, times in measured.seconds.items():
        for name in MEASUREMENTS:
            assert np.array_equal(read.seconds[batch_size][name], times[name])
    assert read.about == json.loads(json.dumps(measured.about))


# --- with a clock that only work moves -----------------------------------------------------------

#: Seconds that a network of three exits takes on the fake clock.
SEGMENT_S = (1.0, 2.0, 4.0)
CLASSIFIER_S = (0.125, 0.25, 0.5)


@pytest.fixture
def nothing_but_measuring(monkeypatch):
    """Build the network beforehand and count no costs: the only inferences left are measured."""
    network = build_network(TINY, 0)
    monkeypatch.setattr(models.profiler, "build_network", lambda architecture, seed: network)
    monkeypatch.setattr(models.profiler, "exit_costs", lambda network: [])


@pytest.fixture
def slow_first_inferences(nothing_but_measuring, monkeypatch):
    """Replace the clock: segments and classifiers take known times, the first inferences longer.

    Returns the settable number of leading inferences (calls of the first segment) that are slow,
    and the batch sizes of all inferences, in order.
    """
    state = SimpleNamespace(now=0.0, slow=0, inferences=[])
    run_segment, classify = MultiExitNetwork.run_segment, MultiExitNetwork.classify

    def factor():
        return 1000 if len(state.inferences) <= state.slow else 1

    def timed_segment(self, exit, before):
        if exit == 1:
            state.inferences.append(len(before[0]))
        state.now += SEGMENT_S[exit - 1] * factor()
        return run_segment(self, exit, before)

    def timed_classify(self, exit, reached):
        state.now += CLASSIFIER_S[exit - 1] * factor()
        return classify(self, exit, reached)

    monkeypatch.setattr(MultiExitNetwork, "run_segment", timed_segment)
    monkeypatch.setattr(MultiExitNetwork, "classify", timed_classify)
    monkeypatch.setattr(models.profiler, "time", SimpleNamespace(perf_counter=lambda: state.now))
    return state


def test_an_exit_takes_the_segments_before_it_and_its_own_classifier(slow_first_inferences):
    profile = measure_profile(TINY, ProfilingSettings((1,), repetitions=2, warm_up=0))
    times = profile.seconds[1]
    assert times["exit"].tolist() == [[1.125, 3.25, 7.5]] * 2
    assert times["segment"].tolist() == [list(SEGMENT_S)] * 2
    assert times["branch"].tolist() == [list(CLASSIFIER_S)] * 2


def test_warm_up_is_run_for_each_batch_size_and_not_counted(slow_first_inferences):
    # Each repetition is one inference to each of three exits, and one to all.
    slow_first_inferences.slow = 5 * 4
    done = []
    settings = ProfilingSettings((2, 1), repetitions=3, warm_up=5)
    profile = measure_profile(TINY, settings, on_inference=done.append)
    for times in profile.seconds.values():
        assert times["exit"].tolist() == [[1.125, 3.25, 7.5]] * 3
        assert times["segment"].tolist() == [list(SEGMENT_S)] * 3
    assert slow_first_inferences.inferences == [2] * (8 * 4) + [1] * (8 * 4)
    assert done == [1, 2, 3, 4, 5, 6], "progress counts what is measured"


def test_a_slow_inference_is_kept(slow_first_inferences):
    # The first inference after a warm-up of none: an outlier like any other.
    slow_first_inferences.slow = 1
    profile = measure_profile(TINY, ProfilingSettings((1,), repetitions=3, warm_up=0))
    assert profile.seconds[1]["exit"][:, 0].tolist() == [1125, 1.125, 1.125]


# --- threads, precision, mode --------------------------------------------------------------------


@pytest.fixture
def during(nothing_but_measuring, monkeypatch):
    """What holds while a segment is computed: threads, gradients, mode of the network."""
    seen = []
    run_segment = MultiExitNetwork.run_segment

    def spied(self, exit, state):
        made = run_segment(self, exit, state)
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))
        return made

    monkeypatch.setattr(MultiExitNetwork, "run_segment", spied)
    return seen


def test_threads_are_those_of_the_settings_while_measuring_and_as_before_after(during):
    before = torch.get_num_threads()
    settings = ProfilingSettings((1,), repetitions=2, warm_up=1, threads=before + 1)
    profile = measure_profile(TINY, settings)
    assert {threads for threads, _, _ in during} == {before + 1}
    assert torch.get_num_threads() == before
    assert profile.about["host"]["threads"] == before + 1


def test_threads_are_as_before_when_measuring_fails():
    before = torch.get_num_threads()

    def interrupt(done):
        raise KeyboardInterrupt

    settings = ProfilingSettings((1,), repetitions=2, warm_up=0, threads=before + 1)
    with pytest.raises(KeyboardInterrupt):
        measure_profile(TINY, settings, interrupt)
    assert torch.get_num_threads() == before


def test_inference_is_measured_not_training(during):
    measure_profile(TINY, ProfilingSettings((1,), repetitions=1, warm_up=0))
    assert {(inference, training) for _, inference, training in during} == {(True, False)}
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_precision_measured_is_the_precision_recorded(
    nothing_but_measuring, monkeypatch, precision, dtype
):
    dtypes = set()
    classify = MultiExitNetwork.classify

    def spied(self, exit, state):
        logits = classify(self, exit, state)
        dtypes.add(logits.dtype)
        return logits

    monkeypatch.setattr(MultiExitNetwork, "classify", spied)
    settings = ProfilingSettings((1,), repetitions=1, warm_up=0, precision=precision)
    profile = measure_profile(TINY, settings)
    assert dtypes == {dtype}
    assert profile.about["host"]["dtype"] == precision
