"""A bad scenario gets one clear message: file, line, key, what was given and what is allowed.

Every row runs ``offramp run``: status 2, one line on stderr, nothing printed, nothing written.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

INF, NAN = math.inf, math.nan
UP, DOWN = "links.wifi.uplink", "links.wifi.downlink"
CAMERAS = "devices.cameras"

#: Words of the machinery, which say nothing to someone who writes YAML.
JARGON = ("Input should", "after validation", "not supported between", "Dictionary", "Traceback")


# (changes to the tiny scenario; the key that the message names; what else it says)
Row = tuple[dict[str, Any], str, list[str]]

UNKNOWN_KEYS: list[Row] = [
    ({"nmae": 1}, "nmae", ["unknown key", "did you mean 'name'?", "allowed: name, description"]),
    ({"data.datset": "digits"}, "data.datset", ["unknown key", "'dataset'"]),
    ({"model.exit": ["relu"]}, "model.exit", ["unknown key", "'exits'", "allowed: backbone"]),
    ({"model.exits": {"at_flop": [0.4]}}, "model.exits.at_flop", ["unknown key", "'at_flops'"]),
    ({"data.label_noise": {"percent": 20}}, "data.label_noise.percent", ["symmetric_percent"]),
    ({"training.step": 5}, "training.step", ["unknown key", "'steps'", "learning_rate"]),
    ({"training.pacing": {"full": 1}}, "training.pacing.full", ["'full_at'", "increase"]),
    ({"training.scoring.fold": 2}, "training.scoring.fold", ["'folds'", "allowed: function"]),
    ({"profile.thread": 1}, "profile.thread", ["'threads'", "repetitions"]),
    (
        {"links.wifi.up_link": {}},
        "links.wifi.up_link",
        ["'uplink'", "allowed: preset, shared_by, uplink"],
    ),
    ({f"{UP}.latency": 1}, f"{UP}.latency", ["'latency_ms'", "bandwidth_mbps"]),
    ({"nodes.edge.speeed": 1}, "nodes.edge.speeed", ["'speed'", "allowed: workers"]),
    ({f"{CAMERAS}.cuont": 1}, f"{CAMERAS}.cuont", ["'count'", "deadline_ms"]),
    ({f"{CAMERAS}.arrivals.rate": 1}, f"{CAMERAS}.arrivals.rate", ["'rate_hz'"]),
    ({"simulation.duration": 1}, "simulation.duration", ["'duration_s'", "replications"]),
    (
        {f"{DOWN}.latency_ms": {"distribution": "uniform", "lo": 1, "high": 2}},
        f"{DOWN}.latency_ms.lo",
        ["unknown key", "'low'", "allowed: distribution, low, high"],
    ),
    ({"zzz": 1}, "zzz", ["unknown key", "allowed: name"]),
]

WRONG_TYPES: list[Row] = [
    ({"training.steps": "five"}, "training.steps", ["given 'five'", "integer"]),
    ({"training.steps": "5"}, "training.steps", ["given '5'", "integer"]),
    ({"training.steps": 5.0}, "training.steps", ["given 5.0", "integer"]),
    ({"training.steps": True}, "training.steps", ["given True", "integer"]),
    ({"training.steps": None}, "training.steps", ["given nothing", "integer"]),
    ({"training.steps": [5]}, "training.steps", ["given [5]", "integer"]),
    ({f"{CAMERAS}.count": 2.5}, f"{CAMERAS}.count", ["given 2.5", "integer"]),
    ({f"{CAMERAS}.arrivals.rate_hz": "12"}, f"{CAMERAS}.arrivals.rate_hz", ["'12'", "number"]),
    ({f"{CAMERAS}.arrivals.rate_hz": True}, f"{CAMERAS}.arrivals.rate_hz", ["True", "number"]),
    ({f"{CAMERAS}.deadline_ms": "soon"}, f"{CAMERAS}.deadline_ms", ["given 'soon'", "number"]),
    ({f"{CAMERAS}.deadline_ms": [40]}, f"{CAMERAS}.deadline_ms", ["given [40]", "number"]),
    ({f"{CAMERAS}.deadline_ms": None}, f"{CAMERAS}.deadline_ms", ["given nothing", "number"]),
    ({f"{CAMERAS}.link": 3}, f"{CAMERAS}.link", ["given 3", "text"]),
    ({"training.augment": 1}, "training.augment", ["given 1", "true or false"]),
    ({"training.augment": "yes"}, "training.augment", ["given 'yes'", "true or false"]),
    ({"model.exits": "layer1"}, "model.exits", ["given 'layer1'", "list"]),
    ({"model.exits": [1]}, "model.exits.0", ["given 1", "text"]),
    ({"model.exits": {"at_flops": 0.4}}, "model.exits.at_flops", ["given 0.4", "list"]),
    ({"model.exits": {"at_flops": ["a"]}}, "model.exits.at_flops.0", ["given 'a'", "number"]),
    ({"model.resize": 16.5}, "model.resize", ["given 16.5", "integer"]),
    ({"model.weights": 3}, "model.weights", ["given 3", "text"]),
    ({"data.mean": 0.3}, "data.mean", ["given 0.3", "list"]),
    ({"data.label_noise": 20}, "data.label_noise", ["given 20", "mapping"]),
    ({"training.scoring.per_exit": "no"}, "training.scoring.per_exit", ["'no'", "true or false"]),
    ({"training.gradient_equilibrium": 1}, "training.gradient_equilibrium", ["true or false"]),
    ({"training.strategies": "standard"}, "training.strategies", ["given 'standard'", "list"]),
    ({"data": "digits"}, "data", ["given 'digits'", "mapping"]),
    ({"training": ["steps"]}, "training", ["given ['steps']", "mapping"]),
    ({"links": ["wifi"]}, "links", ["given ['wifi']", "mapping"]),
    ({"links": None}, "links", ["given nothing", "mapping"]),
    ({"links.wifi": None}, "links.wifi", ["given nothing", "mapping"]),
    ({"nodes.edge": 3}, "nodes.edge", ["given 3", "mapping"]),
    ({"policies": {"policy": "confidence"}}, "policies", ["list"]),
    ({"policies": "confidence"}, "policies", ["given 'confidence'", "list"]),
    ({"policies": [3]}, "policies.0", ["given 3", "mapping"]),
    ({"policies": [None]}, "policies.0", ["given nothing", "mapping"]),
    ({"name": 5}, "name", ["given 5", "text"]),
    ({"description": None}, "description", ["given nothing", "text"]),
    ({"seed": "one"}, "seed", ["given 'one'", "integer"]),
    ({"training.seeds": "two"}, "training.seeds", ["given 'two'", "integer", "list"]),
    ({"training.seeds": 1.5}, "training.seeds", ["given 1.5", "integer", "list"]),
    ({"training.seeds": True}, "training.seeds", ["given True", "integer", "list"]),
    ({"training.seeds": [1, "a"]}, "training.seeds.1", ["given 'a'", "integer"]),
]

OUT_OF_RANGE: list[Row] = [
    ({"training.steps": 0}, "training.steps", ["given 0", "1"]),
    ({"training.steps": -5}, "training.steps", ["given -5", "1"]),
    ({"training.seeds": 0}, "training.seeds", ["given 0", "1"]),
    ({"training.seeds": []}, "training.seeds", ["given []"]),
    ({"training.seeds": [-1]}, "training.seeds.0", ["given -1", "0"]),
    ({"training.strategies": []}, "training.strategies", ["given []"]),
    ({"training.learning_rate": 0}, "training.learning_rate", ["given 0", "greater than 0"]),
    ({"training.learning_rate": INF}, "training.learning_rate", ["given inf", "finite"]),
    ({"training.momentum": 1}, "training.momentum", ["given 1", "less than 1"]),
    ({"training.scoring.folds": 1}, "training.scoring.folds", ["given 1", "2"]),
    ({"training.activation_store_gb": -1}, "training.activation_store_gb", ["given -1", "0"]),
    ({"training.backbone_steps": 0}, "training.backbone_steps", ["given 0", "1"]),
    ({"training.pacing.full_at": 0}, "training.pacing.full_at", ["given 0", "greater than 0"]),
    ({"training.pacing.increase": 1}, "training.pacing.increase", ["given 1", "greater than 1"]),
    (
        {"training.pacing.increases_at": [1.5]},
        "training.pacing.increases_at.0",
        ["given 1.5", "less than or equal to 1"],
    ),
    ({"data.std": [0]}, "data.std.0", ["given 0", "greater than 0"]),
    ({"model.exits": {"at_flops": []}}, "model.exits.at_flops", ["given []", "list"]),
    ({"model.exits": {"at_flops": [0]}}, "model.exits.at_flops.0", ["given 0", "than 0"]),
    ({"model.exits": {"at_flops": [1]}}, "model.exits.at_flops.0", ["given 1", "less than 1"]),
    ({"model.resize": 7}, "model.resize", ["given 7", "8"]),
    ({"data.validation_fraction": 1}, "data.validation_fraction", ["given 1", "less than 1"]),
    ({f"{CAMERAS}.arrivals.rate_hz": 0}, f"{CAMERAS}.arrivals.rate_hz", ["given 0", "than 0"]),
    ({f"{CAMERAS}.arrivals.rate_hz": -3}, f"{CAMERAS}.arrivals.rate_hz", ["given -3"]),
    ({f"{CAMERAS}.arrivals.rate_hz": NAN}, f"{CAMERAS}.arrivals.rate_hz", ["nan", "finite"]),
    ({f"{CAMERAS}.arrivals.rate_hz": INF}, f"{CAMERAS}.arrivals.rate_hz", ["inf", "finite"]),
    ({f"{CAMERAS}.deadline_ms": 0}, f"{CAMERAS}.deadline_ms", ["above 0"]),
    ({f"{CAMERAS}.deadline_ms": -5}, f"{CAMERAS}.deadline_ms", ["given -5"]),
    ({f"{CAMERAS}.deadline_ms": NAN}, f"{CAMERAS}.deadline_ms", ["given nan", "finite"]),
    ({f"{CAMERAS}.deadline_ms": INF}, f"{CAMERAS}.deadline_ms", ["given inf", "finite"]),
    ({f"{CAMERAS}.deadline_ms": 10**400}, f"{CAMERAS}.deadline_ms", ["given 1000", "number"]),
    ({f"{CAMERAS}.count": 0}, f"{CAMERAS}.count", ["given 0", "1"]),
    ({f"{UP}.latency_ms": -1}, f"{UP}.latency_ms", ["given -1", "0"]),
    ({f"{UP}.jitter_ms": -1}, f"{UP}.jitter_ms", ["given -1", "0"]),
    ({f"{UP}.bandwidth_mbps": 0}, f"{UP}.bandwidth_mbps", ["given 0", "greater than 0"]),
    ({"nodes.edge.speed": 0}, "nodes.edge.speed", ["given 0", "greater than 0"]),
    ({"nodes.edge.workers": 0}, "nodes.edge.workers", ["given 0", "1"]),
    ({"nodes.edge.service_ms": 0}, "nodes.edge.service_ms", ["above 0"]),
    ({"simulation.duration_s": 0}, "simulation.duration_s", ["given 0", "greater than 0"]),
    ({"simulation.duration_s": NAN}, "simulation.duration_s", ["given nan", "finite"]),
    ({"simulation.warm_up_s": -1}, "simulation.warm_up_s", ["given -1", "0"]),
    ({"simulation.replications": 0}, "simulation.replications", ["given 0", "1"]),
    ({"simulation.deadline_scales": [0]}, "simulation.deadline_scales.0", ["given 0"]),
    ({"profile.batch_sizes": []}, "profile.batch_sizes", ["given []"]),
    ({"profile.batch_sizes": [8]}, "profile.batch_sizes", ["given [8]", "1 must be among them"]),
    ({"profile.repetitions": 3}, "profile.repetitions", ["given 3", "10"]),
    ({"profile.runtime": "onnx"}, "profile.runtime", ["given 'onnx'", "'onnxruntime'"]),
    (
        {"profile.runtime": "onnxruntime", "profile.precision": "bf16"},
        "profile.precision",
        ["runtime onnxruntime computes in fp32, not bf16"],
    ),
    ({"links": {}}, "links", ["given {}", "mapping"]),
    ({"policies": []}, "policies", ["given []", "list"]),
    ({"seed": -1}, "seed", ["given -1", "0"]),
    ({"name": ""}, "name", ["given ''", "letters, digits"]),
    ({"name": "../up"}, "name", ["given '../up'", "letters, digits"]),
    ({"links": {"wi fi": {}}}, "links.wi fi", ["given 'wi fi'", "letters, digits"]),
]

MISSING_KEYS: list[Row] = [
    ({key: ...}, key, ["this key is required"])
    for key in (
        "name",
        "data",
        "links",
        "nodes",
        "devices",
        "policies",
        "data.dataset",
        "model.backbone",
        "training.steps",
        f"{CAMERAS}.arrivals",
        f"{CAMERAS}.arrivals.process",
        f"{CAMERAS}.arrivals.rate_hz",
        f"{CAMERAS}.deadline_ms",
        f"{CAMERAS}.link",
        f"{CAMERAS}.node",
    )
] + [
    (
        {f"{DOWN}.latency_ms": {"distribution": "normal", "mean": 3}},
        f"{DOWN}.latency_ms.sd",
        ["this key is required"],
    ),
    ({"policies": [{"exit": 1}]}, "policies.0.policy", ["this key is required"]),
]

CHOICES: list[Row] = [
    ({"data.dataset": "cifar"}, "data.dataset", ["given 'cifar'", "'cifar10'", "digits"]),
    (
        {"model.backbone": "resnet9"},
        "model.backbone",
        ["no backbone is called 'resnet9'", "did you mean 'resnet8'?", "resnet56"],
    ),
    ({"model.branch": "cnov"}, "model.branch", ["given 'cnov'", "'conv'", "linear"]),
    ({"training.regime": "endtoend"}, "training.regime", ["'end_to_end'", "classifier_wise"]),
    ({"training.loss": "crossentropy"}, "training.loss", ["'cross_entropy'", "byot"]),
    ({"training.device": "gpu"}, "training.device", ["given 'gpu'", "auto, cpu, cuda"]),
    (
        {"training.pacing.function": "lineal"},
        "training.pacing.function",
        ["did you mean 'linear'?", "varied_exponential"],
    ),
    (
        {"training.scoring.function": "self_tought"},
        "training.scoring.function",
        ["did you mean 'self_taught'?", "c_score"],
    ),
    (
        {"training.strategies": ["curiculum"]},
        "training.strategies.0",
        ["given 'curiculum'", "did you mean 'curriculum'?", "anti_curriculum"],
    ),
    (
        {"training.checkpoints": {"standrad": ["a"]}},
        "training.checkpoints.standrad",
        ["did you mean 'standard'?"],
    ),
    (
        {f"{CAMERAS}.arrivals.process": "poison"},
        f"{CAMERAS}.arrivals.process",
        ["given 'poison'", "did you mean 'poisson'?", "periodic"],
    ),
]

DISTRIBUTIONS: list[Row] = [
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "unifrm", "low": 1, "high": 2}},
        f"{CAMERAS}.deadline_ms.distribution",
        ["'unifrm'", "did you mean 'uniform'?", "lognormal", "gamma"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"low": 1, "high": 2}},
        f"{CAMERAS}.deadline_ms",
        ["a number, or a mapping with 'distribution'"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "uniform", "low": 30, "high": 20}},
        f"{CAMERAS}.deadline_ms",
        ["low (30.0) must be below high (20.0)"],
    ),
    (
        {f"{DOWN}.latency_ms": {"distribution": "uniform", "low": 2, "high": 2}},
        f"{DOWN}.latency_ms",
        ["low (2.0) must be below high (2.0)"],
    ),
    (
        {"nodes.edge.service_ms": {"distribution": "uniform", "low": 3, "high": 2}},
        "nodes.edge.service_ms",
        ["low (3.0) must be below high (2.0)"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "constant", "value": 0}},
        f"{CAMERAS}.deadline_ms",
        ["above 0"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "exponential", "mean": NAN}},
        f"{CAMERAS}.deadline_ms.mean",
        ["given nan", "finite"],
    ),
    (
        {f"{UP}.latency_ms": {"distribution": "gamma", "mean": 3, "sd": 1}},
        f"{UP}.jitter_ms",
        ["latency_ms is a distribution already"],
    ),
    ({f"{DOWN}.latency_ms": 0, f"{DOWN}.jitter_ms": 1}, f"{DOWN}.jitter_ms", ["latency of 0"]),
]

ACROSS_KEYS: list[Row] = [
    (
        {f"{CAMERAS}.link": "wfi"},
        f"{CAMERAS}.link",
        ["no link is called 'wfi'", "did you mean 'wifi'?", "there are: wifi"],
    ),
    (
        {f"{CAMERAS}.node": "egde"},
        f"{CAMERAS}.node",
        ["no node is called 'egde'", "did you mean 'edge'?", "there are: edge"],
    ),
    (
        {"model.exits": ["layer9"]},
        "model",
        ["has no node 'layer9'", "did you mean 'layer", "relu, layer1, layer1.0, layer2"],
    ),
    (
        {"model.exits": ["layer2", "layer1"]},
        "model",
        ["from the earliest to the last", "'layer1' is computed before 'layer2'"],
    ),
    ({"model.exits": ["layer1", "layer1"]}, "model.exits.1", ["'layer1' is named twice"]),
    (
        {"training.exit_weights": [1, 1, 1]},
        "training.exit_weights",
        ["3 weights are given for 2 exits"],
    ),
    ({"training.exit_weights": [0, 0]}, "training.exit_weights", ["above 0"]),
    ({"training.exit_weights": [-1, 1]}, "training.exit_weights.0", ["given -1"]),
    ({"training.evaluations": 6}, "training.evaluations", ["6", "5 steps"]),
    ({"training.seeds": [1, 1]}, "training.seeds.1", ["1 is named twice"]),
    (
        {"training.strategies": ["standard", "standard"]},
        "training.strategies.1",
        ["'standard' is named twice"],
    ),
    ({"nodes.edge.profile": "pi.parquet"}, "nodes.edge.profile", ["no such file", "pi.parquet"]),
    (
        {"nodes.edge.profile": "tiny.yaml", "nodes.edge.service_ms": 3},
        "nodes.edge.service_ms",
        ["profile", "not both"],
    ),
    (
        {"training.strategies": ["standard"], "training.checkpoints": {"standard": ["tiny.yaml"]}},
        "training.checkpoints",
        ["1 file", "'standard'", "2 seeds"],
    ),
    (
        {
            "training.strategies": ["standard"],
            "training.seeds": 1,
            "training.checkpoints": {"standard": ["gone.safetensors"]},
        },
        "training.checkpoints.standard.0",
        ["no such file", "gone.safetensors"],
    ),
    (
        {
            "training.seeds": 1,
            "training.checkpoints": {"standard": ["tiny.yaml"]},
        },
        "training.checkpoints",
        ["'curriculum'", "1 seed"],
    ),
]

POLICIES: list[Row] = [
    (
        {"policies": ["confidance"]},
        "policies.0",
        ["unknown policy 'confidance'", "did you mean 'confidence'?", "deadline_aware"],
    ),
    (
        {"policies": ["deadline_aware", {"policy": "confidence", "treshold": 0.5}]},
        "policies.1",
        ["no parameter 'treshold'", "did you mean 'threshold'?"],
    ),
    ({"policies": ["fixed_exit"]}, "policies.0", ["needs the parameter 'exit'"]),
    (
        {"policies": [{"policy": "fixed_exit", "exit": 3}]},
        "policies.0",
        ["exit is 3", "exits 1 to 2"],
    ),
    (
        {"policies": [{"policy": "fixed_exit", "exit": 0}]},
        "policies.0",
        ["exit is 0", "numbered from 1"],
    ),
    ({"policies": [{"policy": "fixed_exit", "exit": "2"}]}, "policies.0", ["exit", "'2'"]),
    ({"policies": [{"policy": "fixed_exit", "exit": 1.5}]}, "policies.0", ["exit", "1.5"]),
    ({"policies": [{"policy": "fixed_exit", "exit": True}]}, "policies.0", ["exit", "True"]),
    ({"policies": [{"policy": "fixed_exit", "exit": None}]}, "policies.0", ["exit"]),
    (
        {"policies": [{"policy": "confidence", "threshold": 1.5}]},
        "policies.0",
        ["threshold is 1.5", "between 0 and 1"],
    ),
    (
        {"policies": [{"policy": "confidence", "threshold": NAN}]},
        "policies.0",
        ["threshold is nan"],
    ),
    (
        {"policies": [{"policy": "confidence", "threshold": "high"}]},
        "policies.0",
        ["threshold", "'high'"],
    ),
    (
        {"policies": [{"policy": "deadline_aware", "quantile": 1.0}]},
        "policies.0",
        ["quantile is 1.0"],
    ),
    (
        {"policies": [{"policy": "deadline_aware", "when_none_fits": "dorp"}]},
        "policies.0",
        ["'dorp'", "earliest_exit, drop"],
    ),
    ({"policies": ["gone.py:Mine"]}, "policies.0", ["gone.py", "no such file"]),
    ({"policies": ["tiny_gone:Mine"]}, "policies.0", ["'tiny_gone'", "cannot be imported"]),
    ({"policies": ["json:Decoder"]}, "policies.0", ["no class 'Decoder'"]),
    ({"policies": ["sim.policies.Confidenc"]}, "policies.0", ["did you mean 'Confidence'?"]),
    (
        {"policies": [{"policy": "json:JSONDecoder"}]},
        "policies.0",
        ["no method decide(request, node)"],
    ),
    (
        {"policies": ["confidence", "deadline_aware", "confidence"]},
        "policies.2",
        ["two policies are called 'confidence'", "label"],
    ),
    (
        {"policies": ["confidence", {"policy": "fixed_exit", "exit": 1, "label": "confidence"}]},
        "policies.1",
        ["two policies are called 'confidence'"],
    ),
    (
        {"policies": [{"policy": "confidence", "label": "a b"}]},
        "policies.0.label",
        ["given 'a b'", "letters, digits"],
    ),
]

TABLE = [
    pytest.param(*row, id=", ".join(f"{key}={str(value)[:40]}" for key, value in row[0].items()))
    for row in (
        *UNKNOWN_KEYS,
        *WRONG_TYPES,
        *OUT_OF_RANGE,
        *MISSING_KEYS,
        *CHOICES,
        *DISTRIBUTIONS,
        *ACROSS_KEYS,
        *POLICIES,
    )
]


@pytest.mark.parametrize(("changes", "key", "fragments"), TABLE)
def test_one_message_names_file_line_key_and_what_is_allowed(
    changes: dict[str, Any],
    key: str,
    fragments: list[str],
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    place_of: Callable[..., str],
    tmp_path: Path,
) -> None:
    path = scenario(changes)
    ran = offramp("run", path, "--store", tmp_path / "store", "-o", tmp_path / "results")
    assert (ran.status, ran.out) == (2, "")
    assert sorted(tmp_path.iterdir()) == [path]
    assert ran.err.startswith(f"error: {place_of(path, key)}: {key}: ")
    assert len(ran.err.splitlines()) == 1
    for fragment in fragments:
        assert fragment in ran.err
    for word in JARGON:
        assert word not in ran.err


def test_problems_of_several_sections_are_all_reported_at_once(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp(
        "check", scenario({"training.stps": 1, "nodes.edge.speed": -1, "data.dataset": "mnist"})
    )
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 3
    for key in ("training.stps", "nodes.edge.speed", "data.dataset"):
        assert f": {key}: " in ran.err


def test_problems_across_keys_are_all_reported_at_once(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp(
        "check",
        scenario(
            {
                "model.backbone": "resnet9",
                "model.exits": ["layer1", "layer1"],
                f"{CAMERAS}.link": "wfi",
                "policies": ["fixed_exitt"],
            }
        ),
    )
    assert ran.status == 2
    for key in ("model.backbone", "model.exits.1", f"{CAMERAS}.link", "policies.0"):
        assert f": {key}: " in ran.err


def test_two_unknown_keys_of_one_section_are_both_reported(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp("check", scenario({"training.stps": 5, "training.sees": 3}))
    assert ran.status == 2
    assert ": training.stps: unknown key; did you mean 'steps'?" in ran.err
    assert ": training.sees: unknown key; did you mean 'seeds'?" in ran.err


@pytest.mark.parametrize("seed", [2**31, 2**63, 10**30])
def test_a_training_seed_too_large_for_the_records_is_refused_before_training(
    seed: int, scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp("check", scenario({"training.seeds": [seed]}))
    assert ran.status == 2
    assert "training.seeds.0" in ran.err


def test_training_exits_that_are_not_there_is_refused(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    """``classifier_wise`` trains the early exits, but this network has none."""
    ran = offramp(
        "check",
        scenario(
            {
                "model.exits": [],
                "training.regime": "classifier_wise",
                "policies": ["confidence"],
            }
        ),
    )
    assert ran.status == 2
    assert "classifier_wise" in ran.err


@pytest.mark.parametrize("fraction", [0.001, 0.9999])
def test_a_split_that_leaves_no_images_is_one_message(
    fraction: float,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("training began without images")

    monkeypatch.setattr("offramp.stages.training.train", never)
    ran = offramp(
        "train",
        scenario({"data.validation_fraction": fraction, "training.strategies": ["standard"]}),
    )
    assert ran.status == 2
    assert "validation_fraction" in ran.err


def test_more_requests_than_memory_holds_are_refused_before_training(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp("check", scenario({"simulation.duration_s": 1e9}))
    assert ran.status == 2
    assert "simulation.duration_s" in ran.err
    assert "requests in one replication" in ran.err


def test_a_checkpoint_named_for_two_seeds_is_refused(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "one.safetensors").write_text("one")
    both = {
        "training.strategies": ["standard"],
        "training.checkpoints": {"standard": ["one.safetensors", "one.safetensors"]},
    }
    ran = offramp("check", scenario(both))
    assert ran.status == 2
    assert "named twice" in ran.err
