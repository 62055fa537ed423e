"""Running a sweep: what is missing is made, each point is simulated, tables are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import ResultsError
from offramp.console import Console
from offramp.folder_lock import alone_in
from offramp.manifest import environment, file_facts, kind_of, write_manifest
from offramp.pipeline import check_writable
from offramp.stages.layout import MANIFEST, POINTS
from offramp.store import Store
from offramp.sweep.backend import Backend, Call
from offramp.sweep.chunks import Chunk, Chunks
from offramp.sweep.definition import Sweep
from offramp.sweep.identity import identities_of
from offramp.sweep.journal import Counts, Journal
from offramp.sweep.point import Context, PointResult, simulate_points
from offramp.sweep.preparation import Preparation
from offramp.sweep.recorded import keep_profiles, named_files_of, recorded
from offramp.sweep.summary import Summary
from offramp.sweep.table import FAILURES, SUMMARY, TABLE, KeyKinds, Tables

LOCK = ".sweep.lock"

#: What is done is made to last, and told, this often: a commit waits for the disk.
COMMIT_EVERY_S = 1.0

#: Rewriting the table meanwhile takes at most this share of the time.
_TABLE_SHARE = 0.05
#: It is not rewritten more often than this.
_TABLE_EVERY_S = 10.0


@dataclass(frozen=True)
class Swept:
    """What a sweep gave.

    Attributes:
        counts: points with a result, and those that failed.
        failed_before: of these, those that an earlier run left as they are.
        summary: of the points with a result.
    """

    counts: Counts
    failed_before: int
    summary: Summary


def run_sweep(
    sweep: Sweep,
    store: Store,
    results: Path,
    console: Console,
    open_backend: Callable[[], Backend],
    retry_failed: bool = False,
    may_drop: bool = False,
) -> Swept:
    """Simulate every point that the results folder lacks, and write the tables.

    Args:
        open_backend: gives what runs the work, when there is some.
        retry_failed: run the points again that failed before.
        may_drop: whether finished points in the folder that are not of this sweep may be dropped.

    Raises:
        ResultsError: the folder cannot be written to, or holds something else, such as points of
            another sweep.
        BackendError: nothing is left to run the points; what was done is kept.
    """
    check_writable(results)
    store.check_writable()
    results.mkdir(parents=True, exist_ok=True)
    with _alone_in(results):
        journal = Journal(results)
        try:
            run = _Run(sweep, store, results, console, journal)
            return run.run(open_backend, retry_failed, may_drop)
        finally:
            journal.close()


@contextmanager
def _alone_in(results: Path) -> Iterator[None]:
    """Keep other sweeps out of the folder, and stay out of folders of other things."""
    kind = kind_of(results / MANIFEST)
    if kind is not None and (kind != "sweep" or not (results / POINTS).exists()):
        raise ResultsError(
            f"{results} holds the results of something else: name another folder with --output"
        )
    with alone_in(results, LOCK, "sweep"):
        yield


class _Run:
    """One run of the command."""

    def __init__(
        self, sweep: Sweep, store: Store, results: Path, console: Console, journal: Journal
    ) -> None:
        self._sweep = sweep
        self._points = sweep.points
        self._store = store
        self._results = results
        self._console = console
        self._journal = journal
        context = Context.here(sweep.template, store)
        self._preparation = Preparation(context, store, console)
        self._identities = identities_of(context)
        self._committed_s = time.monotonic()
        self._table_due_s = self._committed_s + _TABLE_EVERY_S

    def run(self, open_backend: Callable[[], Backend], retry_failed: bool, may_drop: bool) -> Swept:
        """See :func:`run_sweep`."""
        start = time.monotonic()
        tables = self._look(retry_failed, may_drop)
        before = self._journal.counts()
        failed = before.failed - before.died
        # Whoever killed workers may be gone, and where memory ran out there may be more now.
        missing = len(self._points) - before.done - failed
        self._console.note(
            f"{before.done} of {len(self._points)} points are in {self._results}"
            + (f", {failed} failed before" if failed else "")
            + (f", workers died on {before.died}" if before.died else "")
        )
        if missing:
            backend = open_backend()
            # Only now: a sweep that cannot begin leaves a finished one as it is.
            (self._results / MANIFEST).unlink(missing_ok=True)
            try:
                self._simulate(backend, missing, tables)
            finally:
                backend.close()
                self._journal.commit()
        elif retry_failed or failed == 0:
            self._console.note("nothing is missing")
        summary = tables.write()
        self._write_manifest(time.monotonic() - start)
        return Swept(self._journal.counts(), failed, summary)

    # --- what there is ---------------------------------------------------------------------------

    def _look(self, retry_failed: bool, may_drop: bool) -> Tables:
        """Look through all points: keep what fits, and note what the others need."""
        kinds = KeyKinds(len(self._sweep.keys))

        def identities() -> Iterator[tuple[int, bytes]]:
            for index in range(len(self._points)):
                yield index, self._identity(index)

        if not self._journal.fits(identities()):
            dropped = self._journal.keep(identities(), may_drop)
            if dropped and not may_drop:
                raise ResultsError(
                    f"{self._results} has {dropped} finished point(s) that are not of this sweep: "
                    "other values, files, versions, or another profile of this host. Name another "
                    "folder with --output, or say --yes to drop them"
                )
        if retry_failed:
            self._journal.forget_failed()
        for index in range(len(self._points)):
            kinds.add(self._points[index])
        for index in self._journal.missing(len(self._points)):
            self._preparation.look(self._points[index])
        keys = dict(zip(self._sweep.keys, kinds.kinds(), strict=True))
        return Tables(self._results, self._journal, self._points, keys)

    def _identity(self, index: int) -> bytes:
        values = self._points[index]
        hash = self._preparation.profile_hash(values)
        # A profile that is still to be measured is unlike any that was.
        return self._identities.of(values, "missing" if hash is None else hash)

    # --- work ------------------------------------------------------------------------------------

    def _simulate(self, backend: Backend, missing: int, tables: Tables) -> None:
        self._preparation.make_networks(backend)
        self._preparation.make_profiles()
        with self._console.task("simulate points", missing) as update:
            self._done, self._update, self._tables = 0, update, tables
            try:
                chunks = Chunks(missing, lambda: backend.workers)
                dead = self._run_chunks(backend, chunks, chunks.of(self._ready_points()))
                # On which of its points workers died shows if each is run by itself.
                several = [chunk for chunk in dead if len(chunk.points) > 1]
                single = (part for chunk in several for part in chunk.parts())
                dead = [chunk for chunk in dead if len(chunk.points) == 1]
                dead += self._run_chunks(backend, chunks, single)
                for chunk in dead:
                    self._add(PointResult.failed(chunk.points[0][0], str(chunk.error), died=True))
                self._commit()
            except KeyboardInterrupt:
                self._commit()
                tables.write_rows()
                raise

    def _ready_points(self) -> Iterator[Chunk]:
        """Every point that can be run; what the others need could not be made."""
        for index in self._journal.missing(len(self._points)):
            values = self._points[index]
            needs = self._preparation.needs(values)
            failure = self._preparation.failure(needs)
            if failure is None:
                yield Chunk([(index, values)], needs)
            else:
                self._add(PointResult.failed(index, str(failure.error), died=failure.died))

    def _run_chunks(
        self, backend: Backend, chunks: Chunks, of_points: Iterator[Chunk]
    ) -> list[Chunk]:
        """Run chunks of points; return those on which workers died."""
        under_way: dict[int, Chunk] = {}
        dead = []

        def calls() -> Iterator[Call]:
            for number, chunk in enumerate(of_points):
                under_way[number] = chunk
                yield Call((self._preparation.context, chunk.points), chunk.needs)

        for done in backend.run(simulate_points, calls()):
            chunk = under_way.pop(done.number)
            if done.error is not None:
                chunk.error = done.error
                dead.append(chunk)
                continue
            for result in done.value:
                self._add(result)
            chunks.learn(done.value)
            self._keep_up()
        return dead

    def _add(self, result: PointResult) -> None:
        self._journal.add(result, self._identity(result.index))
        self._done += 1

    def _keep_up(self) -> None:
        """Commit and show what is done, and rewrite the table, when it is time."""
        now_s = time.monotonic()
        if now_s - self._committed_s >= COMMIT_EVERY_S:
            self._commit()
        if now_s >= self._table_due_s:
            self._commit()
            start_s = time.monotonic()
            self._tables.write_rows()
            now_s = time.monotonic()
            pause_s = (now_s - start_s) * (1 / _TABLE_SHARE - 1)
            self._table_due_s = now_s + max(_TABLE_EVERY_S, pause_s)

    def _commit(self) -> None:
        self._journal.commit()
        self._committed_s = time.monotonic()
        self._update(self._done)

    # --- results ---------------------------------------------------------------------------------

    def _write_manifest(self, wall_s: float) -> None:
        sweep = self._sweep
        for values in self._points:  # those that were done before rest on networks, too
            self._preparation.look(values)
        inputs = self._preparation.hashes()
        keep_profiles(inputs, self._store, self._results)
        manifest = {
            "kind": "sweep",
            "name": sweep.base.scenario.name,
            **recorded(sweep),
            "keys": list(sweep.keys),
            "points": len(sweep.points),
            "files": file_facts(named_files_of(sweep)),
            "scenario": sweep.base.scenario.model_dump(),
            **environment(),
            "inputs": inputs,
            "wall_s": wall_s,
        }
        write_manifest(self._results / MANIFEST, manifest, [TABLE, SUMMARY, FAILURES])
