"""Who holds a name: nodes at a broker that is simulated, in every order of events."""

import random
from collections import deque

import pytest

from devices.node.presence import Presence
from devices.protocol.messages import NodeStatus, decode_status


class Broker:
    """One topic with a retained message; what is said reaches every subscriber in one order."""

    def __init__(self) -> None:
        self.retained: bytes | None = None
        self.clients: list[Client] = []

    def publish(self, payload: bytes) -> None:
        self.retained = payload
        for client in self.clients:
            client.inbox.append(payload)


class Client:
    """A connection as :class:`Presence` uses it; steps are taken one at a time, in any order."""

    def __init__(self, broker: Broker, instance: str, returns: bool = False) -> None:
        self.broker = broker
        self.presence = Presence("edge", NodeStatus("online", "edge", instance), returns)
        self.inbox: deque[bytes | None] = deque()
        self.outbox: deque[bytes] = deque()

    # --- what Presence calls ---

    def subscribe(self, topic: str) -> None:
        assert topic == self.presence.topic
        self.broker.clients.append(self)
        if self.broker.retained is not None:
            self.inbox.append(self.broker.retained)
        self.inbox.append(None)  # the acknowledgement of the requests' subscription

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        assert (topic, retain) == (self.presence.topic, True)
        self.outbox.append(payload)

    # --- what happens ---

    def connect(self) -> None:
        self.presence.connected(self)

    def lose_connection(self) -> None:
        """The broker says the last will; what was on its way is lost."""
        self.inbox.clear()
        self.outbox.clear()
        if self in self.broker.clients:
            self.broker.clients.remove(self)
            self.broker.publish(self.presence.last_will())

    def leave(self) -> None:
        self.inbox.clear()
        self.outbox.clear()
        if self in self.broker.clients:
            self.broker.clients.remove(self)

    def steps(self) -> list:
        found = []
        if self.inbox:
            found.append(self.hear)
        if self.outbox:
            found.append(self.speak)
        return found

    def speak(self) -> None:
        self.broker.publish(self.outbox.popleft())

    def hear(self) -> None:
        payload = self.inbox.popleft()
        if payload is None:
            self.presence.announce(self)
        else:
            self.presence.heard(self, payload)
        if self.presence.taken_over_by is not None:
            self.leave()


def settle(*clients: Client, order: random.Random | None = None) -> None:
    """Let everything happen that is under way, in some order."""
    while steps := [step for client in clients for step in client.steps()]:
        (order.choice(steps) if order else steps[0])()


def retained(broker: Broker) -> tuple[str, str]:
    status = decode_status(broker.retained)
    return status.state, status.instance


def test_a_node_alone_is_online():
    broker = Broker()
    node = Client(broker, "a")
    node.connect()
    settle(node)
    assert retained(broker) == ("online", "a")
    assert node.presence.taken_over_by is None


@pytest.mark.parametrize("before", ["online", "draining", "offline"])
def test_what_an_earlier_node_left_behind_does_not_count(before):
    broker = Broker()
    broker.retained = Presence("edge", NodeStatus(before, "edge", "old")).last_will()
    node = Client(broker, "a")
    node.connect()
    settle(node)
    assert node.presence.taken_over_by is None


def test_the_older_hears_of_the_newer_and_says_nothing_more():
    broker = Broker()
    older, newer = Client(broker, "a"), Client(broker, "b")
    older.connect()
    settle(older)
    newer.connect()
    settle(older, newer)
    assert older.presence.taken_over_by == "b"
    assert newer.presence.taken_over_by is None
    assert older.presence.announce(older, "offline") is None
    settle(older, newer)
    assert retained(broker) == ("online", "b")


def test_whoever_was_away_ends_when_another_came_meanwhile():
    broker = Broker()
    older, newer = Client(broker, "a"), Client(broker, "b")
    older.connect()
    settle(older)
    older.lose_connection()
    newer.connect()
    settle(newer)
    older.connect()
    settle(older, newer)
    assert (older.presence.taken_over_by, newer.presence.taken_over_by) == ("b", None)
    assert retained(broker) == ("online", "b")


@pytest.mark.parametrize("returns", [False, True])
def test_a_newer_node_that_has_vanished_again(returns):
    """With one client identifier, our own return may have thrown it out: then it comes back."""
    broker = Broker()
    older, newer = Client(broker, "a", returns), Client(broker, "b", returns)
    older.connect()
    settle(older)
    older.lose_connection()
    newer.connect()
    settle(newer)
    newer.lose_connection()
    older.connect()
    settle(older)
    assert older.presence.taken_over_by == ("b" if returns else None)


def test_a_late_last_will_of_the_older_does_not_hide_the_newer():
    broker = Broker()
    older, newer = Client(broker, "a"), Client(broker, "b")
    older.connect()
    settle(older)
    newer.connect()
    settle(newer)  # the older hears nothing any more
    older.lose_connection()
    settle(newer)
    assert retained(broker) == ("online", "b")
    assert newer.presence.taken_over_by is None


def test_its_own_last_will_is_put_right():
    broker = Broker()
    node = Client(broker, "a")
    node.connect()
    settle(node)
    broker.publish(node.presence.last_will())
    settle(node)
    assert retained(broker) == ("online", "a")


@pytest.mark.parametrize("seed", range(300))
def test_in_whatever_order_things_happen_one_node_is_left_and_is_seen(seed):
    """Three nodes come, and lose their connections and come back, at any time."""
    order, broker = random.Random(seed), Broker()
    clients = [Client(broker, name) for name in "abc"]
    for _ in range(order.randrange(3, 30)):
        client = order.choice(clients)
        if client.presence.taken_over_by is None:
            if client not in broker.clients:
                client.connect()
            elif order.random() < 0.2:
                client.lose_connection()
        for _ in range(order.randrange(4)):
            steps = [step for client in clients for step in client.steps()]
            if steps:
                order.choice(steps)()
    for client in clients:
        if client.presence.taken_over_by is None and client not in broker.clients:
            client.connect()
    settle(*clients, order=order)
    left = [client for client in clients if client.presence.taken_over_by is None]
    assert len(left) == 1
    assert retained(broker) == ("online", left[0].presence._status.instance)
