"""Every runtime says what the network says, of single images and batches, resumed and at once."""

import copy
import logging
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import util

import numpy as np
import pytest
import torch
from tiny_networks import DIGITS, TINY, TINY_CONV, changed, state_of
from torch._inductor import config as inductor

from models.data.augmentation import normalise
from models.data.datasets import DatasetInfo
from models.errors import NetworkError
from models.inference.onnx_runtime import OnnxRuntime
from models.inference.runtimes import RUNTIMES, InferenceSettings, build_runtime, warm_up
from models.networks.architecture import Architecture, code_hash
from models.networks.multi_exit import build_network

COLOUR = DatasetInfo("colour", 5, (3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 1, False)

#: Cuts between blocks, and inside them, where more than the activation travels.
ARCHITECTURES = {
    "between blocks": TINY,
    "branches with batch norm": TINY_CONV,
    "inside blocks": Architecture(
        "resnet8", ("layer1.0.conv1", "layer2.0.relu_1"), "linear", 5, (3, 8, 8)
    ),
    "a dense block": Architecture(
        "densenet_bc_40_12", ("features.denseblock2.denselayer3.conv2",), "linear", 5, (3, 8, 8)
    ),
    "several scales": Architecture(
        "msdnet4_budgeted", ("blocks.0", "blocks.1"), "linear", 5, (3, 8, 8)
    ),
    "resized images": Architecture("resnet8", ("layer1",), "linear", 10, (1, 8, 8), resize=12),
}

#: A user's network, cut where sizes, tuples, a constant and windows of attention travel.
EXOTIC = '''
import torch
from torch import nn
from torch.nn import functional as F


class Exotic(nn.Module):
    """Exits inside: after `first`, `window`, `swapped` and `dropped`."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ReLU()
        self.places = nn.Parameter(torch.linspace(-1, 1, 8 * 16).view(1, 16, 8))
        self.window = nn.Linear(8, 8)
        self.swapped = nn.Linear(8, 8)
        self.dropped = nn.Dropout(0.5)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        size = x.shape
        images = x.shape[0]
        windows = images * 4
        places = self.places * 2
        x = self.conv(x)
        halves = torch.chunk(x, 2, dim=1)
        x = self.first(x)
        tokens = x.view(images, 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(windows, 16, 8)
        seen = tokens * places
        beside = self.swapped(seen.mean(1).view(images, 4, 8)).transpose(0, 1)
        pooled = self.window(seen.view(images, -1, 8).mean(1))
        x = pooled + halves[0].mean((1, 2, 3)).view(images, 1)
        brightness = seen.view(windows, 128).mean(1).view(-1, 4).mean(1, True)
        x = self.dropped(x) + beside.mean(0) + brightness
        x = x * size[2] + torch.cat(halves[0:2], dim=1).mean((2, 3))
        return self.fc(x + places.mean())
'''
EXOTIC_EXITS = ("first", "swapped", "window", "dropped")


@pytest.fixture(scope="module")
def exotic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exotic")
    (folder / "exotic.py").write_text(EXOTIC)
    return {
        "exotic": users_architecture(folder, "exotic.py:Exotic", EXOTIC_EXITS),
        "exotic, three exits": users_architecture(folder, "exotic.py:Exotic", EXOTIC_EXITS[1:3]),
    }


def users_architecture(folder, backbone, exits):
    code = code_hash(backbone, folder)
    return Architecture(backbone, exits, "linear", 5, (3, 8, 8), code=code, folder=folder)


def info_of(architecture):
    return DIGITS if architecture.input_shape == (1, 8, 8) else COLOUR


def trained_network(architecture):
    """A network whose batch-norm statistics have moved, and with an opinion."""
    network = build_network(architecture, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.train()(torch.randn(16, *architecture.input_shape, generator=generator) + 0.5)
        for exit in range(1, network.exit_count + 1):
            for layer in network.classifier(exit):
                for parameter in layer.parameters():
                    parameter.mul_(3)
    return network.eval()


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def said(network, info, images):
    """Confidences and classes (N, exits), from the network itself."""
    pixels = normalise(torch.from_numpy(images), info).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        logits = network(pixels)
    found = [torch.softmax(one.float(), dim=1).max(dim=1) for one in logits]
    return (
        np.stack([one.values.numpy() for one in found], axis=1),
        np.stack([one.indices.numpy() for one in found], axis=1),
    )


def answers(runtime, state, since=0):
    """Confidences and classes (N, exits beyond ``since``) of a state at exit ``since``."""
    found = []
    for exit in range(since + 1, runtime.exit_count + 1):
        state = runtime.run_segment(exit, state)
        found.append(runtime.classify(exit, state))
    confidences, classes = zip(*found, strict=True)
    return np.array(confidences).T, np.array(classes).T


def agree(found, expected, rows=slice(None), since=0):
    np.testing.assert_allclose(found[0], expected[0][rows, since:], rtol=0, atol=1e-4)
    assert np.array_equal(found[1], expected[1][rows, since:])


def needs_installed(runtime):
    if runtime == "onnxruntime" and not util.find_spec("onnxruntime"):
        pytest.skip("onnxruntime is not installed: pip install 'offramp[onnx]'")
    if runtime == "compile" and not any(map(shutil.which, (os.environ.get("CXX", ""), "g++"))):
        pytest.skip("there is no C++ compiler: apt install g++")


# --- agreement -----------------------------------------------------------------------------------


class Case:
    """A network, a runtime built for it, images, and what the network says of them."""

    def __init__(self, runtime, architecture, precision="fp32"):
        self.network = trained_network(architecture)
        self.info = info_of(architecture)
        settings = InferenceSettings(runtime, precision)
        self.runtime = build_runtime(self.network, self.info, settings, (1, 2))
        self.images = noise(6, architecture.input_shape, seed=5)
        self.expected = said(self.network, self.info, self.images)


# Compilers take long: they are given the networks in which most kinds of values travel.
CASES = [
    *(("eager", name) for name in (*ARCHITECTURES, "exotic")),
    *(("onnxruntime", name) for name in (*ARCHITECTURES, "exotic") if name != "several scales"),
    ("compile", "exotic, three exits"),
]


@pytest.fixture(scope="module", params=CASES, ids=", ".join)
def built(request, exotic, one_thread):
    runtime, name = request.param
    needs_installed(runtime)
    return Case(runtime, (ARCHITECTURES | exotic)[name])


@pytest.fixture
def case(built):
    """Whatever a test asks of a runtime, nothing is compiled any more."""
    with torch.compiler.set_stance("fail_on_recompile"):
        yield built


def test_the_exits_of_these_networks_are_where_they_are_meant_to_be(exotic):
    for architecture in (ARCHITECTURES | exotic).values():
        network = trained_network(architecture)
        confidences, _ = said(network, info_of(architecture), noise(6, architecture.input_shape))
        assert (confidences.std(axis=0) > 1e-3).all(), "answers that differ between images"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_exit_says_what_the_network_says(case, count):
    state = case.runtime.start(case.images[:count])
    agree(answers(case.runtime, state), case.expected, slice(count))


def test_answers_are_python_numbers_one_for_each_image(case):
    state = case.runtime.run_segment(1, case.runtime.start(case.images[:3]))
    confidences, classes = case.runtime.classify(1, state)
    assert [type(one) for one in confidences] == [float] * 3
    assert [type(one) for one in classes] == [int] * 3
    assert all(0 < one <= 1 for one in confidences)


def test_exits_that_nobody_asks_for_need_not_be_computed(case):
    state = case.runtime.start(case.images[:2])
    for exit in range(1, case.runtime.exit_count + 1):
        state = case.runtime.run_segment(exit, state)
    confidences, classes = case.runtime.classify(case.runtime.exit_count, state)
    np.testing.assert_allclose(confidences, case.expected[0][:2, -1], rtol=0, atol=1e-4)
    assert classes == case.expected[1][:2, -1].tolist()


def test_states_join_and_are_taken_apart_at_every_exit(case):
    states = [
        case.runtime.start(case.images[rows]) for rows in (slice(1), slice(1, 3), slice(3, 6))
    ]
    for exit in range(case.runtime.exit_count):
        joined = case.runtime.join(states)
        agree(answers(case.runtime, joined, exit), case.expected, since=exit)
        chosen = case.runtime.take(joined, [4, 0, 5])
        agree(answers(case.runtime, chosen, exit), case.expected, [4, 0, 5], exit)
        alone = case.runtime.take(joined, [2])
        agree(answers(case.runtime, alone, exit), case.expected, [2], exit)
        states = [case.runtime.run_segment(exit + 1, state) for state in states]


def test_a_state_can_be_resumed_later_and_more_than_once(case):
    for exit in range(1, case.runtime.exit_count):
        state = case.runtime.start(case.images[:2])
        for segment in range(1, exit + 1):
            state = case.runtime.run_segment(segment, state)
        case.runtime.classify(exit, state)
        answers(case.runtime, case.runtime.start(case.images[2:4]))  # others in between
        for _ in range(2):
            agree(answers(case.runtime, state, exit), case.expected, slice(2), exit)


def test_threads_compute_side_by_side(case):
    begin = threading.Barrier(4)

    def work(thread):
        case.runtime.prepare_thread()
        begin.wait(timeout=30)
        for turn in range(12):
            count = 1 + (thread + turn) % 3
            rows = slice(thread % 3, thread % 3 + count)
            found = answers(case.runtime, case.runtime.start(case.images[rows]))
            agree(found, case.expected, rows)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_images_may_be_views_and_read_only(case):
    turned = np.ascontiguousarray(case.images[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]
    assert not turned.flags.c_contiguous
    agree(answers(case.runtime, case.runtime.start(turned[:2])), case.expected, slice(2))
    shape = case.images[:1].shape
    received = np.frombuffer(b"." + case.images[:1].tobytes(), np.uint8, offset=1).reshape(shape)
    assert not received.flags.writeable
    agree(answers(case.runtime, case.runtime.start(received)), case.expected, slice(1))


def test_it_has_a_name_and_a_number_of_exits(case):
    assert case.runtime.name in RUNTIMES
    assert case.runtime.exit_count == case.network.exit_count


def test_the_network_itself_is_left_as_it_was(one_thread):
    for runtime in ("eager", "onnxruntime"):
        needs_installed(runtime)
        network = trained_network(TINY).train()
        before = copy.deepcopy(state_of(network))
        built = build_runtime(network, DIGITS, InferenceSettings(runtime))
        assert not changed(before, state_of(network))
        assert network.training
        images = noise(1, TINY.input_shape)
        expected = answers(built, built.start(images))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        again = answers(built, built.start(images))
        assert np.array_equal(expected[0], again[0]), "and what is served does not follow it"


# --- precision -----------------------------------------------------------------------------------


def test_bf16_is_what_autocast_computes():
    case = Case("eager", TINY_CONV, "bf16")
    case.network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = said(case.network, case.info, case.images)
    found, _ = answers(case.runtime, case.runtime.start(case.images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - case.expected[0]).max() > 1e-4, "which is not fp32"


def test_onnxruntime_refuses_bf16():
    needs_installed("onnxruntime")
    with pytest.raises(NetworkError, match="'onnxruntime' computes in fp32, not bf16"):
        build_runtime(trained_network(TINY), DIGITS, InferenceSettings("onnxruntime", "bf16"))


# --- the compiler --------------------------------------------------------------------------------


def test_without_a_compiler_it_says_what_to_do(tmp_path, monkeypatch):
    # Whatever was compiled before must not help.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(NetworkError, match=r"needs a C\+\+ compiler .* or use runtime 'eager'"),
    ):
        build_runtime(trained_network(TINY), DIGITS, InferenceSettings("compile"))


# --- what cannot be built ------------------------------------------------------------------------


def test_an_unknown_runtime():
    with pytest.raises(NetworkError, match="'tensorrt' \\(allowed: eager, compile, onnxruntime"):
        build_runtime(trained_network(TINY), DIGITS, InferenceSettings("tensorrt"))


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_a_runtime_that_is_not_installed(missing, monkeypatch):
    needs_installed("onnxruntime")
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(NetworkError, match=rf"{missing}.*pip install 'offramp\[onnx\]'"):
        build_runtime(trained_network(TINY), DIGITS, InferenceSettings("onnxruntime"))


CANNOT_BE_EXPORTED = """
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.fc(torch.special.modified_bessel_i1(x).mean((2, 3)))
"""


def test_a_network_that_cannot_be_exported_names_the_segment(tmp_path):
    needs_installed("onnxruntime")
    (tmp_path / "odd.py").write_text(CANNOT_BE_EXPORTED)
    network = trained_network(users_architecture(tmp_path, "odd.py:Odd", ("relu",)))
    with pytest.raises(NetworkError) as caught:
        build_runtime(network, COLOUR, InferenceSettings("onnxruntime"))
    assert "segment 2 of odd.py:Odd cannot be exported to ONNX" in str(caught.value)
    assert "modified_bessel_i1" in str(caught.value)
    assert str(caught.value).endswith("Use runtime 'eager'.")


def test_an_export_that_says_something_else_is_not_used(monkeypatch):
    needs_installed("onnxruntime")
    classify = OnnxRuntime.classify

    def wrong(self, exit, state):
        confidences, classes = classify(self, exit, state)
        return [one - (0.01 if exit == 2 else 0) for one in confidences], classes

    monkeypatch.setattr(OnnxRuntime, "classify", wrong)
    with pytest.raises(NetworkError, match=r"exit 2 answers 1 image\(s\) with confidence"):
        build_runtime(trained_network(TINY), DIGITS, InferenceSettings("onnxruntime"))


CANNOT_BE_COMPILED = """
import torch
from torch import nn


def halved(x):
    return x / 2 if float(x.sum()) > 0 else x


torch.fx.wrap("halved")


class Branching(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.relu(self.conv(halved(x))).mean((2, 3)))
"""


def test_a_network_that_cannot_be_compiled_names_the_segment(tmp_path):
    needs_installed("compile")
    (tmp_path / "odd.py").write_text(CANNOT_BE_COMPILED)
    network = trained_network(users_architecture(tmp_path, "odd.py:Branching", ("relu",)))
    with pytest.raises(NetworkError) as caught:
        build_runtime(network, COLOUR, InferenceSettings("compile"))
    assert str(caught.value).startswith("torch.compile cannot compile segment 1 of this network: ")
    assert str(caught.value).endswith("\nUse runtime 'eager'.")


MIXES_IMAGES = """
from torch import nn


class Mixing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.first = nn.ReLU()
        self.second = nn.ReLU()
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.conv(x)
        # The windows of all images side by side: the first of each image, then the second.
        windows = x.unflatten(2, (2, 3)).permute(2, 0, 1, 3, 4).flatten(0, 1)
        mean = windows.unflatten(0, (2, -1)).mean((0, 3, 4))
        x = self.first(x + mean[:, :, None, None])
        return self.fc(self.second(x).mean((2, 3)) + windows.unflatten(0, (2, -1)).mean((0, 3, 4)))
"""


def test_a_state_whose_images_cannot_be_told_apart(tmp_path):
    (tmp_path / "mixing.py").write_text(MIXES_IMAGES)
    network = trained_network(users_architecture(tmp_path, "mixing.py:Mixing", ("first", "second")))
    with pytest.raises(NetworkError, match="at exit 1 a value of the state mixes the images"):
        build_runtime(network, COLOUR, InferenceSettings())


def test_weights_that_are_no_numbers(one_thread):
    network = trained_network(TINY)
    with torch.no_grad():
        next(iter(network.branch(2).parameters())).fill_(float("nan"))
    with pytest.raises(NetworkError, match="exit 2 answers with confidence nan"):
        build_runtime(network, DIGITS, InferenceSettings())


# --- what it leaves alone ------------------------------------------------------------------------


def test_an_export_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    needs_installed("onnxruntime")
    monkeypatch.chdir(tmp_path)
    levels = {name: logging.getLogger(name).level for name in ("torch", "onnxscript", "onnx_ir")}
    build_runtime(trained_network(TINY), DIGITS, InferenceSettings("onnxruntime"))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert levels == {name: logging.getLogger(name).level for name in levels}


def test_an_export_that_fails_prints_nothing_and_takes_no_others_words(tmp_path, capsys):
    needs_installed("onnxruntime")
    (tmp_path / "odd.py").write_text(CANNOT_BE_COMPILED)
    network = trained_network(users_architecture(tmp_path, "odd.py:Branching", ("relu",)))
    done = threading.Event()
    said = []

    def talk():
        while not done.wait(0.001):
            print("still here")
            said.append(True)

    other = threading.Thread(target=talk)
    other.start()
    try:
        with pytest.raises(NetworkError, match=r"segment 1 of .* cannot be exported"):
            build_runtime(network, COLOUR, InferenceSettings("onnxruntime"))
    finally:
        done.set()
        other.join()
    printed = capsys.readouterr()
    assert set(printed.out.split("\n")) == {"still here", ""}
    assert printed.err == ""
    assert printed.out.count("still here") == len(said) > 0


def test_threads_are_as_before_once_built_and_as_set_where_prepared():
    before = torch.get_num_threads()
    runtime = build_runtime(trained_network(TINY), DIGITS, InferenceSettings(threads=before + 1))
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runtime.prepare_thread).result()
        assert pool.submit(torch.get_num_threads).result() == before + 1
    torch.set_num_threads(before)


def test_threads_of_onnxruntime_that_have_nothing_to_do_take_no_time():
    needs_installed("onnxruntime")
    settings = InferenceSettings("onnxruntime", threads=3)
    runtime = build_runtime(trained_network(TINY), DIGITS, settings)
    answers(runtime, runtime.start(noise(1, TINY.input_shape)))
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25


def test_it_is_warmed_up_at_every_exit_and_batch_size():
    class Recorder:
        exit_count = 2

        def __init__(self):
            self.done = []

        def start(self, images):
            assert images.dtype == np.uint8
            return images

        def run_segment(self, exit, state):
            return state

        def classify(self, exit, state):
            self.done.append((exit, state.shape))
            return [0.5] * len(state), [0] * len(state)

    recorder = Recorder()
    warm_up(recorder, (3, 4, 4), (1, 8), rounds=2)
    assert recorder.done == [
        *[(1, (1, 3, 4, 4)), (2, (1, 3, 4, 4))] * 2,
        *[(1, (8, 3, 4, 4)), (2, (8, 3, 4, 4))] * 2,
    ]
