"""Virtual devices: real MQTT clients that send what the simulator's devices would.

One process and one event loop drive hundreds of them. A run begins once every node is online and
every device connected. Its clock is monotonic, and a request is created at the instant for which it
was drawn, whether its device has a connection then or not: a device without one keeps requests of
QoS 1 and 2, up to a limit, and loses those of QoS 0.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from paho.mqtt.client import MQTTMessage

from devices.frozen_heap import frozen_heap
from devices.mqtt.connections import check_broker
from devices.mqtt.mqtt_loop import LoopedClient, MqttLoop
from devices.protocol.topics import is_name, reply_topic, request_topic
from devices.virtual.alarm import now_s
from devices.virtual.exchange import Device, Exchange
from devices.virtual.fleet_log import FleetResult
from devices.virtual.fleet_settings import FleetSettings, SampleSet
from devices.virtual.live_workload import LiveWorkload
from devices.virtual.node_watch import NodeWatch
from devices.virtual.progress import Progress
from devices.virtual.request_payloads import GroupPayloads
from models.errors import BrokerError, LiveError
from sim.world import World

#: From the moment when everything is ready until the clock of the run starts.
_LEAD_S = 0.2
#: How often the end of the run is looked for.
_LOOK_EVERY_S = 0.1

_T = TypeVar("_T")


def run_fleet(
    world: World,
    samples: SampleSet,
    replication: int,
    settings: FleetSettings,
    groups: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> FleetResult:
    """Run the devices of a world for one replication, in real time.

    The run ends early at SIGINT or SIGTERM, if this is the main thread, or when ``stop`` is set.
    Every request that was created until then is in the result.

    Args:
        groups: names of the device groups to run; by default all of them.
        on_progress: called now and then by the thread that drives the devices: it must be quick.

    Raises:
        BrokerError: the broker cannot be reached or refuses the devices.
        LiveError: nodes are not there or serve other images, or devices cannot be run like this.
        KeyboardInterrupt: it was stopped before it had begun.
    """
    fleet = _Fleet(world, samples, replication, settings, groups, stop)
    with asyncio.Runner() as runner:
        return runner.run(fleet.run(on_progress or (lambda progress: None)))


class _Fleet:
    """One replication in progress."""

    def __init__(
        self,
        world: World,
        samples: SampleSet,
        replication: int,
        settings: FleetSettings,
        groups: Sequence[str] | None,
        stop: threading.Event | None,
    ) -> None:
        self._world = world
        self._samples = samples
        self._replication = replication
        self._settings = settings
        self._stop_elsewhere = stop
        self._groups = chosen_groups(world, groups)
        self._payloads = {
            index: GroupPayloads(world.groups[index], samples.images, samples.sample)
            for index in self._groups
        }
        self._workload = LiveWorkload(world, samples.labels, replication, self._groups)
        self._clients: list[LoopedClient] = []
        self._failure: BaseException | None = None

    async def run(self, on_progress: Callable[[Progress], None]) -> FleetResult:
        """See :func:`run_fleet`."""
        world, settings = self._world, self._settings
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.set_exception_handler(self._failed)
        edges = sorted({world.groups[index].node for index in self._groups})
        self._watch = NodeWatch(edges)
        devices: dict[int, Device] = {}
        exchange = self._exchange = Exchange(
            self._workload,
            devices,
            self._samples.labels.tolist(),
            world.node_names,
            world.warm_up_s,
            expires=settings.broker.version == "5",
            grace_s=settings.grace_s,
        )
        with self._signals():
            try:
                await self._unless_stopped(asyncio.to_thread(check_broker, settings.broker))
                async with MqttLoop(
                    settings.broker, settings.keep_alive_s, forget=settings.persistent
                ) as mqtt:
                    await self._unless_stopped(self._see_nodes(mqtt, edges))
                    devices |= self._make_devices(mqtt)
                    await self._unless_stopped(self._all_ready(mqtt))
                    with frozen_heap():
                        exchange.start(now_s() + _LEAD_S)
                        cut_s = await self._follow(on_progress)
                        exchange.stop()
            finally:
                exchange.stop()
        if self._failure is not None:
            raise self._failure
        return self._result(cut_s)

    # --- getting ready -------------------------------------------------------------------------

    async def _see_nodes(self, mqtt: MqttLoop, edges: Sequence[str]) -> None:
        """Wait until all nodes are online, and see whether they take what devices will send."""
        settings, world = self._settings, self._world
        name = f"offramp-watch-{secrets.token_hex(4)}"
        mqtt.add(name, self._watch.topics, self._watch.heard)
        await self._all_ready(mqtt)
        kinds = {edge: world.kind(edge) for edge in edges}
        await self._watch.wait_online(
            {
                edge: world.node_names[world.first_node[kind] : world.first_node[kind + 1]]
                for edge, kind in kinds.items()
            },
            settings.wait_s,
            settings.broker.url,
        )
        shape = self._samples.images.shape[1:]
        for (_, name), status in self._watch.nodes.items():
            if status.input_shape not in (None, shape):
                raise LiveError(
                    f"node {name!r} takes images of {_by(status.input_shape)}, but the devices "
                    f"send {_by(shape)}: it serves a network for another dataset"
                )

    def _make_devices(self, mqtt: MqttLoop) -> dict[int, Device]:
        """The devices, which begin to connect."""
        world, settings = self._world, self._settings
        devices = {}
        for index in self._groups:
            group = world.groups[index]
            for number in range(world.first_device[index], world.first_device[index + 1]):
                name = world.device_name(number)
                if not is_name(name):
                    raise LiveError(
                        f"device {name!r} cannot stand in an MQTT topic: its group needs a name of "
                        "letters, digits, '.', '_' and '-', with the number 64 at most"
                    )
                # The name is the identifier too: access lists of brokers can go by it.
                client = mqtt.add(
                    name,
                    [reply_topic(group.node, name)],
                    partial(self._heard, number),
                    settings.qos,
                    settings.inflight,
                    clean=not settings.persistent,
                )
                self._clients.append(client)
                topic = request_topic(group.node, name)
                devices[number] = Device(topic, self._payloads[index], client.send)
        return devices

    def _heard(self, number: int, message: MQTTMessage) -> None:
        self._exchange.heard(number, bytes(message.payload))

    async def _all_ready(self, mqtt: MqttLoop) -> None:
        missing = await mqtt.all_ready(self._settings.wait_s)
        if missing:
            raise BrokerError(
                f"{len(missing)} of {len(mqtt.clients)} clients could not connect to "
                f"{self._settings.broker.url}: {missing[0].problem or 'it is slow to answer'}"
            )

    # --- the course of a run -------------------------------------------------------------------

    async def _follow(self, on_progress: Callable[[Progress], None]) -> float | None:
        """Let the run go on until its end.

        Returns:
            When it was stopped before that, in seconds from its start.
        """
        every_s = self._settings.progress_every_s
        next_s = 0.0
        while not self._is_stopped:
            time_s = self._exchange.time_s
            if self._is_over(time_s):
                return None
            if time_s >= next_s:
                next_s = time_s + every_s
                on_progress(self._progress(time_s))
            await self._pause(min(_LOOK_EVERY_S, every_s))
        return max(0.0, self._exchange.time_s)

    def _is_over(self, time_s: float) -> bool:
        exchange = self._exchange
        if time_s < self._world.horizon_s:
            return False
        return exchange.is_quiet or time_s > exchange.last_deadline_s + self._settings.grace_s

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """In the main thread, let signals end the run."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in numbers]
        for number in numbers:
            self._loop.add_signal_handler(number, self._stop.set)
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                self._loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: nothing that comes after it can be relied on."""
        if self._failure is None:
            self._failure = context.get("exception") or RuntimeError(context["message"])
        self._stop.set()

    @property
    def _is_stopped(self) -> bool:
        elsewhere = self._stop_elsewhere
        return self._stop.is_set() or (elsewhere is not None and elsewhere.is_set())

    async def _unless_stopped(self, preparation: Awaitable[_T]) -> _T:
        """Prepare something, unless the run is stopped meanwhile."""
        task = asyncio.ensure_future(preparation)
        while not task.done() and not self._is_stopped:
            await asyncio.wait({task}, timeout=_LOOK_EVERY_S)
        if task.done():
            return task.result()
        task.cancel()
        raise self._failure or KeyboardInterrupt

    # --- telling -------------------------------------------------------------------------------

    def _progress(self, time_s: float) -> Progress:
        exchange, meter = self._exchange, self._exchange.meter
        overdue = exchange.overdue(time_s)
        rate_hz, p50_s, p99_s = meter.recent(time_s)
        return Progress(
            time_s=time_s,
            horizon_s=self._world.horizon_s,
            created=len(exchange.log),
            answered=meter.answered,
            on_time=meter.on_time,
            correct_on_time=meter.correct_on_time,
            dropped=meter.dropped,
            lost=meter.lost + len(overdue),
            waiting=len(exchange.waiting) - len(overdue),
            aud=meter.aud(sum(created_s >= self._world.warm_up_s for created_s in overdue)),
            exits=dict(sorted(meter.exits.items())),
            rate_hz=rate_hz,
            latency_p50_s=p50_s,
            latency_p99_s=p99_s,
            connected=sum(client.is_ready for client in self._clients),
            devices=len(self._clients),
            nodes_online=self._watch.online,
        )

    def _result(self, cut_s: float | None) -> FleetResult:
        exchange, clients = self._exchange, self._clients
        odd = exchange.oddities
        odd.refused = sum(client.refused for client in clients)
        odd.refusal = next((client.refusal for client in clients if client.refusal), "")
        odd.reconnections = sum(max(0, client.connections - 1) for client in clients)
        nodes = tuple(exchange.log.nodes)
        return FleetResult(
            replication=self._replication,
            requests=exchange.log.requests(),
            seen=exchange.log.sightings(),
            nodes=nodes,
            same_clock=tuple(map(self._watch.shares_clock, nodes)),
            start_s=exchange.start_s,
            cut_s=cut_s,
            oddities=odd,
            notes=tuple(self._notes()),
            statuses=tuple(self._watch.nodes.values()),
        )

    def _notes(self) -> Iterator[str]:
        for index, payloads in self._payloads.items():
            if payloads.refers:
                yield (
                    f"requests of {self._world.groups[index].name!r} have {payloads.bytes} bytes, "
                    "less than an image: they name the image, and nodes look it up"
                )
        taken = sum(client.taken_over for client in self._clients)
        if taken:
            yield (
                f"{taken} devices gave up for other clients with their identifiers: do the same "
                "devices run twice?"
            )


def chosen_groups(world: World, names: Sequence[str] | None) -> list[int]:
    """Indices of the device groups of these names; of all for None.

    Raises:
        LiveError: there is none of such a name.
    """
    known = [group.name for group in world.groups]
    for name in names or ():
        if name not in known:
            raise LiveError(f"there is no device group {name!r}; there are {', '.join(known)}")
    return [index for index, name in enumerate(known) if names is None or name in names]


def _by(shape: Sequence[int] | None) -> str:
    return "×".join(map(str, shape or ()))
