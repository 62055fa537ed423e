"""Which policies are searched: those of the scenario, and those that ship and need no fitting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import ScenarioError
from offramp.checks import policy_label
from offramp.recommendation.space import PolicyOption
from offramp.schema import PolicySection
from offramp.sweep.axes import Choices, Draw, Integers
from offramp.sweep.template import Template, as_json

#: It knows the right answers: a bound on what a policy can reach, and nothing to be deployed.
ORACLE = "oracle"

#: Thresholds are searched from what a guess would be sure of, and not below the first of these;
#: in steps of a hundredth.
_LOWEST_PERCENT, _HIGHEST_PERCENT = 5, 99


def policy_options(
    given: list[Any],
    searched: Mapping[int, dict[str, Draw]],
    adds_shipped: bool,
    template: Template,
    exit_count: int,
    classes: int,
) -> tuple[PolicyOption, ...]:
    """The policies that may be chosen.

    One of the scenario that is a value of one that ships, such as ``fixed_exit`` at an exit, is
    searched with it.

    Args:
        given: the scenario's, as they are written.
        searched: parameters that the user wants searched, by the position of their policy.
        adds_shipped: whether those that ship are added.
        template: tries what the scenario accepts.
        exit_count: of the network.
        classes: that it tells apart.

    Raises:
        ScenarioError: there are none.
    """
    shipped = list(_shipped(template, exit_count, classes)) if adds_shipped else []
    options: list[PolicyOption] = []
    for index, written in enumerate(given):
        policy = as_mapping(written)
        draws = searched.get(index, {})
        if policy["policy"] == ORACLE:
            continue
        if not draws and any(_covers(option, policy) for option in shipped):
            continue
        fixed = {name: value for name, value in policy.items() if name not in draws}
        options.append(PolicyOption(_unlike(_name(fixed), options), fixed, draws))
    for option in shipped:
        options.append(PolicyOption(_unlike(option.name, options), option.fixed, option.draws))
    if not options:
        raise ScenarioError(
            "there is no policy to recommend: the oracle knows the answers, and no node can have it"
        )
    return tuple(options)


def as_mapping(policy: Any) -> dict[str, Any]:
    """A policy that may be written as its name alone."""
    return {"policy": policy} if isinstance(policy, str) else dict(policy)


def _shipped(template: Template, exit_count: int, classes: int) -> Iterator[PolicyOption]:
    """Those that ship, as far as this scenario can have them."""
    deepest = next(
        (
            exit
            for exit in range(exit_count, 0, -1)
            if _is_accepted(template, {"policy": "fixed_exit", "exit": exit})
        ),
        0,
    )
    if deepest:
        yield PolicyOption("fixed_exit", {"policy": "fixed_exit"}, {"exit": Integers(1, deepest)})
    for name in ("deadline_aware", "load_adaptive"):
        if _is_accepted(template, {"policy": name}):
            yield PolicyOption(name, {"policy": name}, {})
    if exit_count < 2:
        return  # nothing is decided by being confident at the only exit
    lowest = max(_LOWEST_PERCENT, -(-100 // classes))
    thresholds = Choices(tuple(it / 100 for it in range(lowest, _HIGHEST_PERCENT + 1)))
    tiers = any(
        isinstance(node, dict) and node.get("next_tier") for node in template.data["nodes"].values()
    ) or any(
        isinstance(group, dict) and group.get("compute") is not None
        for group in template.data["devices"].values()
    )
    for name in ("confidence", "deadline_confidence", *(("offload",) if tiers else ())):
        if _is_accepted(template, {"policy": name, "threshold": thresholds.values[0]}):
            yield PolicyOption(name, {"policy": name}, {"threshold": thresholds})


def _is_accepted(template: Template, policy: dict[str, Any]) -> bool:
    try:
        template.scenario_with({"policies": [policy]})
    except ScenarioError:
        return False
    return True


def _covers(option: PolicyOption, policy: Mapping[str, Any]) -> bool:
    """Whether a policy is one of an option's."""
    if {*policy} != {*option.fixed, *option.draws}:
        return False
    if any(policy[name] != value for name, value in option.fixed.items()):
        return False
    for name, draw in option.draws.items():
        match draw:
            case Choices(values):
                if as_json(policy[name]) not in map(as_json, values):
                    return False
            case Integers(low, high):
                if not isinstance(policy[name], int) or not low <= policy[name] <= high:
                    return False
    return True


def _name(policy: Mapping[str, Any]) -> str:
    return policy_label(PolicySection.model_validate(policy))


def _unlike(name: str, others: list[PolicyOption]) -> str:
    taken = {option.name for option in others}
    return next(
        it for it in (name, *(f"{name} #{number}" for number in range(2, 99))) if it not in taken
    )
