"""The workers of a Dask cluster: who is there, who may be given work, who has gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from offramp.console import Console
from offramp.sweep.backend import BackendError
from offramp.sweep.errands import Joined, WorkerTroubleError, ask_versions, errand, join
from offramp.sweep.post import Outcome, Post
from offramp.sweep.versions import CODE, differences, versions

#: How often the scheduler is asked who is there, in seconds; of more workers less often.
_LOOK_EVERY_S = 1.0
_WORKERS_EACH_LOOK = 200

#: A scheduler that takes longer to answer is lost.
_ANSWER_WITHIN_S = 30.0

_LOST = "the connection to the scheduler is lost: is it still running?"

#: A worker that takes longer to say who it is gets no work.
_JOIN_WITHIN_S = 120.0


@dataclass(eq=False)
class Member:
    """A worker.

    Attributes:
        joined: what it said of itself; None until then.
        aside: gets no work: refused, or in trouble.
        paused: so short of memory that it begins nothing.
        busy: does something.
        received: blobs that it was sent and has.
        keys: errands that it was given.
        quick: its calls take so little that the next may wait for it there.
    """

    address: str
    name: str
    since: float
    joined: Joined | None = None
    aside: bool = False
    paused: bool = False
    busy: bool = False
    received: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    quick: bool = False

    @property
    def ready(self) -> bool:
        """Whether it may be given work."""
        return self.joined is not None and not self.aside and not self.paused


class Crew:
    """Everybody who is there.

    Args:
        client: a ``distributed.Client``.
        store_root, identity: of the driver's store.
    """

    def __init__(
        self, client: Any, post: Post, console: Console, store_root: Path, identity: str
    ) -> None:
        self._client = client
        self._post = post
        self._console = console
        self._store_root = store_root
        self._identity = identity
        self._versions = versions()
        self._joining: dict[str, Member] = {}
        self._mirrors: dict[str, set[str]] = {}
        self._looked = float("-inf")
        self._told: set[str] = set()
        self.members: dict[str, Member] = {}
        self.refusals: list[str] = []
        #: Why workers are not used any more.
        self.put_aside: list[str] = []

    def ready(self) -> list[Member]:
        """Those who may be given work."""
        return [member for member in self.members.values() if member.ready]

    def joining(self) -> bool:
        """Whether somebody is about to join."""
        return bool(self._joining)

    def working(self) -> bool:
        """Whether there is somebody who does something, or may."""
        return any(
            member.joined and not member.aside and (member.busy or not member.paused)
            for member in self.members.values()
        )

    def has(self, member: Member, blob: str) -> bool:
        """Whether a worker has a blob, as far as is known."""
        assert member.joined
        return blob in member.received or blob in self._mirrors[member.joined.mirror]

    def keeps(self, member: Member, blobs: set[str] | frozenset[str]) -> None:
        """Note that blobs are in the worker's mirror, which others may share."""
        assert member.joined
        self._mirrors[member.joined.mirror] |= blobs

    def lacks(self, member: Member, blobs: frozenset[str]) -> None:
        """Note that they are not."""
        assert member.joined
        self._mirrors[member.joined.mirror] -= blobs
        member.received -= blobs

    def set_aside(self, member: Member, why: str) -> None:
        """Give a worker no more work."""
        member.aside = True
        self.put_aside.append(f"worker {member.name} is not used: {why}")
        self.tell(f"worker {member.name} is not used any more: {why}")

    def leaves(self, member: Member) -> None:
        """Note that a worker has ended, if that is heard before the scheduler was asked."""
        self.members.pop(member.address, None)

    def tell(self, line: str) -> None:
        """Say something once."""
        if line not in self._told:
            self._told.add(line)
            self._console.note(line)

    # --- who is there --------------------------------------------------------------------------

    def look(self) -> list[Member]:
        """Ask the scheduler, if it is time to; return workers that cannot go on.

        They are gone, or so short of memory that they do not begin what they were given.

        Raises:
            BackendError: the scheduler is lost.
        """
        if self._client.status != "running":
            raise BackendError(_LOST)
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S * max(1, len(self.members) / _WORKERS_EACH_LOOK):
            return []
        try:
            there = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_WITHIN_S
            )["workers"]
        except TimeoutError as error:
            raise BackendError(
                f"the scheduler did not answer for {_ANSWER_WITHIN_S:.0f} s"
            ) from error
        except (OSError, RuntimeError, AttributeError) as error:
            raise BackendError(_LOST) from error
        self._looked = time.monotonic()
        gone = [member for address, member in self.members.items() if address not in there]
        for member in gone:
            del self.members[member.address]
            self._forget_joining(member)
        for address, about in there.items():
            if address not in self.members:
                self._ask_in(address, about)
        return gone + [
            member
            for address, member in self.members.items()
            if self._is_stuck(member, there.get(address, {}))
        ]

    def _is_stuck(self, member: Member, about: dict[str, Any]) -> bool:
        member.paused = about.get("status") == "paused"
        member.busy = bool(about.get("metrics", {}).get("task_counts", {}).get("executing"))
        if not member.paused or member.busy or not member.keys:
            return False
        self.tell(f"worker {member.name} is short of memory, and gets nothing until it has some")
        return True

    def _ask_in(self, address: str, about: dict[str, Any]) -> None:
        host = address.split("://")[-1].rpartition(":")[0]
        name = str(about.get("name", address))
        name = address if address in name else f"{name} on {host}"
        member = self.members[address] = Member(address, name, time.monotonic())
        self._joining[self._post.send(address, ask_versions())] = member
        if about.get("nthreads", 1) > 1:
            self.tell(
                "note: a sweep runs one thing at a time in each worker process; start workers "
                f"with one thread each (--nthreads 1): {member.name} has {about['nthreads']}"
            )

    def _forget_joining(self, member: Member) -> None:
        for key in [key for key, joining in self._joining.items() if joining is member]:
            del self._joining[key]
            self._post.drop(key)

    # --- joining -------------------------------------------------------------------------------

    def hear(self, outcome: Outcome) -> bool:
        """Take an outcome, if it is that of somebody who is joining."""
        member = self._joining.pop(outcome.key, None)
        if member is None:
            return False
        if isinstance(outcome.error, WorkerTroubleError):
            self.set_aside(member, str(outcome.error))
        elif isinstance(outcome.error, PackageNotFoundError):
            self._refuse(member, f"{outcome.error.args[0]} is not installed")
        elif isinstance(outcome.error, (ImportError, AttributeError, TypeError)):
            self._refuse(member, f"its Offramp is another: {outcome.error}")
        elif outcome.error is not None:
            # It is about to end, or the cluster was restarted: whoever is still there is asked.
            self.members.pop(member.address, None)
        elif isinstance(outcome.value, Joined):
            self._take(member, outcome.value)
        else:
            self._compare(member, outcome.value)
        return True

    def give_up_waiting(self) -> None:
        """Set those aside who were asked in long ago and do not answer."""
        now = time.monotonic()
        for member in list(self._joining.values()):
            if now - member.since > _JOIN_WITHIN_S:
                self._forget_joining(member)
                self.set_aside(member, f"it did not answer within {_JOIN_WITHIN_S:.0f} s")

    def _compare(self, member: Member, theirs: dict[str, str]) -> None:
        theirs = {**theirs, "python": ".".join(theirs["python"].split(".")[:2])}
        different = differences(self._versions, theirs)
        if different:
            self._refuse(member, different)
            return
        payload = errand(join, self._store_root, self._identity)
        self._joining[self._post.send(member.address, payload)] = member

    def _take(self, member: Member, joined: Joined) -> None:
        different = differences(self._versions, {CODE: joined.code})
        if different:
            self._refuse(member, different)
            return
        member.joined = joined
        self._mirrors.setdefault(joined.mirror, set()).update(joined.blobs)

    def _refuse(self, member: Member, different: str) -> None:
        member.aside = True
        self.refusals.append(f"worker {member.name} has other versions: {different}")
