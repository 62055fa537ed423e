"""The profiler: what it times, what it leaves out, and what it says of the host."""

import importlib.util
import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny_networks import DIGITS, TINY

import models.inference.profiler
from models.artifacts import MEASUREMENTS, read_profile, write_profile
from models.inference.fingerprint import fingerprint
from models.inference.profiler import ProfilingSettings, measure_profile, measure_runtime
from models.inference.runtimes import build_runtime
from models.networks.multi_exit import MultiExitNetwork, build_network, exit_costs


@pytest.fixture(scope="module")
def measured(one_thread):
    """A real profile of a tiny network."""
    return measure_profile(TINY, DIGITS, ProfilingSettings((1, 4), repetitions=21, warm_up=3))


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
        "runtime": "eager",
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
START_S = 0.0625
SEGMENT_S = (1.0, 2.0, 4.0)
CLASSIFIER_S = (0.125, 0.25, 0.5)


class ClockedRuntime:
    """Takes known times on a clock of its own; the first ``slow`` inferences a thousandfold."""

    name = "eager"
    exit_count = 3

    def __init__(self, slow=0):
        self.now = 0.0
        self.slow = slow
        self.inferences = []
        self.prepared = False

    def perf_counter(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds * (1000 if len(self.inferences) <= self.slow else 1)

    def prepare_thread(self):
        assert not self.inferences
        self.prepared = True

    def start(self, images):
        assert images.dtype == np.uint8
        assert images.shape[1:] == TINY.input_shape
        self.inferences.append(len(images))
        self.spend(START_S)
        return 0

    def run_segment(self, exit, state):
        assert exit == state + 1
        self.spend(SEGMENT_S[exit - 1])
        return exit

    def classify(self, exit, state):
        assert exit == state
        self.spend(CLASSIFIER_S[exit - 1])
        return [0.5], [0]


@pytest.fixture
def timed(monkeypatch):
    """What a profile with the given settings says of a runtime on the fake clock."""

    def measure(runtime, settings, on_inference=None):
        monkeypatch.setattr(models.inference.profiler, "time", runtime)
        return measure_runtime(runtime, build_network(TINY, 0), settings, on_inference)

    return measure


def test_an_exit_takes_the_segments_before_it_and_its_own_classifier(timed):
    runtime = ClockedRuntime()
    times = timed(runtime, ProfilingSettings((1,), repetitions=2, warm_up=0)).seconds[1]
    assert times["exit"].tolist() == [[1.1875, 3.3125, 7.5625]] * 2
    assert times["segment"].tolist() == [[1.0625, 2.0, 4.0]] * 2, "the image's way in counts"
    assert times["branch"].tolist() == [list(CLASSIFIER_S)] * 2
    assert runtime.prepared


def test_warm_up_is_run_for_each_batch_size_and_not_counted(timed):
    # Each repetition is one inference to each of three exits, and one to all.
    runtime = ClockedRuntime(slow=5 * 4)
    done = []
    settings = ProfilingSettings((2, 1), repetitions=3, warm_up=5)
    profile = timed(runtime, settings, on_inference=done.append)
    for times in profile.seconds.values():
        assert times["exit"].tolist() == [[1.1875, 3.3125, 7.5625]] * 3
        assert times["segment"].tolist() == [[1.0625, 2.0, 4.0]] * 3
    # And one repetition where the size before was another.
    assert runtime.inferences == [2] * (5 * 4) + [1] * (5 * 4) + [2] * (4 * 4) + [1] * (4 * 4)
    assert done == [1, 2, 3, 4, 5, 6], "progress counts what is measured"


def test_batch_sizes_take_turns(timed):
    runtime = ClockedRuntime()
    timed(runtime, ProfilingSettings((1, 4), repetitions=25, warm_up=0))
    turns = [(size, len(list(run)) // 4) for size, run in itertools.groupby(runtime.inferences)]
    assert turns == [(1, 11), (4, 11), (1, 11), (4, 11), (1, 6), (4, 6)]


def test_a_slow_inference_is_kept(timed):
    # The first inference after a warm-up of none: an outlier like any other.
    profile = timed(ClockedRuntime(slow=1), ProfilingSettings((1,), repetitions=3, warm_up=0))
    assert profile.seconds[1]["exit"][:, 0].tolist() == [1187.5, 1.1875, 1.1875]


# --- the runtime that serves ---------------------------------------------------------------------


@pytest.mark.skipif(
    not importlib.util.find_spec("onnxruntime"),
    reason="onnxruntime is not installed: pip install 'offramp[onnx]'",
)
def test_the_runtime_measured_is_the_runtime_recorded(monkeypatch):
    settings = ProfilingSettings((1, 3), repetitions=2, warm_up=0, runtime="onnxruntime")
    built = []

    def spied(*arguments):
        built.append((build_runtime(*arguments), *arguments[2:]))
        return built[-1][0]

    monkeypatch.setattr(models.inference.profiler, "build_runtime", spied)
    profile = measure_profile(TINY, DIGITS, settings)
    ((runtime, inference, batch_sizes),) = built
    assert runtime.name == inference.runtime == "onnxruntime"
    assert batch_sizes == (1, 3)
    assert profile.about["settings"]["runtime"] == "onnxruntime"
    assert profile.about["host"] == fingerprint(1, "fp32", "onnxruntime")
    assert profile.seconds[3]["segment"].shape == (2, 3)


# --- threads, precision, mode --------------------------------------------------------------------


@pytest.fixture
def nothing_but_inference(monkeypatch):
    """Build the network beforehand and count no costs."""
    network = build_network(TINY, 0)
    monkeypatch.setattr(
        models.inference.profiler, "build_network", lambda architecture, seed: network
    )
    monkeypatch.setattr(models.inference.profiler, "exit_costs", lambda network: [])


@pytest.fixture
def during(nothing_but_inference, monkeypatch):
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
    profile = measure_profile(TINY, DIGITS, settings)
    assert {threads for threads, _, _ in during} == {before + 1}
    assert torch.get_num_threads() == before
    assert profile.about["host"]["threads"] == before + 1


def test_threads_are_as_before_when_measuring_fails():
    before = torch.get_num_threads()

    def interrupt(done):
        raise KeyboardInterrupt

    settings = ProfilingSettings((1,), repetitions=2, warm_up=0, threads=before + 1)
    with pytest.raises(KeyboardInterrupt):
        measure_profile(TINY, DIGITS, settings, interrupt)
    assert torch.get_num_threads() == before


def test_inference_is_measured_not_training(during):
    measure_profile(TINY, DIGITS, ProfilingSettings((1,), repetitions=1, warm_up=0))
    assert {(inference, training) for _, inference, training in during} == {(True, False)}
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_precision_measured_is_the_precision_recorded(
    nothing_but_inference, monkeypatch, precision, dtype
):
    dtypes = set()
    classify = MultiExitNetwork.classify

    def spied(self, exit, state):
        logits = classify(self, exit, state)
        dtypes.add(logits.dtype)
        return logits

    monkeypatch.setattr(MultiExitNetwork, "classify", spied)
    settings = ProfilingSettings((1,), repetitions=1, warm_up=0, precision=precision)
    profile = measure_profile(TINY, DIGITS, settings)
    assert dtypes == {dtype}
    assert profile.about["host"]["dtype"] == precision
