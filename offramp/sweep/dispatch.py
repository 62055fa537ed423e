"""Handing out the calls of a run to Dask workers, and what to do when one of them ends."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
from distributed.scheduler import KilledWorker, NoValidWorkerError

from models.brought_files import is_elsewhere
from offramp.sweep.backend import TRIES, Artefact, BackendError, Call, Done
from offramp.sweep.crew import Crew, Member
from offramp.sweep.errands import Answer, Task, WorkerTroubleError, errand, receive, work
from offramp.sweep.mirror import Layout, MissingBlobsError, Piece
from offramp.sweep.post import Outcome, Post
from offramp.sweep.shipping import Luggage, Packer, unpack_artefact

#: A call that takes less, in seconds, is worth queueing at a worker that does another.
_QUICK_S = 2.0

#: How many workers are sent files at a time: the scheduler holds a part of them for each.
_MOST_RECEIVING = 32

#: How often workers may say that they lack what they were sent, or a connection break.
_MOST_MISSES = 5


@dataclass(eq=False)
class Attempt:
    """A call that is to be done, or under way.

    Attributes:
        deaths: of workers that had it.
        misses: how often a worker lacked what it was sent, or could not be reached.
        luggage: what it takes along.
        on_way: what is being sent ahead of the call; None once the call itself is.
        rest: what is to be sent after that.
    """

    number: int
    call: Call
    deaths: int = 0
    misses: int = 0
    member: Member | None = None
    luggage: Luggage | None = None
    on_way: list[Piece] | None = None
    rest: Iterator[list[Piece]] = field(default_factory=lambda: iter(()))


class Dispatch:
    """One run of calls.

    Each is given to one worker by name, so it is known who has which files, and a call that kills
    its worker is not handed on to the next by itself.

    Args:
        ships: whether workers may lack the driver's disk.
        identity: of the driver's store.
    """

    def __init__(
        self,
        crew: Crew,
        post: Post,
        function: Callable[..., Any],
        calls: Iterable[Call],
        store_root: Path,
        identity: str,
        ships: bool,
    ) -> None:
        self._crew = crew
        self._post = post
        self._function = cloudpickle.dumps(function)
        self._calls = enumerate(calls)
        self._store_root = store_root
        self._identity = identity
        self._ships = ships
        self._context: tuple[Any, bytes] | None = None
        self._packer: Packer | None = None
        self._layouts: dict[Artefact, Layout] = {}
        self._again: deque[Attempt] = deque()
        self._suspects: deque[Attempt] = deque()
        self._under_way: dict[str, Attempt] = {}
        self._ended: deque[Done] = deque()
        self._exhausted = False

    def ended(self) -> Iterator[Done]:
        """What has ended since this was last asked."""
        while self._ended:
            yield self._ended.popleft()

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self._exhausted and not (self._under_way or self._again or self._suspects)

    def drop_all(self) -> None:
        """Call off what is under way."""
        self._post.drop(*self._under_way)

    # --- handing out ---------------------------------------------------------------------------

    def hand_out(self) -> None:
        """Give work to everybody who has room for it."""
        members = self._crew.ready()
        emptying = len(self._suspects)
        for depth in (0, 1):
            for member in members:
                if len(member.keys) != depth or (depth and not self._may_queue(member)):
                    continue
                if depth and emptying:
                    emptying -= 1  # soon has nothing to do, for a call that is to run alone
                    continue
                attempt = self._next(alone=depth == 0)
                if attempt is None:
                    return
                if not self._give(attempt, member):
                    self._again.appendleft(attempt)
                    return

    def _may_queue(self, member: Member) -> bool:
        here = [self._under_way[key] for key in member.keys if key in self._under_way]
        return member.quick and not any(it.deaths or it.on_way for it in here)

    def _next(self, alone: bool) -> Attempt | None:
        if alone and self._suspects:
            return self._suspects.popleft()
        if self._again:
            return self._again.popleft()
        if not self._exhausted:
            for number, call in self._calls:
                return Attempt(number, call)
            self._exhausted = True
        return None

    def _give(self, attempt: Attempt, member: Member) -> bool:
        """Send a call to a worker, or what it needs first; False if too much is being sent."""
        attempt.member = member
        attempt.on_way = None
        if self._ships:
            attempt.luggage = self._luggage(attempt.call, member)
            lacking = [blob for blob in attempt.luggage.blobs() if not self._crew.has(member, blob)]
            if lacking:
                receiving = sum(it.on_way is not None for it in self._under_way.values())
                if receiving >= _MOST_RECEIVING:
                    return False
                assert self._packer
                attempt.rest = self._packer.pieces(lacking)
        self._proceed(attempt, member)
        return True

    def _proceed(self, attempt: Attempt, member: Member) -> None:
        """Send the next of what a call needs, or the call."""
        attempt.on_way = next(attempt.rest, None)
        if attempt.on_way is not None:
            sender = f"{attempt.number}-{member.address.rpartition(':')[2]}"
            payload = errand(receive, self._identity, attempt.on_way, sender)
        else:
            payload = errand(work, self._task(attempt, member))
        key = self._post.send(member.address, payload)
        member.keys.add(key)
        self._under_way[key] = attempt

    def _task(self, attempt: Attempt, member: Member) -> Task:
        assert member.joined
        context, *arguments = attempt.call.arguments
        return Task(
            function=self._function,
            arguments=cloudpickle.dumps(arguments, protocol=5),
            context=None if attempt.luggage else self._pickled(context),
            luggage=attempt.luggage,
            makes=attempt.call.makes,
            identity=self._identity,
            folder=context.folder if attempt.luggage else Path(),
            store_root=self._store_root,
            shares_store=member.joined.shares_store,
        )

    def _luggage(self, call: Call, member: Member) -> Luggage:
        assert member.joined
        context, *arguments = call.arguments
        if self._packer is None:
            self._packer = Packer(context.folder, self._store_root)
        packer = self._packer
        artefacts: dict[Artefact, Layout] = {}
        if not member.joined.shares_store:
            for artefact in call.needs:
                if artefact not in self._layouts:
                    self._layouts[artefact] = packer.artefact(artefact)
                artefacts[artefact] = self._layouts[artefact]
        files = packer.files(context.data, arguments)
        return Luggage(
            context=packer.add(self._pickled(context)),
            files=packer.layout(files),
            elsewhere={place: str(path) for place, path in files.items() if is_elsewhere(place)},
            artefacts=artefacts,
        )

    def _pickled(self, context: Any) -> bytes:
        if self._context is None or self._context[0] is not context:
            self._context = (context, cloudpickle.dumps(context, protocol=5))
        return self._context[1]

    # --- what comes of it ----------------------------------------------------------------------

    def hear(self, outcome: Outcome) -> bool:
        """Take an outcome, if it is that of a call of this run.

        Raises:
            BackendError: it is none that can be made good.
            OfframpError: what a worker made cannot be stored here.
        """
        attempt = self._under_way.pop(outcome.key, None)
        if attempt is None:
            return False
        member = attempt.member
        assert member
        member.keys.discard(outcome.key)
        match outcome.error:
            case None if attempt.on_way is not None:
                self._received(attempt, member)
            case None:
                self._arrived(attempt, member, pickle.loads(outcome.value))
            case MissingBlobsError() as error if attempt.misses < _MOST_MISSES:
                attempt.misses += 1
                self._crew.lacks(member, error.blobs)
                self._again.append(attempt)
            case WorkerTroubleError() as error:
                self._crew.set_aside(member, str(error))
                self._again.append(attempt)
            case KilledWorker():
                self._died(attempt)
                self._crew.leaves(member)  # before anything else is given to it
                self.lost(member, gone=True)
            case CancelledError() | NoValidWorkerError():
                self._again.append(attempt)  # the cluster was restarted by somebody
            case OSError() if attempt.misses < _MOST_MISSES:
                attempt.misses += 1  # a connection broke; if the scheduler's, that is seen next
                self._again.append(attempt)
            case error:
                raise BackendError(
                    f"worker {member.name} could not be given work: {type(error).__name__}: {error}"
                ) from error
        return True

    def _received(self, attempt: Attempt, member: Member) -> None:
        for piece in attempt.on_way or ():
            if piece.start + len(piece.content) == piece.size:
                member.received.add(piece.blob)
                self._crew.keeps(member, {piece.blob})
        self._proceed(attempt, member)

    def _arrived(self, attempt: Attempt, member: Member, answer: Answer) -> None:
        if answer.raised:
            text, error = answer.raised
            if not isinstance(error, MemoryError):
                raise error or RuntimeError(text)
            self._ended.append(Done(attempt.number, error="the worker ran out of memory"))
            return
        for artefact, files in answer.artefacts.items():
            unpack_artefact(self._store_root, artefact, files)
        self._crew.keeps(member, answer.blobs)
        member.quick = answer.wall_s < _QUICK_S
        self._ended.append(Done(attempt.number, answer.value))

    def lost(self, member: Member, gone: bool) -> None:
        """Take back what a worker had.

        Args:
            gone: it has ended, maybe of what it was doing; else it merely does nothing.
        """
        keys = [key for key in member.keys if key in self._under_way]
        self._post.drop(*keys)
        for key in keys:
            member.keys.discard(key)
            attempt = self._under_way.pop(key)
            if gone and attempt.on_way is None:
                self._died(attempt)
            else:
                self._again.append(attempt)

    def _died(self, attempt: Attempt) -> None:
        attempt.deaths += 1
        if attempt.deaths < TRIES:
            self._suspects.append(attempt)
        else:
            self._ended.append(Done(attempt.number, error=DIED))


DIED = (
    f"the worker process ended before it was done, each of {TRIES} times: memory ran out, or it "
    "was killed"
)
