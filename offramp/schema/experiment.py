"""The part of a scenario, or of a study, that trains and measures networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from models.training.strategies import RANKED_STRATEGIES
from offramp.schema.base import SINGLE, Section

TrainingSeed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(gt=0, lt=1)]
Strategy = Literal["standard", "curriculum", "anti_curriculum", "random_curriculum"]
Precision = Literal["fp32", "bf16"]
Runtime = Literal["eager", "compile", "onnxruntime"]


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
        "absent: layer1 and layer2 of CIFAR ResNets, after every block of MSDNets, else at 1/3 and "
        "2/3 of the FLOPs",
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
        "of all images, for each network; where they take more, it runs anew at every step",
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
    runtime: Runtime = Field(
        "eager",
        description="what computes: PyTorch operation by operation, its compiler (which needs a "
        "C++ compiler), or ONNX Runtime (pip install 'offramp[onnx]'), the fastest of them",
    )
