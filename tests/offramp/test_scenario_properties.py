"""Any scenario survives ``check``; any damage to one is a ScenarioError and nothing else."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from offramp import ScenarioError, load_scenario
from offramp.cli import app
from offramp.presets import link_presets
from offramp.schema import Scenario

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)
#: Any characters but surrogates, which no UTF-8 file can hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
#: Keys without line breaks and other control characters.
KEYS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=8)


def positive(highest: float = 1e6) -> st.SearchStrategy[float]:
    return st.floats(1e-6, highest, allow_nan=False) | st.integers(1, int(highest))


FRACTIONS = st.floats(0.01, 0.99)


@st.composite
def distributions(draw: st.DrawFn) -> Any:
    low = draw(st.floats(0, 1e3))
    return draw(
        st.one_of(
            positive(),
            st.fixed_dictionaries({"distribution": st.just("constant"), "value": positive()}),
            st.fixed_dictionaries(
                {
                    "distribution": st.just("uniform"),
                    "low": st.just(low),
                    "high": st.floats(low + 1e-3, low + 1e3),
                }
            ),
            st.fixed_dictionaries({"distribution": st.just("exponential"), "mean": positive()}),
            st.fixed_dictionaries(
                {
                    "distribution": st.sampled_from(["normal", "gamma"]),
                    "mean": positive(),
                    "sd": positive(),
                }
            ),
            st.fixed_dictionaries(
                {
                    "distribution": st.just("lognormal"),
                    "median": positive(),
                    "sigma": positive(10),
                }
            ),
        )
    )


def sections(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(required, optional=optional)


LOSSES = st.floats(0, 99)
DIRECTIONS = sections(
    {},
    {
        "latency_ms": distributions(),
        "bandwidth_mbps": st.none() | positive(),
        "loss_percent": LOSSES,
    },
) | sections({"latency_ms": positive(), "jitter_ms": positive()}, {"loss_percent": LOSSES})
LINKS = sections(
    {},
    {
        "preset": st.none() | st.sampled_from(sorted(link_presets())),
        "shared_by": st.just("all") | st.integers(1, 99),
        "uplink": DIRECTIONS,
        "downlink": DIRECTIONS,
    },
)
WATTS = st.floats(1, 9)
ENERGY = st.fixed_dictionaries(
    {
        "idle_w": st.floats(0, 1),
        "compute_w": WATTS,
        "transmit_w": WATTS,
        "receive_w": WATTS,
        "source": st.just("a data sheet"),
    }
)
NODES = sections(
    {},
    {
        "workers": st.integers(1, 64),
        "speed": positive(),
        "service_ms": distributions(),
        "replicas": st.integers(1, 9),
        "queue": st.sampled_from(["fifo", "edf", "priority"]),
        "queue_limit": st.none() | st.integers(0, 99),
        "admission": st.sampled_from(["all", "feasible"]),
        "batch": st.none() | st.fixed_dictionaries({"size": st.just(1), "wait_ms": positive()}),
        "energy": st.none() | ENERGY,
    },
)
ARRIVALS = st.one_of(
    sections({"process": st.just("poisson"), "rate_hz": st.floats(1e-3, 10)}, {}),
    sections(
        {"process": st.just("periodic"), "rate_hz": st.floats(1e-3, 10)},
        {"jitter_ms": st.floats(0, 99)},
    ),
    sections(
        {
            "process": st.just("on_off"),
            "on_rate_hz": st.floats(1, 10),
            "mean_on_s": positive(100),
            "mean_off_s": positive(100),
        },
        {"off_rate_hz": st.floats(0, 0.9)},
    ),
    st.fixed_dictionaries(
        {
            "process": st.just("diurnal"),
            "curve": st.lists(st.floats(0.1, 10), min_size=1, max_size=4).map(
                lambda rates: [[10.0 * index, rate] for index, rate in enumerate(rates)]
            ),
            "period_s": st.floats(40, 1e5),
        }
    ),
    st.fixed_dictionaries({"process": st.just("closed_loop"), "think_ms": st.floats(100, 1e4)}),
)
MQTT = sections(
    {},
    {
        "version": st.sampled_from(["5", "3.1.1"]),
        "qos": st.sampled_from([0, 1, 2]),
        "tls": st.booleans(),
        "broker_ms": distributions(),
        "inflight": st.none() | st.integers(1, 99),
        "session": st.sampled_from(["clean", "persistent"]),
        "reconnect_ms": positive(),
        "keep_alive_s": positive(),
        "share": st.sampled_from(["round_robin", "random"]),
    },
)


@st.composite
def fault(draw: st.DrawFn, links: list[str], nodes: list[str], groups: list[str]) -> Any:
    targets = {
        "node_crash": {"node": nodes},
        "slow_node": {"node": nodes},
        "link_outage": {"link": links},
        "device_churn": {"devices": groups},
    }
    kind = draw(st.sampled_from(sorted(targets)))
    (key, names), *_ = targets[kind].items()
    times = draw(
        st.fixed_dictionaries({"at_s": positive(), "for_s": positive()})
        | st.fixed_dictionaries({"mtbf_s": st.floats(1, 1e3), "mttr_s": positive()})
    )
    more = {"factor": draw(positive(10))} if kind == "slow_node" else {}
    return {"kind": kind, key: draw(st.sampled_from(names)), **times, **more}


SMOOTH_PACING = sections(
    {},
    {
        "function": st.sampled_from(
            ["fixed_exponential", "single_step", "linear", "root", "logarithmic", "exponential"]
        ),
        "start_fraction": FRACTIONS,
        "increase": st.floats(1.01, 10),
        "full_at": FRACTIONS,
    },
)
VARIED_PACING = sections(
    {
        "function": st.just("varied_exponential"),
        "increases_at": st.sets(FRACTIONS, min_size=1, max_size=4).map(sorted),
    },
    {"start_fraction": FRACTIONS, "increase": st.floats(1.01, 10)},
)


@st.composite
def trainings(draw: st.DrawFn, exits: int) -> dict[str, Any]:
    steps = draw(st.integers(20, 10**6))
    regimes = ["end_to_end", "mixed", "layer_wise", *(["classifier_wise"] if exits else [])]
    regime = draw(st.sampled_from(regimes))
    one_by_one = regime in ("classifier_wise", "layer_wise")
    losses = ["cross_entropy"]
    if regime != "layer_wise":
        losses += ["exit_distillation", "byot"]
    scoring = sections(
        {},
        {
            "function": st.sampled_from(["self_taught", "early_checkpoint"]),
            "folds": st.integers(2, 20),
            "steps": st.integers(1, 999),
            "per_exit": st.booleans() if one_by_one else st.just(False),
        },
    )
    if regime == "classifier_wise":
        scoring |= st.just({"function": "final_exit"})
    weights = st.lists(positive(10), min_size=exits + 1, max_size=exits + 1)
    weights = st.just([]) if regime == "layer_wise" else st.just([]) | weights
    strategies = ["standard", "curriculum", "anti_curriculum", "random_curriculum"]
    return draw(
        sections(
            {"steps": st.just(steps), "evaluations": st.integers(1, min(steps, 20))},
            {
                "strategies": st.lists(st.sampled_from(strategies), min_size=1, unique=True),
                "seeds": st.integers(1, 20)
                | st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5, unique=True),
                "regime": st.just(regime),
                "loss": st.sampled_from(losses),
                "gradient_equilibrium": st.just(False) if one_by_one else st.booleans(),
                "backbone_steps": st.none() | st.integers(1, 10**6),
                "batch_size": st.integers(1, 1024),
                "learning_rate": positive(10),
                "momentum": FRACTIONS,
                "weight_decay": FRACTIONS,
                "warm_up_fraction": FRACTIONS,
                "exit_weights": weights,
                "augment": st.booleans(),
                "precision": st.sampled_from(["auto", "fp32", "bf16"]),
                "device": st.sampled_from(["auto", "cpu", "cuda"]),
                "activation_store_gb": st.floats(0, 100),
                "pacing": SMOOTH_PACING | VARIED_PACING,
                "scoring": scoring,
            },
        )
        # The regime is there whenever something else was drawn to fit it.
        .map(lambda training: {"regime": regime, **training})
    )


#: Places in CIFAR ResNets, in the order of computation.
NODES_OF_RESNETS = ["bn1", "relu", "layer1", "layer2.0.conv1", "layer2", "layer3.0.conv1"]


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A network, and the number of its early exits."""
    named = st.sets(st.sampled_from(NODES_OF_RESNETS)).map(
        lambda chosen: sorted(chosen, key=NODES_OF_RESNETS.index)
    )
    exits = draw(
        named
        | st.sampled_from([[0.4], [0.4, 0.7], [1 / 3, 2 / 3]]).map(lambda it: {"at_flops": it})
        | st.none()
    )
    count = 2 if exits is None else len(exits["at_flops"] if isinstance(exits, dict) else exits)
    model = sections(
        {"backbone": st.sampled_from(["resnet8", "resnet20"]), "exits": st.just(exits)},
        {
            "branch": st.sampled_from(["linear", "mlp", "conv", "sdn", "msdnet"]),
            "resize": st.none() | st.integers(16, 40),
            "weights": st.none(),
        },
    )
    return draw(model), count


@st.composite
def policies(draw: st.DrawFn, exits: int) -> list[Any]:
    several = draw(
        st.lists(
            st.sampled_from(["deadline_aware", "confidence"])
            | st.fixed_dictionaries(
                {"policy": st.just("fixed_exit"), "exit": st.integers(1, exits + 1)}
            )
            | st.fixed_dictionaries({"policy": st.just("confidence"), "threshold": FRACTIONS})
            | st.fixed_dictionaries(
                {
                    "policy": st.just("deadline_aware"),
                    "quantile": FRACTIONS,
                    "when_none_fits": st.sampled_from(["earliest_exit", "drop"]),
                }
            ),
            min_size=1,
            max_size=3,
        )
    )
    labels = draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    return [
        {**(one if isinstance(one, dict) else {"policy": one}), "label": label}
        if len(several) > 1
        else one
        for one, label in zip(several, labels, strict=False)
    ]


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    model, exits = draw(models())
    dataset = draw(st.sampled_from(["digits", "fashion_mnist", "cifar10", "cifar100"]))
    channels = 3 if dataset.startswith("cifar") else 1
    per_channel = st.lists(st.floats(0.01, 1), min_size=channels, max_size=channels)
    links = draw(st.dictionaries(NAMES, LINKS, min_size=1, max_size=2))
    places = draw(st.dictionaries(NAMES, NODES, min_size=1, max_size=2))
    devices = sections(
        {
            "arrivals": ARRIVALS,
            "deadline_ms": distributions(),
            "link": st.sampled_from(sorted(links)),
            "node": st.sampled_from(sorted(places)),
        },
        {
            "count": st.integers(1, 1000),
            "request_bytes": st.none() | st.integers(1, 10**8),
            "response_bytes": st.integers(1, 10**8),
            "samples": st.sampled_from([None, "drawn", "shuffled"])
            | st.fixed_dictionaries({"correlated": st.floats(1, 99)}),
            "priority": st.integers(-9, 9),
            "compute": sections({}, {"speed": positive(), "service_ms": distributions()}),
            "energy": st.none() | ENERGY,
        },
    )
    groups = draw(st.dictionaries(NAMES, devices, min_size=1, max_size=2))
    used = sorted({group["link"] for group in groups.values()})
    faults = st.lists(fault(used, sorted(places), sorted(groups)), max_size=3)
    return draw(
        sections(
            {
                "name": NAMES,
                "data": sections(
                    {"dataset": st.just(dataset)},
                    {
                        "validation_fraction": st.floats(0.05, 0.5),
                        "mean": st.none() | per_channel,
                        "std": st.none() | per_channel,
                        "label_noise": st.none()
                        | st.fixed_dictionaries({"symmetric_percent": st.floats(1, 100)}),
                    },
                ),
                "model": st.just(model),
                "training": trainings(exits),
                "links": st.just(links),
                "nodes": st.just(places),
                "devices": st.just(groups),
                "policies": policies(exits),
            },
            {
                "description": TEXTS,
                "seed": st.integers(0, 2**63),
                "mqtt": st.none() | MQTT,
                "faults": faults,
                "profile": sections(
                    {},
                    {
                        "batch_sizes": st.sets(st.integers(2, 64)).map(lambda more: [1, *more]),
                        "repetitions": st.integers(10, 999),
                    },
                ),
                "simulation": sections(
                    {},
                    {
                        "duration_s": st.floats(1e-3, 100),
                        "warm_up_s": st.floats(0, 100),
                        "replications": st.integers(1, 99),
                        "deadline_scales": st.lists(positive(100), max_size=4),
                        "records": st.sampled_from(["full", "summary"]),
                    },
                ),
            },
        )
    )


def write(path: Path, data: Any) -> Path:
    text = io.StringIO()
    YAML().dump(data, text)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


@given(scenarios())
@settings(REPEATABLE, max_examples=25)
def test_what_check_prints_loads_to_an_equal_scenario(tmp_path: Path, data: Any) -> None:
    path = write(tmp_path / "given.yaml", data)
    scenario = load_scenario(str(path)).scenario
    printed = CliRunner().invoke(app, ["check", str(path)])
    assert printed.exit_code == 0
    (tmp_path / "printed.yaml").write_text(printed.stdout, encoding="utf-8", newline="")
    again = load_scenario(str(tmp_path / "printed.yaml")).scenario
    assert again == scenario
    assert again.model_dump() == scenario.model_dump()


@given(scenarios())
@settings(REPEATABLE, max_examples=25)
def test_a_scenario_keeps_every_value_that_was_written(tmp_path: Path, data: Any) -> None:
    loaded = load_scenario(str(write(tmp_path / "given.yaml", data))).scenario.model_dump()

    def kept(written: Any, resolved: Any) -> bool:
        if isinstance(written, dict):
            return all(kept(value, resolved[key]) for key, value in written.items())
        if isinstance(written, list):
            return len(written) == len(resolved) and all(map(kept, written, resolved))
        if isinstance(resolved, dict):  # a policy by its name alone
            return bool(resolved["policy"] == written)
        return bool(written == resolved)

    assert kept(data, loaded)


# --- damage ------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "name": "whole",
    "description": "every section is here",
    "seed": 1,
    "data": {
        "dataset": "digits",
        "validation_fraction": 0.1,
        "mean": [0.3],
        "std": [0.4],
        "label_noise": {"symmetric_percent": 20},
    },
    "model": {
        "backbone": "resnet8",
        "exits": ["relu", "layer1"],
        "branch": "linear",
        "weights": None,
        "resize": 16,
    },
    "training": {
        "strategies": ["standard", "curriculum"],
        "seeds": [1, 2],
        "regime": "end_to_end",
        "loss": "cross_entropy",
        "steps": 5,
        "exit_weights": [1, 1, 2],
        "pacing": {
            "function": "varied_exponential",
            "start_fraction": 0.1,
            "increase": 1.9,
            "increases_at": [0.2, 0.5],
        },
        "scoring": {"function": "self_taught", "folds": 2, "steps": 3, "per_exit": False},
    },
    "profile": {"batch_sizes": [1, 8], "repetitions": 10},
    "links": {
        "wifi": {
            "uplink": {"latency_ms": 3, "jitter_ms": 1, "bandwidth_mbps": 20},
            "downlink": {"latency_ms": {"distribution": "uniform", "low": 1, "high": 2}},
        },
        "wan": {"preset": "lte", "shared_by": 2, "uplink": {"loss_percent": 1}},
    },
    "mqtt": {"version": "5", "qos": 2, "backhaul": "wan", "session": "persistent"},
    "nodes": {
        "edge": {
            "workers": 1,
            "speed": 0.1,
            "service_ms": 3,
            "queue": "edf",
            "batch": {"size": 2, "wait_ms": 1},
            "next_tier": {"node": "cloud", "link": "wan"},
            "last_exit": 1,
        },
        "cloud": {"service_ms": {"distribution": "scipy", "name": "gamma", "a": 2, "scale": 1}},
    },
    "devices": {
        "cameras": {
            "count": 5,
            "arrivals": {"process": "diurnal", "curve": [[0, 1], [5, 2]], "period_s": 9},
            "samples": {"correlated": 5},
            "compute": {"service_ms": 9, "last_exit": 1},
            "deadline_ms": {"distribution": "gamma", "mean": 40, "sd": 3},
            "link": "wifi",
            "node": "edge",
        }
    },
    "faults": [
        {"kind": "slow_node", "node": "edge", "factor": 0.5, "at_s": 1, "for_s": 1},
        {"kind": "link_outage", "link": "wifi", "mtbf_s": 60, "mttr_s": 1},
    ],
    "policies": ["deadline_aware", {"policy": "fixed_exit", "exit": 2, "label": "last"}],
    "simulation": {
        "duration_s": 3,
        "warm_up_s": 0.5,
        "deadline_scales": [0.5, 1],
        "records": "summary",
        "trace_window_s": [1, 2],
    },
}


def paths_of(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += paths_of(value, (*path, key))
    return found


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["standard", "1", "wifi", "layer2", "a.b:C", ".", ":", "x.py:", "uniform"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    place=st.sampled_from(paths_of(WHOLE)),
    how=st.sampled_from(["replace", "rename", "remove", "add"]),
    value=ANYTHING,
    key=KEYS | st.integers() | st.none() | st.booleans(),
)
@example(place=("policies", 1, "exit"), how="replace", value="2", key="")
@example(place=("training", "seeds", 0), how="replace", value=10**30, key="")
@example(place=("links", "wifi", "uplink"), how="replace", value={"distribution": []}, key="")
@example(place=("model", "exits"), how="replace", value={"at_flops": [[]]}, key="")
@example(place=("model", "exits"), how="replace", value={"at_flops": {}}, key="")
@example(place=("model", "exits"), how="replace", value={}, key="")
@example(place=("model", "backbone"), how="replace", value="a:b:c", key="")
@example(place=("model", "weights"), how="replace", value="\0", key="")
@example(place=("model", "weights"), how="replace", value="~nobody/x", key="")
@example(place=("data", "label_noise"), how="replace", value={"file": "\0"}, key="")
@example(place=("links", "wan", "preset"), how="replace", value=[], key="")
@example(place=("links", "wan", "uplink"), how="replace", value=["latency_ms"], key="")
@example(place=("links", "wifi", "uplink"), how="replace", value={"latency_file": "\0"}, key="")
@example(place=("devices", "cameras", "arrivals", "process"), how="replace", value=[], key="")
@example(place=("devices", "cameras", "samples"), how="replace", value=[1], key="")
@example(place=("faults", 0, "kind"), how="replace", value={}, key="")
@example(place=("faults", 1, "mtbf_s"), how="replace", value=1e-300, key="")
@settings(REPEATABLE, max_examples=200)
def test_one_key_damaged_loads_or_is_a_scenario_error_with_its_place(
    tmp_path: Path, place: tuple[Any, ...], how: str, value: Any, key: Any
) -> None:
    data = copy.deepcopy(WHOLE)
    node: Any = data
    for part in place[:-1]:
        node = node[part]
    last = place[-1]
    if how == "replace":
        node[last] = value
    elif how == "add" and isinstance(node, list):
        node.append(value)
    elif how == "add":
        node[key] = value
    elif how == "rename" and isinstance(node, dict):
        node[key] = node.pop(last)
    else:
        del node[last]
    path = write(tmp_path / "damaged.yaml", data)
    try:
        loaded = load_scenario(str(path))
    except ScenarioError as error:
        for line in str(error).splitlines():
            assert line.startswith(str(path))
    else:
        assert isinstance(loaded.scenario, Scenario)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("<<: 1")
@example("<<: {}")
@example("? {a: b}\n: 1")
@example("&a [*a]")
@example("!!omap [a: 1]")
@example("!!python/object/apply:os.system [ls]")
@example("a: !!set {b}")
@example("%YAML 9.9\n---\na: 1")
@settings(REPEATABLE, max_examples=80)
def test_any_text_is_a_scenario_error_with_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    assert str(raised.value).startswith(str(path))


@given(
    key=st.lists(
        st.sampled_from(["training", "steps", "policies", "0", "1", "9", "links", "wifi", ""])
        | st.text(max_size=4),
        min_size=1,
        max_size=4,
    ).map(".".join),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
@example(key="policies.²", text="confidence")
@example(key="policies.1", text="{<<: {policy: confidence}}")
@example(key="seed", text="!!omap [a: 1]")
@settings(REPEATABLE, max_examples=80)
def test_any_override_loads_or_is_a_scenario_error(tmp_path: Path, key: str, text: str) -> None:
    path = write(tmp_path / "whole.yaml", WHOLE)
    message = ""
    try:
        load_scenario(str(path), [f"{key}={text}"])
    except ScenarioError as error:
        message = str(error)
    assert not message or message.startswith((str(path), "--set"))
