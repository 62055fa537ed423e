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

from models.strategies import RANKED_STRATEGIES


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


class LabelNoiseSection(Section):
    """Wrong labels among the training samples; validation and test labels stay as they are."""

    symmetric_percent: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="per cent of the samples that get one of the other labels at random"
    )
    file: str | None = Field(
        None, description=".npz or .npy with a label for each official training sample"
    )
    key: str | None = Field(None, description="name of the labels within an .npz file")


class DataSection(Section):
    """The images that devices send and networks learn from."""

    dataset: Literal["digits", "fashion_mnist", "cifar10", "cifar100"] = Field(
        description="digits ships with scikit-learn; torchvision reads the others from OFFRAMP_DATA"
    )
    validation_fraction: Share = Field(
        0.1, description="part of each class's training images kept for validation"
    )
    mean: list[float] | None = Field(
        None,
        description="per channel, of pixels from 0 to 1, to normalise with; absent: the dataset's",
    )
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="per channel, as mean; weights made elsewhere expect their own"
    )
    label_noise: LabelNoiseSection | None = Field(None, description="absent: none")


class FlopsShares(Section):
    """Early exits placed by cost."""

    at_flops: Annotated[list[Share], Field(min_length=1)] = Field(
        description="shares of the backbone's FLOPs, ascending"
    )


class ModelSection(Section):
    """The multi-exit network."""

    backbone: str = Field(
        description="resnet20 and other CIFAR networks, any torchvision classification network, "
        "or a torch.nn.Module of yours: module:Class or file.py:Class"
    )
    exits: (
        Annotated[
            Annotated[list[str], Tag("list")] | Annotated[FlopsShares, Tag("shares")],
            Discriminator(
                lambda value: "shares" if isinstance(value, dict | FlopsShares) else "list"
            ),
        ]
        | None
    ) = Field(
        None,
        description="nodes after which an early exit sits, earliest first, or "
        "{at_flops: [0.3, 0.6]}; the backbone's own classifier is one exit more, the last; "
        "absent: layer1 and layer2 of CIFAR ResNets, else at 1/3 and 2/3 of the FLOPs",
    )
    branch: Literal["linear", "mlp", "conv", "sdn", "msdnet"] = Field(
        "linear", description="design of the early exits"
    )
    weights: str | None = Field(
        None, description="a file of weights for the backbone to start from, or imagenet"
    )
    resize: Annotated[int, Field(ge=8)] | None = Field(
        None, description="height and width to which the node scales images before the network"
    )


PacingFunctionName = Literal[
    "fixed_exponential",
    "varied_exponential",
    "single_step",
    "linear",
    "root",
    "quadratic",
    "logarithmic",
    "exponential",
]


class PacingSection(Section):
    """How fast a curriculum shows the training set, in fractions of the steps of each phase.

    Only the regimes layer_wise and mixed have several.
    """

    function: PacingFunctionName = Field(
        "fixed_exponential",
        description="the first three: Hacohen & Weinshall 2019; the others: Wu et al. 2021",
    )
    start_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.04, description="part of the training set visible at the first step"
    )
    full_at: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="spent part of the budget from which all is visible"
    )
    increase: Annotated[float, Field(gt=1)] = Field(
        1.9, description="factor of each increase; fixed and varied exponential only"
    )
    increases_at: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [],
        description="spent parts of the budget at which varied_exponential increases, instead of "
        "full_at",
    )


class ScoringSection(Section):
    """Who ranks the difficulty of the training samples."""

    function: Literal["self_taught", "early_checkpoint", "transfer", "final_exit", "c_score"] = (
        Field(
            "self_taught",
            description="held-out margin of networks of the same kind; margin of one after a few "
            "steps; held-out margin of a classifier on another network's features; margin between "
            "the logits of the frozen backbone's own classifier; scores from a file. Absent: "
            "final_exit under classifier_wise, unless per_exit",
        )
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        2, description="self_taught, transfer: parts of the training set, each scored by the rest"
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="self_taught, early_checkpoint: steps of each network; absent: as many as "
        "training.steps, for early_checkpoint a tenth",
    )
    per_exit: bool = Field(
        False,
        description="rank for each exit by what that exit finds hard; needs a regime that trains "
        "exits one by one: classifier_wise or layer_wise",
    )
    backbone: str | None = Field(None, description="transfer: the other network")
    weights: str | None = Field(None, description="transfer: its weights, a file or imagenet")
    resize: Annotated[int, Field(ge=8)] | None = Field(
        None, description="transfer: size to which its images are scaled"
    )
    file: str | None = Field(
        None,
        description="c_score: .npz, .npy or .csv with a score for each official training sample, "
        "high for easy",
    )
    key: str | None = Field(None, description="c_score: name of the scores within an .npz file")


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
    regime: Literal["end_to_end", "classifier_wise", "layer_wise", "mixed"] = Field(
        "end_to_end",
        description="all exits jointly; the early exits on a frozen backbone; exit after exit; or "
        "the backbone for half of the steps, then jointly",
    )
    loss: Literal["cross_entropy", "exit_distillation", "byot"] = Field(
        "cross_entropy",
        description="labels alone, or also the last exit's outputs (Phuong & Lampert 2019), or "
        "its outputs and features (Zhang et al. 2019)",
    )
    gradient_equilibrium: bool = Field(
        False, description="scale gradients where branches leave the trunk (Li et al. 2019)"
    )
    steps: Annotated[int, Field(ge=1)] = Field(description="optimiser steps: the budget")
    backbone_steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="classifier_wise without model.weights: steps of the backbone before it is "
        "frozen; absent: as many as steps",
    )
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
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a CUDA device where there is one"
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="threads of a training; absent: as many as processors"
    )
    activation_store_gb: Annotated[float, Field(ge=0)] = Field(
        8.0,
        description="classifier_wise without augment: room for the frozen backbone's activations "
        "of one split, computed once; where they take more, the backbone runs anew at every step",
    )
    evaluations: Annotated[int, Field(ge=1)] = Field(
        5, description="how often validation accuracy is taken"
    )
    pacing: PacingSection = PacingSection()
    scoring: ScoringSection = ScoringSection()
    checkpoints: dict[Strategy, Annotated[list[str], Field(min_length=1)]] = Field(
        {}, description="files to use instead of training: for each strategy one per seed"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_scoring(cls, values: Any) -> Any:
        """Defaults of the scoring that depend on how exits are trained."""
        if not isinstance(values, dict) or not isinstance(values.get("scoring", {}), dict):
            return values
        scoring = dict(values.get("scoring", {}))
        frozen = values.get("regime") == "classifier_wise" and not scoring.get("per_exit")
        scoring.setdefault("function", "final_exit" if frozen else "self_taught")
        steps = values.get("steps")
        if scoring.get("steps") is None and isinstance(steps, int) and steps >= 1:
            early = scoring["function"] == "early_checkpoint"
            scoring["steps"] = max(1, steps // 10) if early else steps
        return {**values, "scoring": scoring}

    @property
    def needs_scores(self) -> bool:
        """Whether a strategy ranks the samples."""
        return any(strategy in RANKED_STRATEGIES for strategy in self.strategies)

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
