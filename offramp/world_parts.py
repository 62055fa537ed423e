"""From the sections of a scenario to the parts of its world: units become seconds and bytes."""

from __future__ import annotations

from pathlib import Path

from offramp.experiment import user_file
from offramp.schema import (
    AnyFault,
    ArrivalsSection,
    BrokerRestart,
    ClosedLoopArrivals,
    ConstantSpec,
    CoolingSection,
    CorrelatedSamples,
    DeviceChurn,
    DeviceGroupSection,
    DirectionSection,
    DistributionSpec,
    DiurnalArrivals,
    EmpiricalSpec,
    EnergySection,
    ExponentialSpec,
    GammaSpec,
    LinkOutage,
    LinkSection,
    LognormalSpec,
    MqttSection,
    NormalSpec,
    OnOffArrivals,
    OverheadSection,
    PeriodicArrivals,
    PoissonArrivals,
    ScipySpec,
    SlowNode,
    UniformSpec,
)
from sim.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    ScipyDistribution,
    TruncatedNormal,
    Uniform,
    read_values,
)
from sim.energy import PowerStates
from sim.faults import Fault
from sim.network.capacity import Capacity, ConstantCapacity, read_bandwidth_trace
from sim.network.congestion import CONTROLS
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.network.retransmission import TcpLoss
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling
from sim.nodes.overheads import Overheads
from sim.workload.arrivals import (
    Arrivals,
    ClosedLoop,
    Diurnal,
    OnOff,
    Periodic,
    Poisson,
    TraceArrivals,
)
from sim.workload.request_traces import RequestTrace, read_request_trace
from sim.workload.samples import Correlated, Drawn, Samples, Shuffled, TraceSamples

MILLI = 1e-3
MEGA = 1e6


def distribution(spec: DistributionSpec, folder: Path, unit: float = MILLI) -> Distribution:
    """The distribution that a number or a mapping describes, times ``unit``.

    Raises:
        ValueError: scipy.stats does not have it, or does not take its parameters.
        OfframpError: its file of values cannot be read.
    """
    match spec:
        case ConstantSpec():
            return Constant(spec.value * unit)
        case UniformSpec():
            return Uniform(spec.low * unit, spec.high * unit)
        case ExponentialSpec():
            return Exponential(spec.mean * unit)
        case NormalSpec():
            return TruncatedNormal(spec.mean * unit, spec.sd * unit)
        case LognormalSpec():
            return Lognormal(spec.median * unit, spec.sigma)
        case GammaSpec():
            return Gamma(spec.mean * unit, spec.sd * unit)
        case ScipySpec():
            return ScipyDistribution(spec.name, spec.parameters, unit)
        case EmpiricalSpec():
            return Empirical(read_values(user_file(spec.file, folder)) * unit)
        case _:
            return Constant(spec * unit)


# --- links ---------------------------------------------------------------------------------------


def link(section: LinkSection, folder: Path, devices: int) -> Link:
    """A kind of link.

    Args:
        devices: that use it, who may all share one access point.

    Raises:
        OfframpError: a file of latencies or bandwidths cannot be read.
    """
    up, down = delay(section.uplink, folder), delay(section.downlink, folder)
    rtt_s = up.mean() + down.mean()
    return Link(
        _direction(section.uplink, up, rtt_s, folder),
        _direction(section.downlink, down, rtt_s, folder),
        max(1, devices) if section.shared_by == "all" else section.shared_by,
    )


def delay(section: DirectionSection, folder: Path) -> Distribution:
    """The one-way delay of a direction, without losses."""
    if section.latency_file is not None:
        return Empirical(read_values(user_file(section.latency_file, folder)) * MILLI)
    if section.jitter_ms:
        assert isinstance(section.latency_ms, int | float)  # the scenario was checked for it
        return Gamma(section.latency_ms * MILLI, section.jitter_ms * MILLI)
    return distribution(section.latency_ms, folder)


def capacity(section: DirectionSection, folder: Path) -> Capacity:
    """What a direction carries over time."""
    if section.bandwidth_trace is not None:
        file = user_file(section.bandwidth_trace, folder)
        return read_bandwidth_trace(file, section.bandwidth_column)
    if section.bandwidth_mbps is None:
        return ConstantCapacity(float("inf"))
    return ConstantCapacity(section.bandwidth_mbps * MEGA)


def _direction(
    section: DirectionSection, delay: Distribution, rtt_s: float, folder: Path
) -> Direction:
    loss = TcpLoss(section.loss_percent / 100) if section.loss_percent else None
    control = CONTROLS[section.congestion_control]
    return Direction(delay, capacity(section, folder), loss, rtt_s, control)


def mqtt(section: MqttSection | None, links: dict[str, Link], folder: Path) -> Mqtt | None:
    """How messages travel; None where devices and nodes talk directly."""
    if section is None:
        return None
    return Mqtt(
        version=section.version,
        qos=section.qos,
        tls=section.tls,
        processing=distribution(section.broker_ms, folder),
        backhaul=links[section.backhaul] if section.backhaul else Link(),
        inflight=section.inflight,
        persistent=section.session == "persistent",
        reconnect_s=section.reconnect_ms * MILLI,
        keep_alive_s=section.keep_alive_s,
        share=section.share,
    )


# --- devices -------------------------------------------------------------------------------------


def trace_of(section: DeviceGroupSection, folder: Path) -> RequestTrace | None:
    """The trace that devices follow, if they do.

    Raises:
        OfframpError: it cannot be read, or holds what cannot be.
    """
    file = getattr(section.arrivals, "file", None)
    return None if file is None else read_request_trace(user_file(file, folder))


def arrivals(
    section: ArrivalsSection, folder: Path, devices: int, trace: RequestTrace | None
) -> Arrivals | ClosedLoop:
    """An arrival process.

    Args:
        devices: in the group.
        trace: that the section names.

    Raises:
        ValueError: its figures do not fit together.
    """
    match section:
        case PoissonArrivals():
            return Poisson(section.rate_hz)
        case PeriodicArrivals():
            return Periodic(section.rate_hz, section.jitter_ms * MILLI)
        case OnOffArrivals():
            return OnOff(
                section.on_rate_hz, section.off_rate_hz, section.mean_on_s, section.mean_off_s
            )
        case DiurnalArrivals():
            curve = tuple((at_s, rate_hz) for at_s, rate_hz in section.curve)
            return Diurnal(curve, section.period_s)
        case ClosedLoopArrivals():
            return ClosedLoop(distribution(section.think_ms, folder))
        case _:
            assert trace is not None
            return TraceArrivals(trace, devices)


def samples(section: DeviceGroupSection, trace: RequestTrace | None) -> Samples:
    """Which samples devices send: what the trace says before anything else."""
    if trace is not None and trace.sample is not None:
        return TraceSamples(trace)
    if isinstance(section.samples, CorrelatedSamples):
        return Correlated(section.samples.correlated)
    return Shuffled() if section.samples == "shuffled" else Drawn()


def overheads(section: OverheadSection | None, folder: Path) -> Overheads | None:
    """What a node takes besides inference, if that is accounted for."""
    if section is None:
        return None

    def if_given(spec: DistributionSpec | None) -> Distribution | None:
        return None if spec is None else distribution(spec, folder)

    return Overheads(
        receive=distribution(section.receive_ms, folder),
        begin=distribution(section.begin_ms, folder),
        reply=distribution(section.reply_ms, folder),
        begin_idle=if_given(section.begin_idle_ms),
        ingress_busy=if_given(section.ingress_busy_ms),
        egress_busy=if_given(section.egress_busy_ms),
        disturb_s=section.disturb_ms * MILLI,
        autocorrelation=(
            Autocorrelation(section.autocorrelation, section.autocorrelation_ms * MILLI)
            if section.autocorrelation
            else None
        ),
        cooling=cooling(section.cooling) if section.cooling else None,
    )


def cooling(section: CoolingSection) -> Cooling:
    """What requests take longer at a node that has had nothing to do."""
    return Cooling(
        time_s=section.time_ms * MILLI,
        kept=section.kept,
        read_s=section.read_ms * MILLI,
        begin_s=section.begin_ms * MILLI,
        answer_s=section.answer_ms * MILLI,
    )


def power(section: EnergySection | None) -> PowerStates | None:
    """What a device or node draws in each state, if that is accounted for."""
    return None if section is None else PowerStates(**section.model_dump())


# --- faults --------------------------------------------------------------------------------------


def fault(section: AnyFault) -> Fault:
    """A fault, scheduled or random."""
    match section:
        case BrokerRestart():
            target = ""
        case LinkOutage():
            target = section.link
        case DeviceChurn():
            target = section.devices
        case _:
            target = section.node
    factor = section.factor if isinstance(section, SlowNode) else 1.0
    if section.at_s is not None:
        assert section.for_s is not None  # the scenario was checked for it
        schedule = ((section.at_s, section.at_s + section.for_s),)
        return Fault(section.kind, target, schedule=schedule, factor=factor)
    assert section.mtbf_s is not None
    assert section.mttr_s is not None
    return Fault(section.kind, target, mtbf_s=section.mtbf_s, mttr_s=section.mttr_s, factor=factor)
