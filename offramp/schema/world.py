"""Nodes, devices and faults as they are written in a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from offramp.schema.base import RULE, Name, Section
from offramp.schema.distributions import DistributionSpec

# --- nodes ---------------------------------------------------------------------------------------


class EnergySection(Section):
    """Power of a device or node in each state, always the whole of it: none is below idle_w."""

    idle_w: Annotated[float, Field(ge=0)] = Field(
        description="watts when on, neither computing nor its radio active"
    )
    compute_w: Annotated[float, Field(ge=0)] = Field(description="watts while one worker computes")
    transmit_w: Annotated[float, Field(ge=0)] = Field(
        description="watts while sending; of devices alone"
    )
    receive_w: Annotated[float, Field(ge=0)] = Field(
        description="watts while receiving; of devices alone"
    )
    source: str = Field(description="where the figures come from")


class BatchSection(Section):
    """Requests that a worker computes together."""

    size: Annotated[int, Field(ge=1)] = Field(
        description="at most; a profile must be measured with as many (`profile.batch_sizes`)"
    )
    wait_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="for how long the first waits for the batch to fill"
    )


class CoolingSection(Section):
    """What requests take longer at a node that has had nothing to do."""

    time_ms: Annotated[float, Field(gt=0)] = Field(
        description="in which a warm node, without work, becomes 63 % as cold as it gets"
    )
    kept: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of that which is left after each request, or batch, that a worker takes"
    )
    read_ms: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="by which a message that finds every worker idle is read later at a node that "
        "is as cold as it gets; in proportion else, as the next two",
    )
    begin_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="by which a worker takes longer"
    )
    answer_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="by which an answer leaves later, unless its worker goes on at once"
    )


class OverheadSection(Section):
    """What a node takes for each request besides inference."""

    receive_ms: DistributionSpec = Field(
        0.0,
        description="from the arrival of a device's message until a worker can take it: reading "
        "it, waking one up",
    )
    begin_ms: DistributionSpec = Field(
        0.0,
        description="of a worker before the first exit that it computes for a request, or for a "
        "batch; of the same rank as the inference: a slow one begins slowly",
    )
    begin_idle_ms: DistributionSpec | None = Field(
        None, description="the same for one that finds it idle; absent: as begin_ms"
    )
    reply_ms: DistributionSpec = Field(
        0.0, description="of a worker for each reply, before it takes the next request"
    )
    disturb_ms: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="by which a message that arrives delays what workers compute meanwhile: it is "
        "received on processors that they share",
    )
    ingress_busy_ms: DistributionSpec | None = Field(
        None,
        description="by which a message is read later that arrives while a worker computes: it "
        "waits for a processor, and those that arrive meanwhile are read with it; absent: it is "
        "not",
    )
    egress_busy_ms: DistributionSpec | None = Field(
        None,
        description="by which an answer leaves later whose worker has the next request waiting; "
        "absent: it does not",
    )
    cooling: CoolingSection | None = Field(
        None,
        description="what takes longer, on top of that, at a node that has had nothing to do; "
        "absent: nothing",
    )
    autocorrelation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="of services that follow one another, between normal scores of their times: "
        "a machine that others share is slower for a while",
    )
    autocorrelation_ms: Annotated[float, Field(gt=0)] = Field(
        300.0, description="after which that has fallen to 1/e"
    )


class NextTierSection(Section):
    """Where a node may send requests on."""

    node: Name = Field(description="a name under nodes")
    link: Name | None = Field(
        None, description="a name under links; every node has one of its own; absent: instant"
    )


class NodeSection(Section):
    """A kind of node: a queue before some workers."""

    workers: Annotated[int, Field(ge=1)] = Field(1, description="requests served at the same time")
    speed: Annotated[float, Field(gt=0)] = Field(
        1.0, description="relative to the profiled host: 0.5 takes twice as long"
    )
    profile: str | None = Field(
        None, description="a profile file measured elsewhere, instead of this host's"
    )
    service_ms: DistributionSpec | None = Field(
        None, description="service time, whatever the exit, instead of a profile"
    )
    replicas: Annotated[int, Field(ge=1)] = Field(
        1, description="nodes of this kind, which share the requests"
    )
    queue: Literal["fifo", "edf", "priority"] = Field(
        "fifo",
        description="first in, first out; earliest deadline first; or the devices' highest "
        "priority first",
    )
    queue_limit: Annotated[int, Field(ge=0)] | None = Field(
        None, description="requests that may wait; more are dropped; absent: any number"
    )
    admission: Literal["all", "feasible"] = Field(
        "all",
        description="feasible: drop at arrival what could not be in time even at the first exit, "
        "were the workers to compute all that wait one by one to that exit, each in the mean time "
        "of one image; that batches are faster is not reckoned with, so that with `batch` it also "
        "drops some that would have been in time",
    )
    batch: BatchSection | None = Field(None, description="absent: one by one")
    next_tier: NextTierSection | None = Field(None, description="absent: every request ends here")
    last_exit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of the part of the network that it holds; absent: all exits"
    )
    overhead: OverheadSection | None = Field(
        None,
        description="besides inference, as `offramp validate` measures it; policies know nothing "
        "of it; absent: none",
    )
    energy: EnergySection | None = Field(None, description="absent: not accounted for")


# --- devices -------------------------------------------------------------------------------------

Rate = Annotated[float, Field(gt=0)]


class PoissonArrivals(Section):
    """Exponential times between requests."""

    process: Literal["poisson"]
    rate_hz: Rate = Field(description="requests per second of one device")


class PeriodicArrivals(Section):
    """Equal times between releases, from a random phase of each device."""

    process: Literal["periodic"]
    rate_hz: Rate = Field(description="requests per second of one device")
    jitter_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="each is late by up to this, uniformly; less than the period"
    )


class OnOffArrivals(Section):
    """Bursts: a Poisson process whose rate switches at random between two values, MMPP(2)."""

    process: Literal["on_off"]
    on_rate_hz: Rate = Field(description="requests per second of one device in a burst")
    off_rate_hz: Annotated[float, Field(ge=0)] = Field(0.0, description="and between bursts")
    mean_on_s: Annotated[float, Field(gt=0)] = Field(description="mean length of a burst")
    mean_off_s: Annotated[float, Field(gt=0)] = Field(description="mean time between bursts")


class DiurnalArrivals(Section):
    """A Poisson process whose rate follows a curve that repeats."""

    process: Literal["diurnal"]
    curve: Annotated[
        list[Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)],],
        Field(min_length=1),
    ] = Field(
        description="points [time_s, rate_hz] with straight lines between them; two at one time "
        "are a step"
    )
    period_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="after which the curve repeats; absent: the time of its last point"
    )


class ClosedLoopArrivals(Section):
    """Each device waits for its answer, thinks, and sends the next request."""

    process: Literal["closed_loop"]
    think_ms: DistributionSpec = Field(description="from an answer to the next request")


class TraceArrivals(Section):
    """Requests at the times of a file."""

    process: Literal["trace"]
    file: str = Field(
        description=".csv or .parquet with time_s or time_ms, device (a number from 0, or a name) "
        "and, if wanted, sample and deadline_s or deadline_ms"
    )


ArrivalsSection = Annotated[
    PoissonArrivals
    | PeriodicArrivals
    | OnOffArrivals
    | DiurnalArrivals
    | ClosedLoopArrivals
    | TraceArrivals,
    Field(discriminator="process"),
]


class CorrelatedSamples(Section):
    """A device keeps seeing the same class for a while."""

    correlated: Annotated[float, Field(ge=1)] = Field(
        description="mean number of requests until a class is drawn anew"
    )


class ComputeSection(Section):
    """What a device computes itself before it asks its node, as the policy decides."""

    speed: Annotated[float, Field(gt=0)] = Field(
        1.0, description="relative to the profiled host: 0.1 takes ten times as long"
    )
    profile: str | None = Field(
        None, description="a profile file measured on such a device, instead of this host's"
    )
    service_ms: DistributionSpec | None = Field(
        None, description="service time, whatever the exit, instead of a profile"
    )
    last_exit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of the part of the network that it holds; absent: all exits"
    )


class DeviceGroupSection(Section):
    """Devices that are alike."""

    count: Annotated[int, Field(ge=1)] = Field(1, description="number of devices")
    arrivals: ArrivalsSection
    deadline_ms: DistributionSpec | None = Field(
        None,
        description="relative to the request's creation; required, unless a trace brings deadlines",
    )
    link: Name = Field(description="a name under links: between the device and who it talks to")
    node: Name = Field(description="a name under nodes: who answers")
    request_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="payload of a request; absent: one raw uint8 image"
    )
    response_bytes: Annotated[int, Field(ge=1)] = Field(64, description="payload of an answer")
    samples: (
        Annotated[
            Annotated[Literal["drawn", "shuffled"], Tag(RULE)]
            | Annotated[CorrelatedSamples, Tag("mapping")],
            Discriminator(
                lambda value: "mapping" if isinstance(value, dict | CorrelatedSamples) else RULE
            ),
        ]
        | None
    ) = Field(
        None,
        description="drawn anew each time; each device in an order of its own; or correlated, the "
        "same class for so many requests on average. Absent: what the trace names, else drawn",
    )
    priority: int = Field(0, description="higher is more urgent, where the node's queue looks")
    compute: ComputeSection | None = Field(None, description="absent: devices only send")
    energy: EnergySection | None = Field(None, description="absent: not accounted for")


# --- faults --------------------------------------------------------------------------------------


class FaultSection(Section):
    """A fault at a given time, or again and again at random."""

    at_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="begin, from the start of the run, warm-up included"
    )
    for_s: Annotated[float, Field(gt=0)] | None = Field(None, description="and length; or")
    mtbf_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="mean time between failures (exponential), each of the targets by itself"
    )
    mttr_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="and mean time to repair (exponential)"
    )


class NodeCrash(FaultSection):
    """What is there is lost, and what tiers send meanwhile; what devices send: see mqtt.session."""

    kind: Literal["node_crash"]
    node: Name = Field(description="a name under nodes; of replicas, each fails by itself")


class SlowNode(FaultSection):
    """A node that is slower for a while, as one that throttles itself when it is hot."""

    kind: Literal["slow_node"]
    node: Name = Field(description="a name under nodes")
    factor: Annotated[float, Field(gt=0)] = Field(description="of its speed while it is slow")


class LinkOutage(FaultSection):
    """Nothing is carried between devices and who they talk to; messages wait."""

    kind: Literal["link_outage"]
    link: Name = Field(description="a name under links")


class BrokerRestart(FaultSection):
    """The broker is away."""

    kind: Literal["broker_restart"]


class DeviceChurn(FaultSection):
    """Devices leave and return, and send nothing meanwhile."""

    kind: Literal["device_churn"]
    devices: Name = Field(description="a name under devices")


AnyFault = Annotated[
    NodeCrash | SlowNode | LinkOutage | BrokerRestart | DeviceChurn, Field(discriminator="kind")
]
