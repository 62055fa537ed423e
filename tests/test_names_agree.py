"""The names that a scenario may use are those that the floors below know."""

from dataclasses import fields
from inspect import signature
from typing import get_args

import torchvision.models

from models.data.datasets import DATASETS, load_dataset
from models.inference.runtimes import RUNTIMES
from models.networks.architecture import (
    BACKBONES,
    BRANCHES,
    IMAGENET,
    MSDNET_LAYERS,
    RESNET_BLOCKS,
    SMALL_IMAGE_BACKBONES,
    TORCHVISION_BACKBONES,
)
from models.networks.branches import BRANCH_DESIGNS
from models.networks.msdnet import MSDNETS
from models.networks.small_images import SMALL_IMAGE_NETWORKS
from models.training.losses import LOSSES
from models.training.pacing import PACING_FUNCTIONS
from models.training.regimes import REGIMES
from models.training.strategies import (
    PER_EXIT_SCORING,
    RANKED_STRATEGIES,
    SCORING_FUNCTIONS,
    STRATEGIES,
)
from models.training.train import resolved_precision
from offramp.checks.devices import TEST_SAMPLES
from offramp.presets import link_presets
from offramp.schema import (
    AnyFault,
    DataSection,
    EnergySection,
    LinkPreset,
    ModelSection,
    MqttSection,
    NodeSection,
    PacingFunctionName,
    PacingSection,
    ProfileSection,
    ScoringSection,
    Strategy,
    TrainingSection,
)
from sim.energy import PowerStates
from sim.faults import FaultKind
from sim.network.mqtt import Share
from sim.network.mqtt_packets import QoS, Version
from sim.nodes.queues import Discipline
from sim.nodes.spec import Admission


def allowed(section, key):
    """The values that a key of the schema may have."""
    values = get_args(section.model_fields[key].annotation)
    assert values
    assert all(isinstance(value, str) for value in values)
    return set(values)


def test_datasets():
    assert allowed(DataSection, "dataset") == set(DATASETS)
    assert {name: info.name for name, info in DATASETS.items()} == {name: name for name in DATASETS}


# --- networks ------------------------------------------------------------------------------------


def test_torchvisions_backbones_are_all_that_torchvision_has_for_classification():
    known = torchvision.models.list_models(module=torchvision.models)
    assert list(TORCHVISION_BACKBONES) == sorted(known)


def test_small_images_backbones():
    assert set(SMALL_IMAGE_BACKBONES) == set(SMALL_IMAGE_NETWORKS)


def test_msdnets():
    assert set(MSDNET_LAYERS) == set(MSDNETS)


def test_backbones_are_those_four_families():
    families = (RESNET_BLOCKS, MSDNET_LAYERS, SMALL_IMAGE_BACKBONES, TORCHVISION_BACKBONES)
    assert sorted(BACKBONES) == sorted(name for family in families for name in family)


def test_a_backbone_is_not_mistaken_for_torchvisions_weights():
    assert IMAGENET not in BACKBONES


def test_branches():
    assert allowed(ModelSection, "branch") == set(BRANCHES) == set(BRANCH_DESIGNS)


def test_runtimes():
    assert allowed(ProfileSection, "runtime") == set(RUNTIMES)


# --- training ------------------------------------------------------------------------------------


def test_strategies():
    assert set(get_args(Strategy)) == set(STRATEGIES)
    assert set(RANKED_STRATEGIES) < set(STRATEGIES)
    assert set(TrainingSection.model_fields["strategies"].default) <= set(STRATEGIES)


def test_regimes():
    assert allowed(TrainingSection, "regime") == set(REGIMES)


def test_losses():
    assert allowed(TrainingSection, "loss") == set(LOSSES)


def test_scoring_functions():
    assert allowed(ScoringSection, "function") == set(SCORING_FUNCTIONS)
    assert set(PER_EXIT_SCORING) < set(SCORING_FUNCTIONS)


def test_pacing_functions():
    assert set(get_args(PacingFunctionName)) == set(PACING_FUNCTIONS)


def test_parameters_of_pacing_functions_are_keys_of_the_schema():
    parameters = {
        name
        for function in PACING_FUNCTIONS.values()
        for name in signature(function).parameters
        if name not in getattr(function, "keywords", {})  # what a partial has fixed
    }
    assert parameters == set(PacingSection.model_fields) - {"function"}


def test_precisions():
    resolved = {resolved_precision(name) for name in allowed(TrainingSection, "precision")}
    assert resolved == {"fp32", "bf16"}


# --- the world -----------------------------------------------------------------------------------


def test_presets_of_links():
    assert set(get_args(LinkPreset)) == set(link_presets())


def test_queue_disciplines_and_admissions():
    assert allowed(NodeSection, "queue") == set(get_args(Discipline))
    assert allowed(NodeSection, "admission") == set(get_args(Admission))


def test_mqtt():
    assert allowed(MqttSection, "version") == set(get_args(Version))
    assert allowed(MqttSection, "share") == set(get_args(Share))
    assert get_args(MqttSection.model_fields["qos"].annotation) == get_args(QoS)


def test_kinds_of_faults():
    members = get_args(get_args(AnyFault)[0])
    kinds = {get_args(member.model_fields["kind"].annotation)[0] for member in members}
    assert kinds == set(get_args(FaultKind))


def test_power_states():
    assert set(EnergySection.model_fields) == {field.name for field in fields(PowerStates)}


def test_samples_of_the_test_sets_that_traces_may_name():
    assert set(TEST_SAMPLES) == set(DATASETS)
    assert TEST_SAMPLES["digits"] == len(load_dataset("digits").test)
