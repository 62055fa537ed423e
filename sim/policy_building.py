"""Building policies from a scenario: by name or import path, with their parameters checked."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from models.artifacts import Predictions
from models.errors import PolicyError, did_you_mean
from models.importing import import_callable, is_import_path
from sim.policies import POLICIES
from sim.policy import Policy


def build_policy(
    reference: str, parameters: dict[str, Any], folder: Path, exit_count: int
) -> Policy:
    """Build a policy from its name or import path and its parameters.

    Args:
        reference: a name in :data:`sim.policies.POLICIES`, ``package.module:Class``,
            ``package.module.Class``, or ``file.py:Class`` with the file relative to ``folder``.
        exit_count: exits of the network; a policy with a ``check(exit_count)`` method may refuse.

    Raises:
        PolicyError: it is unknown, cannot be imported, or refuses its parameters.
    """
    factory = POLICIES.get(reference) or _import(reference, folder)
    _check_parameters(factory, reference, parameters)
    try:
        policy = factory(**parameters)
        if hasattr(policy, "check"):
            policy.check(exit_count)
    except Exception as error:
        raise _refused(reference, error) from error
    return _policy(policy, reference)


def needs_fitting(policy: Policy) -> bool:
    """Whether :func:`fit_policy` must be called, with validation predictions, before a run.

    True of a policy with a method ``fitted``, unless its attribute ``needs_fitting`` says no.
    """
    return hasattr(policy, "fitted") and bool(getattr(policy, "needs_fitting", True))


def fit_policy(
    policy: Policy, reference: str, validation: Predictions, costs_s: tuple[float, ...]
) -> Policy:
    """The policy to use for a network: fitted on its validation predictions if it asks for that.

    Args:
        reference: the policy's name in messages.
        validation: of the same network as is simulated, never of the test split.
        costs_s: mean seconds from the image to each exit, going exit by exit as policies do that
            look at every confidence (:meth:`sim.nodes.service.Service.stepwise_means`).

    Raises:
        PolicyError: what was wished for cannot be had; the message says what can.
    """
    if not needs_fitting(policy):
        return policy
    try:
        fitted = cast(Any, policy).fitted(validation, costs_s)
    except Exception as error:
        raise _refused(reference, error) from error
    return _policy(fitted, reference)


def _policy(built: object, reference: str) -> Policy:
    if not callable(getattr(built, "decide", None)):
        raise PolicyError(f"policy {reference!r} has no method decide(request, node)")
    return cast(Policy, built)


def _refused(reference: str, error: Exception) -> PolicyError:
    # Whatever a user's class raises is theirs to mend; a ValueError is meant to be read.
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return PolicyError(f"policy {reference!r}: {text}")


def _import(reference: str, folder: Path) -> Callable[..., Policy]:
    if not is_import_path(reference):
        raise PolicyError(
            f"unknown policy {reference!r}{did_you_mean(reference, POLICIES)} "
            f"(allowed: {', '.join(POLICIES)}, or an import path such as my_policies.py:MyPolicy)"
        )
    try:
        return import_callable(reference, folder)
    except ImportError as error:
        raise PolicyError(f"policy {reference!r} {error}") from error


# --- parameters ----------------------------------------------------------------------------------


def _check_parameters(
    factory: Callable[..., Policy], reference: str, parameters: dict[str, Any]
) -> None:
    # A user's class may be another one whenever its file is read again.
    accepted, hints = (_known if reference in POLICIES else _described)(factory)
    if accepted is None or any(item.kind is item.VAR_KEYWORD for item in accepted.values()):
        return
    for name in parameters:
        if name not in accepted:
            allowed = f"allowed: {', '.join(accepted)}" if accepted else "it has none"
            raise PolicyError(
                f"policy {reference!r} has no parameter {name!r}{did_you_mean(name, accepted)} "
                f"({allowed})"
            )
    for name, item in accepted.items():
        if item.default is item.empty and name not in parameters:
            raise PolicyError(f"policy {reference!r} needs the parameter {name!r}")
    for name, value in parameters.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise PolicyError(
                f"policy {reference!r}: {name} is {value!r}; allowed: {_hint_text(hint)}"
            )


def _described(
    factory: Callable[..., Policy],
) -> tuple[Mapping[str, inspect.Parameter] | None, dict[str, Any]]:
    """The parameters of a policy, None if nobody can tell, and the annotations of some of them."""
    try:
        accepted = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None, {}
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except Exception:
        hints = {}  # annotations that cannot be looked up, say for type checkers only
    return accepted, hints


_known = functools.cache(_described)


_SINGLE = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_SEVERAL = {int: "integers", float: "numbers", str: "texts"}
_LISTS = (list, tuple, collections.abc.Sequence)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a parameter from YAML is what its annotation says; what we cannot tell, fits."""
    origin = typing.get_origin(hint) or hint
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if origin in _LISTS:
        return isinstance(value, list | tuple) and all(_fits(one, _entry(hint)) for one in value)
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, hint) if hint in (str, bool, type(None)) else True


def _entry(hint: Any) -> Any:
    """What the annotation of a list says of its entries."""
    arguments = typing.get_args(hint)
    alike = len(arguments) == 1 or arguments[1:] == (...,)
    return arguments[0] if alike else Any


def _hint_text(hint: Any) -> str:
    """What fits an annotation that something did not fit."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_hint_text(one) for one in arguments)
    if origin in _LISTS:
        several = _SEVERAL.get(_entry(hint))
        return f"a list of {several}" if several else "a list"
    return "null" if hint is type(None) else _SINGLE[hint]
