"""The tree of exceptions for everything a user can mend.

The command line turns any of them into one message and exit status 2. Anything else that
escapes is a defect of Offramp.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """A question after the allowed name most like ``given``, or nothing; ends a clause."""
    matches = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def innermost_reason(error: BaseException) -> str:
    """The first line of what went wrong first: libraries wrap it in advice of their own."""
    while True:
        inner = getattr(error, "inner_exception", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class OfframpError(Exception):
    """Base of every error that Offramp raises on purpose."""


def error_text(error: BaseException) -> str:
    """What is told of an error: its message, after its type where it is none of Offramp's."""
    return str(error) if isinstance(error, OfframpError) else f"{type(error).__name__}: {error}"


class ScenarioError(OfframpError):
    """A scenario is not valid; the message names file, line, key and what is allowed."""


class DataError(OfframpError):
    """A dataset is missing, damaged or cannot be downloaded."""


class ArtifactError(OfframpError):
    """A profile, predictions or records file is missing, damaged, foreign or does not fit."""


class CheckpointError(ArtifactError):
    """A checkpoint is truncated, foreign, or made for another network."""


class NetworkError(OfframpError):
    """A network cannot be built, cut or computed as it is asked to be, or misses weights."""


class TrainingError(OfframpError):
    """Training cannot go on (for example: the loss is no longer finite)."""


class PolicyError(OfframpError):
    """A policy cannot be imported or built, raised, or returned an impossible decision."""


class ResultsError(OfframpError):
    """A results folder cannot be written, or does not hold what a report needs."""


class BrokerError(OfframpError):
    """An MQTT broker cannot be reached, refuses a client, or cannot do what is asked of it."""


class LiveError(OfframpError):
    """A live run, node or fleet cannot start, or cannot go on."""
