"""The names that a scenario may use are those that the models floor knows."""

from typing import get_args

import pytest

from models.architecture import BRANCHES, RESNET_BLOCKS, backbone_nodes
from models.branches import BRANCH_DESIGNS
from models.datasets import DATASETS
from models.strategies import RANKED_STRATEGIES, STRATEGIES
from models.training import REGIMES, resolved_precision
from offramp.schema import DataSection, ModelSection, Strategy, TrainingSection


def allowed(section, key):
    """The values that a key of the schema may have."""
    values = get_args(section.model_fields[key].annotation)
    assert values
    assert all(isinstance(value, str) for value in values)
    return set(values)


def test_datasets():
    assert allowed(DataSection, "dataset") == set(DATASETS)
    assert {name: info.name for name, info in DATASETS.items()} == {name: name for name in DATASETS}


def test_backbones():
    assert allowed(ModelSection, "backbone") == set(RESNET_BLOCKS)


def test_branches():
    assert allowed(ModelSection, "branch") == set(BRANCHES) == set(BRANCH_DESIGNS)


def test_strategies():
    assert set(get_args(Strategy)) == set(STRATEGIES)
    assert set(RANKED_STRATEGIES) < set(STRATEGIES)
    assert set(TrainingSection.model_fields["strategies"].default) <= set(STRATEGIES)


def test_regimes():
    # The backbone's phase is no regime of its own to a user: it is the first of classifier_wise.
    assert allowed(TrainingSection, "regime") == set(REGIMES) - {"backbone"}


def test_precisions():
    resolved = {resolved_precision(name) for name in allowed(TrainingSection, "precision")}
    assert resolved == {"fp32", "bf16"}


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
def test_the_exits_a_scenario_gets_unasked_exist_in_every_backbone(backbone):
    assert set(ModelSection.model_fields["exits"].default) <= set(backbone_nodes(backbone))
