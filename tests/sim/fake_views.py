"""What a policy is shown, written down."""

from dataclasses import dataclass, field

from sim.policy import Foresight


@dataclass
class FakeRequest:
    """A request's view with the same way home at every quantile."""

    remaining_s: float = 10.0
    exit: int = 0
    confidence: float = float("nan")
    home_s: float = 0.0
    priority: int = 0
    #: Of exits computed at this node; by default the last, unless an earlier tier computed it.
    confidences: tuple[float, ...] | None = None
    correct: tuple[bool, ...] = ()
    seconds: tuple[float, ...] = ()
    asked: list[float] = field(default_factory=list)

    def __post_init__(self):
        if self.confidences is None:
            self.confidences = (self.confidence,) if self.exit else ()

    def way_home_s(self, quantile):
        self.asked.append(quantile)
        return self.home_s

    def foresight(self):
        return Foresight(self.correct, self.seconds)


@dataclass
class FakeTier:
    """A next tier: latencies from the image, less those of the exit where it goes on."""

    latencies: tuple[float, ...] = (0.1, 0.2, 0.3)
    #: There and back, for the raw input and for what each exit leaves to send.
    ways_s: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0)
    name: str = "cloud"
    asked: list[float] = field(default_factory=list)

    @property
    def exit_count(self):
        return len(self.latencies)

    def latencies_s(self, quantile, since=0):
        self.asked.append(quantile)
        begun = self.latencies[since - 1] if since else 0.0
        return tuple(time - begun for time in self.latencies[since:])

    def round_trip_s(self, request, quantile):
        self.asked.append(quantile)
        return self.ways_s[request.exit]


@dataclass
class FakeNode:
    """A node's view with the same latencies at every quantile."""

    latencies: tuple[float, ...] = (1.0, 2.0, 4.0)
    name: str = "edge"
    queue_length: int = 0
    workers: int = 1
    idle_workers: int = 0
    next_tier: FakeTier | None = None
    asked: list[float] = field(default_factory=list)

    @property
    def exit_count(self):
        return len(self.latencies)

    def latencies_s(self, quantile, since=0):
        self.asked.append(quantile)
        begun = self.latencies[since - 1] if since else 0.0
        return tuple(time - begun for time in self.latencies[since:])
