"""Names of the MQTT topics of Offramp's wire protocol, version 1 (``docs/protocol.md``).

An *edge* is a kind of node (a key of the scenario's ``nodes``), a *node* one instance of it. All
nodes of one edge serve the same requests, which is why devices address the edge.
"""

from __future__ import annotations

import re

#: Version of the protocol: in every topic and as ``v`` in every message.
VERSION = 1

_ROOT = f"offramp/{VERSION}"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def is_name(text: str) -> bool:
    """Whether an edge, node or device may be called this: 1 to 64 of ``A-Za-z0-9._-``."""
    return _NAME.fullmatch(text) is not None


def _check(kind: str, name: str) -> str:
    if not is_name(name):
        raise ValueError(
            f"{name[:80]!r} cannot name {kind} in a topic: a name is 1 to 64 of the letters A–Z "
            "and a–z, digits, '.', '_' and '-'"
        )
    return name


def request_topic(edge: str, device: str) -> str:
    """Where ``device`` publishes its requests to ``edge``.

    Raises:
        ValueError: a name has other characters than a topic may hold, or too many.
    """
    return f"{_ROOT}/request/{_check('an edge', edge)}/{_check('a device', device)}"


def reply_topic(edge: str, device: str) -> str:
    """Where ``device`` reads the replies of ``edge``; ``ValueError`` on bad names."""
    return f"{_ROOT}/reply/{_check('an edge', edge)}/{_check('a device', device)}"


def status_topic(edge: str, node: str) -> str:
    """Where the retained status of ``node`` stands; ``ValueError`` on bad names."""
    return f"{_ROOT}/status/{_check('an edge', edge)}/{_check('a node', node)}"


def report_topic(edge: str, device: str) -> str:
    """Where ``device`` reports what it measured itself; ``ValueError`` on bad names."""
    return f"{_ROOT}/report/{_check('an edge', edge)}/{_check('a device', device)}"


def request_filter(edge: str, shared: bool = False) -> str:
    """Filter for the requests of all devices to ``edge``; ``ValueError`` on a bad name.

    Args:
        shared: the nodes of the edge share the requests among them (MQTT 5 shared subscription).
    """
    group = f"$share/offramp-{_check('an edge', edge)}/" if shared else ""
    return f"{group}{_ROOT}/request/{_check('an edge', edge)}/+"


def status_filter(edge: str) -> str:
    """Filter for the status of all nodes of ``edge``; ``ValueError`` on a bad name."""
    return f"{_ROOT}/status/{_check('an edge', edge)}/+"


def report_filter(edge: str) -> str:
    """Filter for the reports of all devices to ``edge``; ``ValueError`` on a bad name."""
    return f"{_ROOT}/report/{_check('an edge', edge)}/+"


def reply_filter(edge: str) -> str:
    """Filter for the replies of ``edge`` to all devices; ``ValueError`` on a bad name."""
    return f"{_ROOT}/reply/{_check('an edge', edge)}/+"


def device_of(topic: str, edge: str) -> str | None:
    """The device that sent a message on ``topic``; None if that is no request topic of ``edge``."""
    return _last_level(topic, f"{_ROOT}/request/{edge}/")


def reporter_of(topic: str, edge: str) -> str | None:
    """The device that reports on ``topic``; None if that is no report topic of ``edge``."""
    return _last_level(topic, f"{_ROOT}/report/{edge}/")


def node_of(topic: str, edge: str) -> str | None:
    """The node whose status stands at ``topic``; None if that is no status topic of ``edge``."""
    return _last_level(topic, f"{_ROOT}/status/{edge}/")


def _last_level(topic: str, before: str) -> str | None:
    if not topic.startswith(before):
        return None
    name = topic[len(before) :]
    return name if is_name(name) else None
