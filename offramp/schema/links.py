"""Links and MQTT as they are written in a scenario."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from offramp.presets import link_preset
from offramp.schema.base import WORD, Name, Section
from offramp.schema.distributions import DistributionSpec

LinkPreset = Literal[
    "ethernet",
    "wifi",
    "lte",
    "5g",
    "nb_iot",
    "lora_sf7",
    "lora_sf12",
    "satellite_leo",
    "satellite_geo",
]


class DirectionSection(Section):
    """One direction of a link."""

    latency_ms: DistributionSpec = Field(
        0.0, description="one-way delay: a number or a distribution"
    )
    jitter_ms: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="standard deviation of the delay, then gamma-distributed about latency_ms",
    )
    latency_file: str | None = Field(
        None,
        description="measured one-way delays in ms, one on each line, of which one is drawn for "
        "every message; instead of latency_ms",
    )
    bandwidth_mbps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="megabits per second of each link; absent: unlimited"
    )
    bandwidth_trace: str | None = Field(
        None,
        description=".csv of the bandwidth over time, each until the next time, repeated when it "
        "ends; its times are a column time_s, or Timestamp (2020.02.13_13.57.29); instead of "
        "bandwidth_mbps",
    )
    bandwidth_column: str | None = Field(
        None,
        description="its column of bandwidths, whose unit the end of its name tells: _mbps, _kbps, "
        "bits_per_s or _bitrate (kbit/s); absent: the one called bandwidth_mbps, bandwidth_kbps "
        "or bits_per_s",
    )
    loss_percent: Annotated[float, Field(ge=0, lt=100)] = Field(
        0.0, description="of packets, which TCP sends again: costs time, never the message"
    )
    congestion_control: Literal["cubic", "reno"] = Field(
        "cubic",
        description="of the TCP that sends: cubic (Linux, unless told otherwise) or reno (small "
        "devices)",
    )


class LinkSection(Section):
    """A kind of link; keys of your own win over those of its preset."""

    preset: LinkPreset | None = Field(
        None,
        description="a link to start from; `scenarios/presets/links.yaml` has the source of each "
        "figure",
    )
    shared_by: Annotated[
        Annotated[Annotated[int, Field(ge=1)], Tag("number")]
        | Annotated[Literal["all"], Tag(WORD)],
        Discriminator(lambda value: WORD if isinstance(value, str) else "number"),
    ] = Field(
        1,
        description="devices on one access point, which compete for its bandwidth; `all` devices "
        "that use the link; 1: each has a link of its own. Presets of a shared medium: all",
    )
    uplink: DirectionSection = DirectionSection()
    downlink: DirectionSection = DirectionSection()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, values: Any) -> Any:
        """Fill in what the preset says and the user does not."""
        name = values.get("preset") if isinstance(values, dict) else None
        preset = link_preset(name) if isinstance(name, str) else None
        if preset is None:
            return values
        shared_by = "all" if preset.pop("shared") else 1
        directions = {}
        for key, keys in preset.items():
            own = values.get(key, {})
            directions[key] = {**_not_replaced(keys, own), **own} if isinstance(own, dict) else own
        return {"shared_by": shared_by, **values, **directions}


def _not_replaced(preset: dict[str, Any], own: dict[Any, Any]) -> dict[str, Any]:
    """What stays of a direction of a preset: a latency, or a bandwidth, is replaced whole."""
    replaced: set[str] = set()
    if own.get("latency_ms") is not None or own.get("latency_file") is not None:
        replaced |= {"latency_ms", "jitter_ms"}
    if own.get("bandwidth_trace") is not None:
        replaced.add("bandwidth_mbps")
    return {key: value for key, value in preset.items() if key not in replaced}


def _version_text(value: Any) -> Any:
    """YAML reads the version 5 as a number."""
    return "5" if type(value) in (int, float) and value == 5 else value


class MqttSection(Section):
    """MQTT between devices, one broker, and nodes; without this section they talk directly."""

    version: Annotated[
        Literal["5", "3.1.1"],
        BeforeValidator(_version_text, json_schema_input_type=Literal["5", "3.1.1", 5]),
    ] = Field("5", description="of the protocol")
    qos: Literal[0, 1, 2] = Field(
        1, description="of requests and answers: packets, round trips and what survives an absence"
    )
    tls: bool = Field(False, description="TLS records around every packet")
    broker_ms: DistributionSpec = Field(
        0.0, description="processing of one message by the broker, one after the other"
    )
    backhaul: Name | None = Field(
        None, description="a name under links: between broker and each node; absent: instant"
    )
    inflight: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="messages that a device may have without an acknowledgement (MQTT 5: Receive "
        "Maximum); absent: never reached",
    )
    session: Literal["clean", "persistent"] = Field(
        "clean",
        description="persistent: at QoS 1 and 2, messages for a node or device that is away wait; "
        "clean: they are lost. Those for a broker that is away wait at QoS 1 and 2 in either",
    )
    reconnect_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="from the end of an absence until messages flow again"
    )
    keep_alive_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="between pings of an idle connection; the simulator leaves them out"
    )
    share: Literal["round_robin", "random"] = Field(
        "round_robin", description="how replicas of a node share requests ($share)"
    )
