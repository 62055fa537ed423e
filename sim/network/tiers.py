"""Between tiers: the links over which a node sends requests on, and answers come back."""

from __future__ import annotations

from collections.abc import Callable

from sim.distributions import Floats
from sim.network.hops import Leg, OneByOne
from sim.network.links import Channel, Link
from sim.network.transport import Indices, travel_quantile_s
from sim.nodes.node import Node
from sim.nodes.requests import Request
from sim.policy import RequestView
from sim.streams import Streams
from sim.workload.device_groups import Row
from sim.world import World


class TierLink:
    """The link from one kind of node to its next tier, in one run.

    Args:
        name: of the kind of node that sends on.
    """

    def __init__(self, world: World, streams: Streams, name: str, link: Link) -> None:
        self._world = world
        self._streams = streams
        self._name = name
        self._sorts: dict[tuple[int, int, int], OneByOne] = {}
        nodes = len(world.node_names)
        self._on = Channel(link.uplink, nodes, nodes)
        self._back = Channel(link.downlink, nodes, nodes)

    def legs(self, group: int, exit: int) -> tuple[Leg, Leg]:
        """What a request that is sent on after ``exit``, and its answer, take."""
        response = self._world.groups[group].response_bytes
        on, back = self._on.direction, self._back.direction
        return (
            Leg(f"tier.{self._name}", on, back, (self._world.sent_bytes(group, exit),)),
            Leg(f"tier.{self._name}.back", back, on, (response,)),
        )

    def on(self, request: Request, node: int, row: Row, sent_s: float) -> float:
        """When a request that a node sends on now reaches the next tier; ``row`` is what it drew.

        Every node has a link of its own.
        """
        return self._over(self._on, request, node, row, 0, sent_s)

    def back(self, request: Request, node: int, row: Row, sent_s: float) -> float:
        """When its answer, sent now, is back at that node."""
        return self._over(self._back, request, node, row, 1, sent_s)

    def _over(
        self, channel: Channel, request: Request, node: int, row: Row, leg: int, sent_s: float
    ) -> float:
        group = self._world.groups[request.group]
        key = (request.group, request.exit, leg)
        known = self._sorts.get(key)
        if known is None:

            def draws(local: Indices, number: Indices) -> Callable[[str], Floats]:
                return lambda name: self._streams.uniforms(name, group.name)(local, number)

            known = self._sorts[key] = OneByOne(self.legs(request.group, request.exit)[leg], draws)
        return known.over(channel, sent_s, node, node, row[2], row[3])

    def round_trip_s(self, group: int, exit: int, quantile: float) -> float:
        """Quantile of the seconds there and back of a lone request that is sent after ``exit``."""
        return travel_quantile_s([leg.travel() for leg in self.legs(group, exit)], quantile)


class NextNode:
    """The next tier as a policy sees it (:class:`sim.policy.NextTier`).

    Args:
        node: of the next tier.
        round_trip_s: by device group, last exit computed, and quantile.
    """

    def __init__(self, node: Node, round_trip_s: Callable[[int, int, float], float]) -> None:
        self.name = node.spec.name
        self.exit_count = node.exit_count
        self.latencies_s = node.latencies_s
        self._round_trip_s = round_trip_s
        self._known: dict[tuple[int, int, float], float] = {}

    def round_trip_s(self, request: RequestView, quantile: float) -> float:
        """See :class:`sim.policy.NextTier`."""
        assert isinstance(request, Request)
        key = (request.group, request.exit, quantile)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._round_trip_s(*key)
        return known


def tier_links(world: World, streams: Streams) -> dict[str, TierLink]:
    """By the name of the kind of node that sends on."""
    links = {}
    for node in world.nodes:
        if node.next_tier is not None:
            link = world.links[node.tier_link] if node.tier_link else Link()
            links[node.name] = TierLink(world, streams, node.name, link)
    return links
