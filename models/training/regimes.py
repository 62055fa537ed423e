"""Regimes: which parts of a multi-exit network are trained together, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from models.networks.multi_exit import MultiExitNetwork, parameters_of

#: ``end_to_end``: everything jointly, on the weighted sum of the exits' losses (BranchyNet,
#: Teerapittayanon et al. 2016, eq. 1). ``classifier_wise``: the early exits on a frozen backbone.
#: ``layer_wise``: exit after exit, each with its own segment on the frozen segments before it.
#: ``mixed``: first the backbone with its own classifier, then everything jointly (Kubaty et al.
#: 2025).
REGIMES = ("end_to_end", "classifier_wise", "layer_wise", "mixed")


@dataclass(frozen=True)
class Phase:
    """A training of some parts of a network while the others are frozen.

    Attributes:
        exits: numbers of the exits whose losses are summed.
        segments: numbers of the segments that are trained.
        classifiers: numbers of the exits whose classifiers are trained.
        steps: optimiser steps, with a learning-rate schedule of their own.
    """

    exits: tuple[int, ...]
    segments: tuple[int, ...]
    classifiers: tuple[int, ...]
    steps: int


def backbone_phase(exit_count: int, steps: int) -> Phase:
    """The backbone with its own classifier, without early exits."""
    return Phase((exit_count,), tuple(range(1, exit_count + 1)), (exit_count,), steps)


def phases(regime: str, exit_count: int, steps: int) -> list[Phase]:
    """The phases of a regime; together they take ``steps`` steps.

    ``classifier_wise`` expects a backbone that is trained already.
    """
    all_exits = tuple(range(1, exit_count + 1))
    if regime == "end_to_end":
        return [Phase(all_exits, all_exits, all_exits, steps)]
    if regime == "classifier_wise":
        return [Phase(all_exits[:-1], (), all_exits[:-1], steps)]
    if regime == "layer_wise":
        ends = [round(steps * exit / exit_count) for exit in range(exit_count + 1)]
        return [Phase((exit,), (exit,), (exit,), ends[exit] - ends[exit - 1]) for exit in all_exits]
    if regime == "mixed":
        first = steps // 2
        return [
            backbone_phase(exit_count, first),
            Phase(all_exits, all_exits, all_exits, steps - first),
        ]
    raise ValueError(f"unknown regime {regime!r}")


def exit_by_exit(phase: Phase) -> list[Phase]:
    """A phase of classifiers alone, split into one for each: they do not touch each other."""
    return [Phase((exit,), (), (exit,), phase.steps) for exit in phase.exits]


def with_last_classifier(phase: Phase, exit_count: int) -> Phase:
    """A phase of early classifiers that trains the backbone's own too: first, as it may teach."""
    exits = (exit_count, *phase.exits)
    return Phase(exits, phase.segments, exits, phase.steps)


def trained_parts(network: MultiExitNetwork, phase: Phase) -> list[nn.Module | nn.Parameter]:
    """What a phase trains; every other part is frozen, its batch-norm statistics included."""
    last = network.classifier(network.exit_count)
    trained: list[nn.Module | nn.Parameter] = []
    for exit in phase.segments:
        # The last segment's parts include the last classifier, which is named by its own number.
        trained += [part for part in network.parts(exit) if all(part is not one for one in last)]
    for exit in phase.classifiers:
        trained += network.classifier(exit)
    return trained


def trained_parameters(network: MultiExitNetwork, phase: Phase) -> list[nn.Parameter]:
    """The parameters of :func:`trained_parts` that no frozen earlier segment computes with too."""
    first = min(phase.segments, default=1)
    earlier = [part for exit in range(1, first) for part in network.parts(exit)]
    shared = {id(parameter) for parameter in parameters_of(earlier)}
    return [
        parameter
        for parameter in parameters_of(trained_parts(network, phase))
        if id(parameter) not in shared
    ]
