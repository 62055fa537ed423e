"""The scenario: every key a user may write, with its type, limits, default and meaning.

Keys carry people's units in their names (``deadline_ms``); :mod:`offramp.worlds` turns them into
the SI units used inside. ``offramp schema`` prints this as JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of a scenario: unknown keys, loose types and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        """Refuse unknown keys here, where the keys that are allowed are known."""
        if isinstance(values, dict) and cls.model_config.get("extra") == "forbid":
            unknown = [key for key in values if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(
                    "unknown_keys",
                    "unknown keys",
                    {"keys": unknown, "allowed": list(cls.model_fields)},
                )
        return values


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
#: Tag of a value that may also be written as a list.
SINGLE = "single"

TrainingSeed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(gt=0, lt=1)]
Strategy = Literal["standard", "curriculum", "anti_curriculum", "random_curriculum"]
Precision = Literal["fp32", "bf16"]


# --- distributions -----------------------------------------------------------------------------


class ConstantSpec(Section):
    """Always the same value."""

    distribution: Literal["constant"]
    value: Annotated[float, Field(ge=0)]


class UniformSpec(Section):
    """Uniform between two values."""

    distribution: Literal["uniform"]
    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(gt=0)]


class ExponentialSpec(Section):
    """Exponential with a given mean."""

    distribution: Literal["exponential"]
    mean: Annotated[float, Field(gt=0)]


class NormalSpec(Section):
    """Normal, truncated at zero."""

    distribution: Literal["normal"]
    mean: Annotated[float, Field(gt=0)]
    sd: Annotated[float, Field(gt=0)]


class LognormalSpec(Section):
    """Lognormal, by its median and the standard deviation of its logarithm."""

    distribution: Literal["lognormal"]
    median: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(gt=0)]


class GammaSpec(Section):
    """Gamma, by its mean and standard deviation."""

    distribution: Literal["gamma"]
    mean: Annotated[float, Field(gt=0)]
    sd: Annotated[float, Field(gt=0)]


def _distribution_tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return value.get("distribution")
    return "number" if not isinstance(value, Section) else getattr(value, "distribution", None)


DistributionSpec = Annotated[
    Annotated[Annotated[float, Field(ge=0)], Tag("number")]
    | Annotated[ConstantSpec, Tag("constant")]
    | Annotated[UniformSpec, Tag("uniform")]
    | Annotated[ExponentialSpec, Tag("exponential")]
    | Annotated[NormalSpec, Tag("normal")]
    | Annotated[LognormalSpec, Tag("lognormal")]
    | Annotated[GammaSpec, Tag("gamma")],
    Discriminator(_distribution_tag),
]


# --- models ------------------------------------------------------------------------------------


class DataSection(Section):
    """The images that devices send and networks learn from."""

    dataset: Literal["digits", "fashion_mnist", "cifar10", "cifar100"] = Field(
        description="digits ships with scikit-learn; torchvision reads the others from OFFRAMP_DATA"
    )
    validation_fraction: Share = Field(
        0.1, description="part of each class's training images kept for validation"
    )


class ModelSection(Section):
    """The multi-exit network."""

    backbone: Literal["resnet8", "resnet20", "resnet32", "resnet44", "resnet56"] = Field(
        description="CIFAR-style ResNets (He et al. 2016, section 4.2)"
    )
    exits: list[str] = Field(
        ["layer1", "layer2"],
        description="nodes after which an early exit sits (stem, layer1, layer2), earliest first; "
        "the backbone's own classifier is one exit more, the last",
    )
    branch: Literal["linear", "conv"] = Field("linear", description="design of the early exits")


class PacingSection(Section):
    """How fast a curriculum shows the training set, in fractions of the budget of steps."""

    function: Literal["fixed_exponential"] = Field(
        "fixed_exponential", description="Hacohen & Weinshall 2019, eq. 3"
    )
    start_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="part of the training set visible at the first step"
    )
    increase: Annotated[float, Field(gt=1)] = Field(1.9, description="factor of each increase")
    full_at: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="spent part of the budget from which all is visible"
    )


class ScoringSection(Section):
    """Who ranks the difficulty of the training samples."""

    function: Literal["cross_fitted"] = Field(
        "cross_fitted", description="margin of a network trained without the sample"
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        2, description="parts of the training set, each scored by a network trained on the others"
    )
    steps: Annotated[int, Field(ge=1)] = Field(100, description="steps of each fold's network")


class TrainingSection(Section):
    """Training; every strategy gets the same steps, schedule, batches' size and initial weights."""

    strategies: Annotated[list[Strategy], Field(min_length=1)] = Field(
        ["standard", "curriculum"], description="orders of samples that are compared"
    )
    seeds: Annotated[
        Annotated[Annotated[int, Field(ge=1, le=10_000)], Tag(SINGLE)]
        | Annotated[Annotated[list[TrainingSeed], Field(min_length=1)], Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list) else SINGLE),
    ] = Field(3, description="a number of training seeds, or a list of them")
    regime: Literal["end_to_end", "classifier_wise"] = Field(
        "end_to_end",
        description="all exits jointly, or the early exits on a backbone that is trained first, "
        "for as many steps, and then frozen",
    )
    steps: Annotated[int, Field(ge=1)] = Field(description="optimiser steps: the budget")
    batch_size: Annotated[int, Field(ge=1)] = Field(128, description="samples a step")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        0.1, description="peak: it rises linearly, then falls along half a cosine to 0"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Nesterov's")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="L2 penalty")
    warm_up_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="part of the steps in which the learning rate rises"
    )
    exit_weights: list[Annotated[float, Field(ge=0)]] = Field(
        [], description="weight of each exit's loss, earliest first; empty: all the same"
    )
    augment: bool = Field(True, description="random crops, and flips where they keep the label")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the processor computes in it, else fp32"
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="threads of a training; absent: as many as processors"
    )
    evaluations: Annotated[int, Field(ge=1)] = Field(
        5, description="how often validation accuracy is taken"
    )
    pacing: PacingSection = PacingSection()
    scoring: ScoringSection = ScoringSection()
    checkpoints: dict[Strategy, Annotated[list[str], Field(min_length=1)]] = Field(
        {}, description="files to use instead of training: for each strategy one per seed"
    )

    @property
    def seed_list(self) -> list[int]:
        """The training seeds, one by one."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class ProfileSection(Section):
    """How latencies are measured on this host."""

    batch_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        [1, 8], description="images per inference; 1 must be among them"
    )
    repetitions: Annotated[int, Field(ge=10)] = Field(
        200, description="measured inferences to each exit, per batch size"
    )
    warm_up: Annotated[int, Field(ge=0)] = Field(20, description="inferences before them")
    threads: Annotated[int, Field(ge=1)] = Field(1, description="threads of one inference")
    precision: Precision = Field("fp32", description="arithmetic of inference")


# --- the world ---------------------------------------------------------------------------------


class DirectionSection(Section):
    """One direction of a link."""

    latency_ms: DistributionSpec = Field(
        0.0, description="one-way delay: a number or a distribution"
    )
    jitter_ms: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="standard deviation of the delay, then gamma-distributed about latency_ms",
    )
    bandwidth_mbps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="megabits per second of each device; absent: unlimited"
    )


class LinkSection(Section):
    """A kind of link between a device and its node; every device has one of its own."""

    uplink: DirectionSection = DirectionSection()
    downlink: DirectionSection = DirectionSection()


class NodeSection(Section):
    """An edge node: one FIFO queue before some workers."""

    workers: Annotated[int, Field(ge=1)] = Field(1, description="requests served at the same time")
    speed: Annotated[float, Field(gt=0)] = Field(
        1.0, description="relative to the profiled host: 0.5 takes twice as long"
    )
    profile: str | None = Field(
        None, description="a profile file measured elsewhere, instead of this host's"
    )
    service_ms: DistributionSpec | None = Field(
        None, description="service time, whatever the exit, instead of a profile"
    )


class ArrivalsSection(Section):
    """When a device sends."""

    process: Literal["poisson", "periodic"] = Field(
        description="exponential gaps, or equal gaps from a random phase of each device"
    )
    rate_hz: Annotated[float, Field(gt=0)] = Field(description="requests per second of one device")


class DeviceGroupSection(Section):
    """Devices that are alike."""

    count: Annotated[int, Field(ge=1)] = Field(1, description="number of devices")
    arrivals: ArrivalsSection
    deadline_ms: DistributionSpec = Field(description="relative to the request's creation")
    link: Name = Field(description="a name under links; every device has such a link of its own")
    node: Name = Field(description="a name under nodes: who answers")
    request_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="size on the uplink; absent: one raw uint8 image"
    )
    response_bytes: Annotated[int, Field(ge=1)] = Field(64, description="size on the downlink")


def _policy_from_name(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


class PolicySection(Section):
    """A policy by name or import path; every other key is one of its parameters."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    policy: str = Field(
        description="fixed_exit, confidence, deadline_aware, or module:Class, or file.py:Class"
    )
    label: Name | None = Field(None, description="its name in records and figures")

    @property
    def parameters(self) -> dict[str, Any]:
        """Keys other than ``policy`` and ``label``."""
        return dict(self.model_extra or {})


class SimulationSection(Section):
    """How long and how often the world is simulated."""

    duration_s: Annotated[float, Field(gt=0)] = Field(60.0, description="the measured window")
    warm_up_s: Annotated[float, Field(ge=0)] = Field(5.0, description="cut before the window")
    replications: Annotated[int, Field(ge=1)] = Field(
        5, description="independent repetitions of the world"
    )
    deadline_scales: list[Annotated[float, Field(gt=0)]] = Field(
        [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0],
        description="multiples of the deadlines for the figure of AUD against deadline",
    )


class Scenario(Section):
    """A whole scenario."""

    name: Name = Field(description="results go to results/NAME")
    description: str = Field("", description="one sentence, shown in the report")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the simulation")
    data: DataSection
    model: ModelSection
    training: TrainingSection
    profile: ProfileSection = ProfileSection()
    links: Annotated[dict[Name, LinkSection], Field(min_length=1)]
    nodes: Annotated[dict[Name, NodeSection], Field(min_length=1)]
    devices: Annotated[dict[Name, DeviceGroupSection], Field(min_length=1)]
    policies: Annotated[
        list[
            Annotated[
                PolicySection,
                BeforeValidator(_policy_from_name, json_schema_input_type=str | PolicySection),
            ]
        ],
        Field(min_length=1),
    ]
    simulation: SimulationSection = SimulationSection()
