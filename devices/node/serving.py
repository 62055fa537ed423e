"""The inference server of a live node: workers that compute segment by segment, as a policy says.

It knows no MQTT. Requests come in through :meth:`InferenceServer.offer`, on any thread, and leave
through the function that it is given, on the thread of whoever decided what becomes of them. The
rules are those of :class:`sim.nodes.node.Node` and :class:`sim.nodes.batching.BatchingNode`; where
real time makes a difference, this module says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np

from devices.node.cut_offs import CutOffs
from devices.node.inbox import MOST_WAITING, MOST_WAITING_BYTES, Inbox
from devices.node.node_metrics import NodeMetrics
from devices.node.views import Clock, LiveNode, LiveRequest
from devices.protocol.images import decode_image
from devices.protocol.message_types import BadRequest
from models.errors import PolicyError
from models.inference.runtimes import SegmentRuntime
from sim.nodes.spec import NodeSpec
from sim.policy import ANSWER, DROP, OFFLOAD, Decision, Policy, policy_text

log = logging.getLogger(__name__)

#: Different texts that are logged at all.
_MOST_TOLD = 100


class InferenceServer:
    """Workers before one inbox.

    Args:
        name: of this node, as the policy sees it.
        spec: of its kind; ``spec.service`` holds latencies that were measured with ``runtime``.
        runtime: computes the network; used by all workers at once.
        input_shape: channels, height and width that the network takes.
        left: called once with every request that was offered, when it leaves.
        most_waiting, most_waiting_bytes: bounds of the inbox, whatever ``spec`` allows.
    """

    def __init__(
        self,
        name: str,
        spec: NodeSpec,
        runtime: SegmentRuntime,
        policy: Policy,
        input_shape: Sequence[int],
        left: Callable[[LiveRequest], None],
        metrics: NodeMetrics | None = None,
        clock: Clock = time.monotonic,
        most_waiting: int = MOST_WAITING,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self.inbox = Inbox(spec, clock, most_waiting, most_waiting_bytes)
        self.view = LiveNode(name, spec.service, spec.last_exit or runtime.exit_count, self.inbox)
        self.clock = clock
        self._runtime = runtime
        self._policy = policy
        self._input_shape = input_shape
        self._left = left
        self._metrics = metrics or NodeMetrics()
        self._metrics.watch_queue(lambda: len(self.inbox))
        # Held by whoever changes what is computed of a request, or decides what becomes of it.
        self._settling = threading.Lock()
        # A user's policy need not be made for several threads.
        self._deciding = threading.Lock()
        self._cut_offs = CutOffs(self._cut_off, clock)
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(spec.workers)
        ]
        self._told: set[str] = set()

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def offer(self, request: LiveRequest) -> None:
        """Let a request wait for a worker, or refuse it; returns at once."""
        refused = self.inbox.offer(request)
        if refused is not None:
            self._settle(request, reason=refused)

    def drain(self, timeout_s: float) -> bool:
        """Refuse what comes, and serve what is here; whether that was done in time."""
        return self.inbox.drain(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the workers. What still waits is dropped; what is being computed is answered.

        Args:
            timeout_s: after which a worker that still computes is left alone.
        """
        until_s = time.monotonic() + timeout_s
        for request in self.inbox.close():
            self._settle(request, reason="draining")
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until_s - time.monotonic()))
        self._cut_offs.close()

    # --- workers -------------------------------------------------------------------------------

    def _work(self) -> None:
        self._runtime.prepare_thread()
        while batch := self.inbox.take():
            now_s = self.clock()
            for request in batch:
                request.started_s = now_s
            try:
                self._serve(batch)
            except Exception as error:
                self._tell_once(f"inference failed: {type(error).__name__}: {error}", error)
                for request in batch:
                    self._settle(request, error=("internal_error", "the inference failed"))
            finally:
                self.inbox.done()

    def _serve(self, batch: list[LiveRequest]) -> None:
        """Ask about every member whose exit was reached; compute on those that stay.

        All are computed to the nearest exit that any of them wants. Who has left, because it was
        cut off or the policy said so, is taken out of the batch before the next segment.
        """
        position, state, rows = 0, None, batch
        while True:
            for request in rows:
                if request.exit == position and self._goes_on(request) and not position:
                    self._decode_image(request)
            rows, state = self._present(rows, state)
            if not rows:
                return
            if not position:
                state = self._start(rows)
            for request in rows:
                request.batch = max(request.batch, len(rows))
            to = min([request.target for request in rows])
            timed = [request for request in rows if request.cut_at_s < inf]
            if timed:
                self._cut_offs.watch(timed)
            try:
                rows, state = self._compute(rows, state, position, to, bool(timed))
            finally:
                if timed:
                    self._cut_offs.forget(timed)
            position = to

    def _start(self, rows: list[LiveRequest]) -> Any:
        self._metrics.batch_started(len(rows))
        images = [request.image for request in rows if request.image is not None]
        return self._runtime.start(images[0][None] if len(images) == 1 else np.stack(images))

    def _compute(
        self, rows: list[LiveRequest], state: Any, since: int, to: int, some_may_leave: bool
    ) -> tuple[list[LiveRequest], Any]:
        """Compute on from exit ``since`` to exit ``to``, where those that want it are classified.

        Args:
            some_may_leave: time may be up for some meanwhile.

        Returns:
            The requests that are in the state then, one for each row.
        """
        runtime = self._runtime
        for exit in range(since + 1, to + 1):
            state = runtime.run_segment(exit, state)
            if some_may_leave:
                rows, state = self._present(rows, state)
                if not rows:
                    return rows, state
        answers = runtime.classify(to, state)
        for request, confidence, predicted in zip(rows, *answers, strict=True):
            if request.target == to:
                self._reached(request, confidence, predicted)
        return rows, state

    def _present(self, rows: list[LiveRequest], state: Any) -> tuple[list[LiveRequest], Any]:
        """Those that have not left, and the state without the others."""
        present = [row for row, request in enumerate(rows) if not self._was_cut_off(request)]
        if len(present) == len(rows):
            return rows, state
        if present and state is not None:
            state = self._runtime.take(state, present)
        return [rows[row] for row in present], state

    def _decode_image(self, request: LiveRequest) -> None:
        """Decode what came, if that is not done yet; what cannot be read leaves with an error."""
        if request.image is None:
            try:
                request.image = decode_image(request.asked, self._input_shape)
            except BadRequest as bad:
                self._settle(request, error=(bad.code, bad.message))

    def _goes_on(self, request: LiveRequest) -> bool:
        """Ask the policy; whether the request stays to be computed to its new target."""
        try:
            with self._deciding:
                decision = self._policy.decide(request, self.view)
        except Exception as error:
            known = isinstance(error, PolicyError)
            what = str(error) if known else f"raised {type(error).__name__}: {error}"
            self._policy_failed(request, what, None if known else error)
            return False
        if decision.__class__ is Decision and request.exit < decision.exit <= self.view.exit_count:
            request.target = decision.exit
            if decision.within_s is not None:
                request.cut_at_s = self.clock() + decision.within_s
            return True
        if decision is ANSWER and request.exit:
            self._settle(request)
        elif decision is DROP:
            self._settle(request, reason="policy")
        else:
            self._policy_failed(request, _impossible(request, decision, self.view.exit_count))
        return False

    def _policy_failed(
        self, request: LiveRequest, what: str, error: Exception | None = None
    ) -> None:
        text = f"policy {policy_text(self._policy)} {what}"
        self._tell_once(text, error)
        self._settle(request, error=("policy_failed", text))

    # --- what becomes of a request -------------------------------------------------------------

    def _reached(self, request: LiveRequest, confidence: float, predicted: int) -> None:
        """An exit was computed, unless time was up before."""
        if self._was_cut_off(request):
            return
        with self._settling:
            if not request.has_left:
                request.exit, request.cut_at_s = request.target, inf
                request.confidence, request.predicted = confidence, predicted
                request.computed.append(confidence)

    def _was_cut_off(self, request: LiveRequest) -> bool:
        """Whether it has left; time that is up is noticed here if it was not before."""
        if request.cut_at_s < inf and not request.has_left:
            self._cut_off(request)
        return request.has_left

    def _cut_off(self, request: LiveRequest) -> None:
        """Where time is up, the last exit that was finished answers."""
        with self._settling:
            # Its worker may have reached the next exit since somebody saw that.
            if request.has_left or self.clock() < request.cut_at_s:
                return
            request.has_left = True
            request.reason = None if request.exit else "policy"
        self._leave(request)

    def _settle(
        self,
        request: LiveRequest,
        reason: str | None = None,
        error: tuple[str, str] | None = None,
    ) -> None:
        """It leaves: answered, dropped for a reason, or with an error; unless it has left."""
        with self._settling:
            if request.has_left:
                return
            request.has_left = True
            request.reason, request.error = reason, error
        self._leave(request)

    def _leave(self, request: LiveRequest) -> None:
        request.finished_s = self.clock()
        try:
            self._metrics.request_left(request)
            self._left(request)
        except Exception as error:
            self._tell_once(f"a reply failed: {type(error).__name__}: {error}", error)

    def _tell_once(self, text: str, error: Exception | None) -> None:
        """Log what went wrong, each text once: a node that is asked often shall not flood."""
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            log.error("%s (said once; the node goes on)", text, exc_info=error)


def _impossible(request: LiveRequest, decision: object, exit_count: int) -> str:
    tier = "; a live node has no next tier" if decision is OFFLOAD else ""
    return (
        f"decided {decision!r} after exit {request.exit}{tier}; possible are "
        f"run_to({request.exit + 1}) to run_to({exit_count}), DROP, and ANSWER once an exit is "
        "computed"
    )
