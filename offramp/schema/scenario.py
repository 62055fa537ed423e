"""The whole scenario."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from offramp.schema.base import Name, Section
from offramp.schema.experiment import DataSection, ModelSection, ProfileSection, TrainingSection
from offramp.schema.links import LinkSection, MqttSection
from offramp.schema.recommend import RecommendSection
from offramp.schema.sweep import SweepSection
from offramp.schema.world import AnyFault, DeviceGroupSection, NodeSection


def _policy_from_name(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


class PolicySection(Section):
    """A policy by name or import path; every other key is one of its parameters."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    policy: str = Field(
        description="one of the built-in policies below, or module:Class, or file.py:Class"
    )
    label: Name | None = Field(None, description="its name in records and figures")

    @property
    def parameters(self) -> dict[str, Any]:
        """Keys other than ``policy`` and ``label``."""
        return dict(self.model_extra or {})


class SimulationSection(Section):
    """How long and how often the world is simulated, and what is kept of it."""

    duration_s: Annotated[float, Field(gt=0)] = Field(60.0, description="the measured window")
    warm_up_s: Annotated[float, Field(ge=0)] = Field(5.0, description="cut before the window")
    replications: Annotated[int, Field(ge=1)] = Field(
        5, description="independent repetitions of the world"
    )
    deadline_scales: list[Annotated[float, Field(gt=0)]] = Field(
        [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0],
        description="multiples of the deadlines for the figure of AUD against deadline",
    )
    records: Literal["full", "summary"] = Field(
        "full",
        description="one record for every request; or their summary alone, in memory that does not "
        "grow with their number",
    )
    telemetry_step_s: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="between samples of queue lengths, utilisation and rates, in "
        "telemetry_nodes.csv and telemetry_requests.csv, of the first replication; absent: none "
        "are taken",
    )
    trace_window_s: (
        Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)] | None
    ) = Field(
        None,
        description="[from, to]: a trace for Chrome or Perfetto of these seconds of the first "
        "replication of each arm, in trace-*.json; absent: none is written",
    )


class Scenario(Section):
    """A whole scenario."""

    name: Name = Field(description="results go to results/NAME")
    description: str = Field("", description="one sentence, shown in the report")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the simulation")
    data: DataSection
    model: ModelSection
    training: TrainingSection
    profile: ProfileSection = ProfileSection()
    links: Annotated[dict[Name, LinkSection], Field(min_length=1)]
    mqtt: MqttSection | None = Field(None, description="absent: devices and nodes talk directly")
    nodes: Annotated[dict[Name, NodeSection], Field(min_length=1)]
    devices: Annotated[dict[Name, DeviceGroupSection], Field(min_length=1)]
    faults: list[AnyFault] = Field([], description="absent: nothing fails")
    policies: Annotated[
        list[
            Annotated[
                PolicySection,
                BeforeValidator(_policy_from_name, json_schema_input_type=str | PolicySection),
            ]
        ],
        Field(min_length=1),
    ]
    simulation: SimulationSection = SimulationSection()
    sweep: SweepSection | None = Field(
        None, description="for `offramp sweep`; every other command takes no notice of it"
    )
    recommend: RecommendSection | None = Field(
        None, description="for `offramp recommend`; every other command takes no notice of it"
    )
