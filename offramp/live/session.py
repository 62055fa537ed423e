"""What the arms of a live run share, and each of them: what is missing is started on this host."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from devices.joined import with_joined
from devices.mqtt.broker_address import Broker
from devices.mqtt.connections import check_broker
from devices.observer import Observer
from devices.processes import Parts
from devices.protocol.cbor_limits import short
from devices.protocol.fields import MOST_TEXT
from devices.protocol.messages import NodeStatus
from devices.virtual.fleet_log import FleetResult
from devices.virtual.fleet_settings import FleetSettings
from devices.virtual.progress import Progress
from devices.virtual.results import run_of
from models.errors import LiveError, ScenarioError
from models.processors import available_processors
from offramp.live.awake import kept_awake
from offramp.live.fleet_process import FleetOrder, FleetProcess, fleet_process
from offramp.live.nodes import EdgeNodes, NodeCommand, free_port, nodes_online
from offramp.live.own_broker import OwnBroker
from offramp.live.processors import Shares, left_to_nodes
from offramp.live.table import LiveTable, Standing
from offramp.live.warnings import crowded, sharing
from offramp.scenario import LoadedScenario, load_scenario
from offramp.stages.jobs import Job
from offramp.stages.live import ArmRun
from offramp.stages.live_parts import LivePart
from sim.nodes.spec import NodeSpec

#: For nodes to have their network ready: importing and compiling takes long on small boards.
READY_WITHIN_S = 300.0

#: A node that is started again while the broker is away waits for it so long.
_BROKER_WITHIN_S = 60.0

#: How often processes and devices are looked at.
_LOOK_EVERY_S = 0.2

#: After its deadline, an answer to a joined device is still waited for so long.
_GRACE_S = 2.0

#: Port on which the embedded broker is reached by devices elsewhere.
MQTT_PORT = 1883


@dataclass(frozen=True)
class LiveOptions:
    """How a scenario is run live.

    Attributes:
        broker: to use; None: one is started here.
        port: of the broker that is started; None: a free one, or MQTT's where devices join.
        broker_arguments: that name the broker's certificates to nodes.
        join: devices, not started here, that are waited for, and recorded too.
        join_within_s: how long they are waited for, from the start of the first arm's nodes.
        metrics_port: of the first node, the next ones follow; None: free ones.
        direct: the broker by a way without the network that devices are behind, for nodes; None:
            they take the same way.
        pin: whether nodes that are started here have processors of their own, where there are
            enough.
        awake: whether processors are kept from sleeping.
    """

    broker: Broker | None = None
    port: int | None = None
    broker_arguments: tuple[str, ...] = ()
    join: int = 0
    metrics_port: int | None = None
    direct: Broker | None = None
    join_within_s: float = 600.0
    pin: bool = True
    awake: bool = False

    @property
    def use_of_processors(self) -> str:
        """How those of this host are used, in words."""
        words = "nodes have processors of their own" if self.pin else "nodes share processors"
        return f"{words}, and all are kept awake" if self.awake else words


@dataclass
class LiveSession:
    """A broker and whoever is there besides, for all arms of a run; see :func:`live_session`.

    Attributes:
        source: the scenario as the user named it, which nodes read too.
        loaded: what is left of it live.
        job: its arms.
        arguments: that name the artefact store to nodes.
        there: nodes that were at the broker before.
        processors: numbers of those of this host that the run may use.
        shares: who has which of them; None: whoever the scheduler lets.
        say: prints a line for the user.
    """

    source: LoadedScenario
    loaded: LoadedScenario
    job: Job
    options: LiveOptions
    arguments: tuple[str, ...]
    broker: Broker
    own_broker: OwnBroker | None
    there: dict[str, NodeStatus]
    processors: Sequence[int]
    shares: Shares | None
    parts: Parts
    observer: Observer | None
    say: Callable[[str], None]

    @property
    def direct(self) -> Broker:
        """The broker as nodes reach it."""
        return self.options.direct or self.broker

    @property
    def notes(self) -> list[str]:
        """What a reader of the results has to know."""
        nodes = len(self.job.world.node_names) - len(self.there)
        notes = list[str]()
        if self.shares:
            notes = sharing(self.shares, self.own_broker is not None)
        elif nodes:
            notes = crowded(self.source.scenario, nodes, len(self.processors))
        if self.there:
            notes.append(
                f"not started here, but at the broker before: node {', '.join(self.there)}"
            )
        return notes

    def measure(self, arm: ArmRun, table: LiveTable, number: int, of: int) -> LivePart:
        """Run one arm for as long as its window lasts, and collect what devices saw.

        Args:
            number, of: which of how many arms it is, to show.

        Raises:
            OfframpError: a part could not start, or ended and could not go on.
        """
        self.check_unchanged()
        standing = Standing(arm_name(arm, self.job), number, of, "starting")
        table.show(standing)
        with ExitStack() as stack:
            nodes = stack.enter_context(self.nodes(arm))
            # Only now: devices may send nothing before they hear that a node is online.
            self.wait_for_joining(nodes, table, standing)
            if self.observer is not None:
                self.observer.own_send = True
                self.observer.log.clear()
            fleet = stack.enter_context(fleet_process(self.order(arm)))
            result = self.follow(nodes, fleet, table, standing)
            if self.observer is not None:
                self.observer.drain(_GRACE_S)
                self._warn_of_namesakes(self.observer, nodes)
        table.finish()
        return self._part(arm, nodes, result)

    def check_unchanged(self) -> None:
        """Nodes read the scenario themselves: it must say what it said.

        Raises:
            LiveError: it does not.
        """
        again = load_scenario(self.source.source, self.source.overrides)
        if again.scenario != self.source.scenario:
            raise LiveError(
                f"{self.source.source} was changed during the run: nodes would serve another "
                "scenario; what was measured is kept for the old one"
            )

    def nodes(self, arm: ArmRun) -> EdgeNodes:
        """The nodes of an arm that are not there already, started."""
        strategy, seed = arm.network
        port = self.options.metrics_port
        commands = [
            NodeCommand(
                spec.name,
                node,
                (
                    *("live", "edge", self.source.source, "--node", node),
                    *(it for text in self.source.overrides for it in ("--set", text)),
                    *self.arguments,
                    *("--broker", self.direct.url, *self.options.broker_arguments),
                    *("--mqtt-version", self.direct.version),
                    *("--wait-s", str(_BROKER_WITHIN_S)),
                    *("--strategy", strategy, "--seed", str(seed)),
                    *("--policy", arm.policy),
                ),
                free_port() if port is None else port + number,
                # What nobody asked for is for this host alone.
                "127.0.0.1" if port is None else "0.0.0.0",
                self.shares.nodes[node] if self.shares else None,
            )
            for number, (spec, node) in enumerate(_to_start(self.job, self.there))
        ]
        return EdgeNodes(self.parts, commands, self.direct.environment)

    def order(self, arm: ArmRun) -> FleetOrder:
        """What the devices of an arm are to do."""
        predictions = self.job.predictions[arm.network]
        return FleetOrder(
            self.job.world,
            self.loaded.scenario.data.dataset,
            predictions.sample,
            predictions.label,
            arm.replication,
            FleetSettings.of(self.broker, self.job.world.mqtt, wait_s=READY_WITHIN_S),
        )

    def wait_for_joining(self, nodes: EdgeNodes, table: LiveTable, standing: Standing) -> None:
        """Wait until as many devices as are to join have asked something since the run began.

        Raises:
            LiveError: they did not in time, or a node ended.
        """
        observer = self.observer
        if observer is None:
            return
        devices, wanted = observer.log.devices, self.options.join
        if len(devices) < wanted:
            port, kinds = self.broker.port, self.job.world.nodes
            where = self.broker.url if self.options.broker else f"port {port} of this host"
            topics = " or ".join(f"offramp/1/request/{kind.name}/NAME" for kind in kinds)
            self.say(
                f"waiting for {wanted} device(s) at {where}, for {self.options.join_within_s:g} s "
                "at most (Ctrl-C ends the run): once a node says that it is online, they publish "
                f"to {topics}"
            )

        def meanwhile() -> None:
            self._look_after(nodes, measuring=False)
            self._warn_of_namesakes(observer, nodes)
            table.show(replace(standing, phase=f"{len(devices)} of {wanted} joined"))

        observer.wait_for(
            wanted,
            self.options.join_within_s,
            lambda name: self.say(f"joined  {name}"),
            meanwhile,
        )

    def _warn_of_namesakes(self, observer: Observer, nodes: EdgeNodes) -> None:
        """Tell once of each device elsewhere that has the name of a virtual one."""
        for name in observer.new_namesakes():
            note = (
                f"a device that was not started here is called {name!r}, as a virtual one of this "
                "run: it cannot join, and each gets the other's replies; give it another name"
            )
            nodes.notes.append(note)
            self.say(f"warning: {note}")

    def _look_after(self, nodes: EdgeNodes, measuring: bool) -> None:
        """See whether broker and nodes are there, and start again what may be."""
        if self.own_broker is not None and (ended := self.own_broker.look_after()):
            nodes.notes.append(ended)
        nodes.look_after(measuring)

    def follow(
        self, nodes: EdgeNodes, fleet: FleetProcess, table: LiveTable, standing: Standing
    ) -> FleetResult:
        """Watch all parts until the devices are done."""
        measuring = False
        while True:
            said = fleet.next(_LOOK_EVERY_S)
            if isinstance(said, FleetResult):
                return said
            self._look_after(nodes, measuring)
            if isinstance(said, Progress):
                measuring = True
                left = "finishing" if said.time_s >= said.horizon_s else ""
                table.show(replace(standing, phase=left, progress=said, queued=nodes.queued()))

    def _part(self, arm: ArmRun, nodes: EdgeNodes, result: FleetResult) -> LivePart:
        world, predictions = self.job.world, self.job.predictions[arm.network]
        if result.cut_s is not None:
            raise LiveError("the devices were stopped before their window was over")
        notes = [*nodes.notes, *result.warnings(world)]
        lag_ms = {f"p{q:g}": 1e3 * result.lag_s(q / 100) for q in (50, 99)}
        lag_ms["mean"] = 1e3 * float(np.mean(result.seen.lag_s)) if len(result) else math.nan
        about: dict[str, Any] = {
            "notes": notes,
            "lag_ms": lag_ms,
            "same_clock": bool(result.same_clock) and all(result.same_clock),
            "processors": asdict(self.shares) if self.shares else None,
        }
        labels, joined = predictions.label, tuple[str, ...]()
        if self.observer is not None:
            added = with_joined(
                world,
                result,
                self.observer.log,
                predictions.sample,
                predictions.label,
                self.loaded.experiment.info.classes,
            )
            world, result, labels = added.world, added.result, added.labels
            joined = tuple(self.observer.log.devices)
            notes += added.notes
            if self.observer.connections > 1:
                notes.append("what joined devices did was not seen all the time")
        run = run_of(world, result, labels)
        if not run.measured(world).any():
            raise ScenarioError(
                "no request was created in the measured window: raise simulation.duration_s, or "
                "the rates of the devices"
            )
        return LivePart(run, joined, about)


@contextmanager
def live_session(
    source: LoadedScenario,
    loaded: LoadedScenario,
    job: Job,
    options: LiveOptions,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> Iterator[LiveSession]:
    """Start or find a broker, and watch it for who joins; everything started ends with it.

    Raises:
        BrokerError: no broker can be started or reached.
        LiveError: a node that is there already cannot serve all arms, or processors cannot be kept
            awake.
    """
    with ExitStack() as stack:
        there = dict[str, NodeStatus]()
        if options.broker is not None:
            check_broker(options.broker)
            if options.direct is not None:
                check_broker(options.direct)
            there = _there(options.broker, job)
        processors = available_processors()
        if options.awake:
            stack.enter_context(kept_awake(processors))
        shares = None
        if options.pin:
            each = loaded.scenario.profile.threads
            threads = {node: each * spec.workers for spec, node in _to_start(job, there)}
            shares = stack.enter_context(left_to_nodes(threads))
        own = None
        if options.broker is None:
            own = _start_broker(options)
            stack.callback(own.stop)
            broker = own.broker
        else:
            broker = options.broker
        parts = stack.enter_context(Parts())
        observer = None
        if options.join:
            world = job.world
            names = [world.device_name(device) for device in range(world.devices)]
            edges = [node.name for node in world.nodes]
            observer = stack.enter_context(Observer(broker, edges, names))
        yield LiveSession(
            source,
            loaded,
            job,
            options,
            tuple(arguments),
            broker,
            own,
            there,
            processors,
            shares,
            parts,
            observer,
            say,
        )


def _to_start(job: Job, there: Collection[str]) -> list[tuple[NodeSpec, str]]:
    """Kind and name of each node that is not there already."""
    world = job.world
    return [
        (spec, world.node_names[number])
        for kind, spec in enumerate(world.nodes)
        for number in world.nodes_of(kind)
        if world.node_names[number] not in there
    ]


def _start_broker(options: LiveOptions) -> OwnBroker:
    if options.join:  # reached by devices elsewhere
        return OwnBroker(options.port or MQTT_PORT, "0.0.0.0")
    return OwnBroker(options.port or 0)


def _there(broker: Broker, job: Job) -> dict[str, NodeStatus]:
    """Nodes of the scenario that are at the broker already, which must suit all arms."""
    online = nodes_online(broker, [node.name for node in job.world.nodes])
    there = {name: status for name, status in online.items() if name in job.world.node_names}
    # As nodes say it.
    labels = [short(text.label, MOST_TEXT) for text in job.policies]
    arms = {(*network, label) for network in job.predictions for label in labels}
    for name, status in there.items():
        says = (status.strategy, status.training_seed, status.policy)
        if arms != {says}:
            raise LiveError(
                f"node {name!r} is at {broker.url} already and serves {says[0]}, seed {says[1]}, "
                f"policy {says[2]!r}: run that arm alone (--strategy {says[0]} --seed {says[1]} "
                f"--policy '{says[2]}'), or end that node, and it is started here for each arm"
            )
    return there


def arm_name(arm: ArmRun, job: Job) -> str:
    """An arm for people."""
    strategy, seed = arm.network
    name = f"{strategy}, {arm.policy}, seed {seed}"
    return name if job.replications == 1 else f"{name}, replication {arm.replication + 1}"
