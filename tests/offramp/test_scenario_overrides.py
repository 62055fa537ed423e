"""``--set KEY=VALUE``: any key, as if it had been written in the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offramp import ScenarioError, load_scenario
from offramp.schema import Scenario


@pytest.fixture
def overridden(scenario: Callable[..., Path]) -> Callable[..., Scenario]:
    path = scenario()

    def load(*overrides: str) -> Scenario:
        return load_scenario(str(path), overrides).scenario

    return load


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=9", "seed", 9),
        ("training.steps=7", "training.steps", 7),
        ("training.pacing.full_at=0.25", "training.pacing.full_at", 0.25),
        ("training.augment=false", "training.augment", False),
        ("training.seeds=[3, 4]", "training.seeds", [3, 4]),
        ("training.strategies=[anti_curriculum]", "training.strategies", ["anti_curriculum"]),
        ("training.strategies.1=random_curriculum", "training.strategies.1", "random_curriculum"),
        ("devices.cameras.deadline_ms=12.5", "devices.cameras.deadline_ms", 12.5),
        ("devices.cameras.arrivals.rate_hz=3", "devices.cameras.arrivals.rate_hz", 3.0),
        ("description=a = b, or c?", "description", "a = b, or c?"),
        ("description='12'", "description", "12"),
        (" seed =9", "seed", 9),
        ("links.wifi.uplink.bandwidth_mbps=~", "links.wifi.uplink.bandwidth_mbps", None),
        ("policies.1.exit=1", "policies.1.exit", 1),
        ("policies.0=confidence", "policies.0.policy", "confidence"),
        ("policies.0.label=mine", "policies.0.label", "mine"),
        ("policies.0.quantile=0.9", "policies.0.policy", "deadline_aware"),
        ("profile.batch_sizes.0=1", "profile.batch_sizes", [1]),
        ("training.pacing.full_at=1", "training.pacing.full_at", 1.0),
        ("policies=[confidence]", "policies.0.policy", "confidence"),
        (
            "devices.cameras.deadline_ms={distribution: uniform, low: 10, high: 40}",
            "devices.cameras.deadline_ms.high",
            40.0,
        ),
        ("nodes.cloud={workers: 4}", "nodes.cloud.workers", 4),
        ("model.exits.0=layer2", "model.exits.0", "layer2"),
        ("model.exits={at_flops: [0.4, 0.7]}", "model.exits.at_flops.1", 0.7),
        ("model.exits=~", "model.exits", None),
        ("data.label_noise.symmetric_percent=20", "data.label_noise.symmetric_percent", 20.0),
        ("training.scoring.function=early_checkpoint", "training.scoring.steps", 3),
        ("links.lan={uplink: {latency_ms: 1}}", "links.lan.uplink.latency_ms", 1.0),
    ],
)
def test_an_override_sets_the_key_and_the_value_keeps_its_yaml_type(
    override: str, key: str, value: object, overridden: Callable[..., Scenario]
) -> None:
    node: Any = overridden(override).model_dump()
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == value
    assert type(node) is type(value)


def test_later_overrides_go_before_earlier_ones(overridden: Callable[..., Scenario]) -> None:
    assert overridden("training.steps=7", "training.steps=8").training.steps == 8


def test_overrides_see_what_earlier_overrides_made(overridden: Callable[..., Scenario]) -> None:
    cloud = overridden("nodes.cloud={}", "nodes.cloud.workers=3", "devices.cameras.node=cloud")
    assert cloud.nodes["cloud"].workers == 3
    assert cloud.devices["cameras"].node == "cloud"


def test_an_override_leaves_every_other_key_as_it_was(overridden: Callable[..., Scenario]) -> None:
    changed = overridden("devices.cameras.count=6").model_dump()
    changed["devices"]["cameras"]["count"] = 5
    assert changed == overridden().model_dump()


def test_an_override_mends_what_is_wrong_in_the_file(scenario: Callable[..., Path]) -> None:
    path = scenario({"training.steps": 0})
    assert load_scenario(str(path), ["training.steps=3"]).scenario.training.steps == 3


def test_the_command_line_takes_several(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp(
        "check", scenario(), "--set", "devices.cameras.count=6", "--set", "training.steps=7"
    )
    assert ran.status == 0
    assert "count: 6" in ran.out
    assert "steps: 7" in ran.out


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("training.steps", ["write it as key.path=value"]),
        ("=5", ["write it as key.path=value"]),
        ("  =5", ["write it as key.path=value"]),
        ("training..steps=5", ["training"]),
        ("training.steps=[1", ["not valid YAML"]),
        ("name=*gone", ["not valid YAML"]),
        ("training.steps=", ["training.steps", "given nothing", "integer"]),
        ("training.steps='7'", ["training.steps", "given '7'", "integer"]),
        ("training.steps=0", ["training.steps", "given 0"]),
        ("nodes.edge.speed=.nan", ["nodes.edge.speed", "given nan", "finite"]),
        ("training.stps=7", ["training.stps", "unknown key", "did you mean 'steps'?"]),
        ("trainin.steps=7", ["trainin", "unknown key", "did you mean 'training'?"]),
        ("data.dataset=cifr10", ["data.dataset", "did you mean 'cifar10'?"]),
        ("devices.cameras.link=wfi", ["devices.cameras.link", "did you mean 'wifi'?"]),
        ("policies.2=confidence", ["policies is a list of 2", "0 to 1", "'2'"]),
        ("policies.-1=confidence", ["policies is a list of 2", "'-1'"]),
        ("policies.first=confidence", ["policies is a list of 2", "'first'"]),
        ("policies.²=confidence", ["policies is a list of 2", "'²'"]),
        ("seed.value=1", ["seed is 3", "has no keys"]),
        ("policies.0.quantil=0.9", ["policies.0", "did you mean 'quantile'?"]),
        ("devices.cameras.deadline_ms.low=1", ["deadline_ms is 40", "has no keys"]),
        ("training=3", ["training", "given 3", "mapping"]),
        ("data={}", ["data.dataset", "this key is required"]),
        ("devices.more={count: 3}", ["devices.more.link", "this key is required"]),
        ("devices.camera.count=3", ["nothing under devices is called 'camera'", "mean 'cameras'?"]),
        ("nodes.egde.speed=2", ["nothing under nodes is called 'egde'", "did you mean 'edge'?"]),
        ("links.lan.uplink.latency_ms=1", ["there are: wifi; links.lan={...} makes one"]),
        ("policies=[confidence, confidence]", ["policies.1", "two policies are called"]),
        ("model.exits=[layer2, layer1]", ["model: ", "earliest to the last"]),
        ("model.exits=[layer1, layer1]", ["model.exits.1", "named twice"]),
        ("model.exits={at_flops: [0.7, 0.4]}", ["model.exits.at_flops", "ascending order"]),
        ("model.backbone=resnet9", ["model.backbone", "did you mean 'resnet8'?"]),
    ],
)
def test_a_bad_override_is_one_message_that_quotes_it(
    override: str,
    fragments: list[str],
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = scenario()
    ran = offramp("run", path, "--set", override)
    assert (ran.status, ran.out) == (2, "")
    for line in ran.err.removeprefix("error: ").splitlines():
        assert line.startswith(f"--set {override}: "), "the file is not to blame"
    for fragment in fragments:
        assert fragment in ran.err
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_is_wrong_in_the_file_is_not_blamed_on_an_override(
    scenario: Callable[..., Path],
) -> None:
    path = scenario({"nodes.edge.speed": 0})
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path), ["nodes.edge.workers=2"])
    assert str(raised.value).startswith(f"{path}:")
    assert "--set" not in str(raised.value)
