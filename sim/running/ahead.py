"""An open world: the network is computed ahead of the nodes, and after them.

The way of requests to their nodes is computed for a slice of time, the nodes are simulated for that
slice, and the way home of the answers is computed after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.artifacts import Predictions
from sim.clock import Clock
from sim.network.transport import Messages
from sim.nodes.requests import Request
from sim.policy import Policy
from sim.results.run import Run
from sim.running.engine import Engine
from sim.running.finished import Finished
from sim.running.ledger import Ledger
from sim.running.slices import Slices
from sim.workload.device_groups import Row, rows_of
from sim.world import World


class Ahead(Engine):
    """The way up is computed ahead, the way home afterwards."""

    def __init__(
        self,
        world: World,
        workload: Slices,
        predictions: Predictions,
        policy: Policy,
        deadline_scale: float,
    ) -> None:
        # Nodes that never send on know nothing of each other: each runs by itself, on a clock of
        # its own, and mostly needs no event.
        self._clocks: list[Clock] = []
        self._apart = all(node.next_tier is None for node in world.nodes)
        super().__init__(world, workload, predictions, policy, deadline_scale)
        if not self._apart:
            self._clocks.append(self.clock)
        self._ledger = Ledger()
        besides = [spec.overheads for spec in world.nodes if spec.overheads]
        self._read_late = any(it.reads_late for it in besides)
        self._leave_late = any(it.answers_late for it in besides)

    def clock_of_node(self) -> Clock:
        """See :class:`sim.running.engine.Engine`."""
        if not self._apart:
            return self.clock
        self._clocks.append(Clock())
        return self._clocks[-1]

    def parts(self) -> Iterator[Run]:
        """The requests that are done after each slice of time."""
        ledger, waiting = self._ledger, Finished.none()
        for part in self.workload.slices():
            ledger.add(part.first, part.requests)
            if len(part.arrived):
                ledger.note(part.arrived.request, part.arrived.node, part.arrived.at_s)
                made = self.made(part.arrived, part.arriving)
                for node, requests in zip(self.nodes, made, strict=True):
                    node.expect(requests)
            ledger.note(part.lost.request, part.lost.node)
            for clock in self._clocks:
                if np.isfinite(part.until_s):
                    clock.run(until=part.until_s)
                else:
                    clock.run()
            if self._read_late:
                self.note_arrivals(ledger)
            done = Finished.of(self.done, bool(self.links), self.has_batches, self._leave_late)
            self.done.clear()
            home, lost = self.way_home.advance(self._answers(done, ledger), part.until_s)
            pool = Finished.joined([waiting, done, Finished.never(part.lost)])
            pool = pool.received(home).never_received(lost)
            final = pool.is_final
            waiting = pool.where(~final)
            yield self.outcomes(ledger, pool.where(final))

    def row(self, request: Request) -> Row:
        """See :class:`sim.running.engine.Engine`."""
        return next(rows_of(self._ledger.rows(np.array([request.index]))))

    def _answers(self, done: Finished, ledger: Ledger) -> Messages:
        """Answers that set out from the nodes that devices know."""
        answered = done.where(done.exit > 0)
        requests = ledger.rows(answered.index)
        return Messages(
            answered.index,
            requests.group,
            requests.device,
            requests.local,
            requests.number,
            ledger.entries(answered.index)[0],
            np.zeros(len(answered.index), dtype=np.int64),
            answered.home_s,
        )
