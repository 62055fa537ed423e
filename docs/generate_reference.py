"""Writes ``docs/scenarios.md``, the reference of every scenario key, from the schema.

python docs/generate_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offramp.schema import Scenario

PAGE = Path(__file__).with_name("scenarios.md")

INTRODUCTION = """\
# Every key of a scenario

Made from the schema by `python docs/generate_reference.py`. Start from `offramp init my.yaml`,
a commented scenario; `offramp check my.yaml` says what is wrong with a file and prints it with
every default filled in; `offramp schema` prints the JSON Schema, for completion in editors.

The unit is part of a key's name. `NAME` stands for a name that you choose. Files are relative to
the scenario's folder (of a scenario that ships: to the working folder), and `$VARIABLES` in their
names are expanded. Where a *distribution* is
allowed, write a number, or a mapping such as `{distribution: lognormal, median: 4, sigma: 0.5}`,
in the unit of the key."""

#: How the policies that answer once they are confident are given their thresholds.
THRESHOLDS = "`threshold` (0.9), `thresholds`, `wanted_accuracy` or `wanted_cost_ms`"


def reference() -> str:
    """The whole page."""
    schema = Scenario.model_json_schema()
    parts = [INTRODUCTION, _section("The whole", "", schema, schema)]
    for key, name in SECTIONS.items():
        title = key.strip(".").replace("links.NAME.uplink", "links.NAME.uplink, .downlink")
        section = schema["$defs"].get(name)
        if section is None:
            parts.append(_choices(title, CHOICES[name], schema))
        else:
            parts.append(_section(title, key, section, schema))
        if name == "PolicySection":
            parts.append(_policies())
        if name == "SampledSection":
            parts.append(SWEEPS)
        if name == "RecommendSection":
            parts.append(RECOMMENDATIONS)
    parts.append(_distributions(schema))
    return "\n\n".join(parts) + "\n"


SWEEPS = """\
`offramp sweep SCENARIO` runs the scenario once for every point that this block makes; every other
command runs the scenario as it is without the block.

```yaml
sweep:
  grid:                                    # all combinations: 2 × 3
    training.regime: [end_to_end, layer_wise]
    devices.cameras.count: [5, 10, 20]
  zip:                                     # first with first, second with second: × 2
    links.wifi.uplink.latency_ms: [1, 10]
    links.wifi.downlink.latency_ms: [1, 10]
  latin_hypercube:                         # × 50 points which cover both ranges evenly
    points: 50
    keys:
      nodes.edge.speed: {log_uniform: [0.05, 0.5]}
      devices.cameras.deadline_ms: {uniform: [10, 40]}
```

Any key of this page but those of `sweep` can vary, those included that the file does not write:
write its path with dots, and the position of an entry of a list (`policies.0.threshold`). A value
may be a list or a mapping (`training.seeds: [[0, 1, 2], [3, 4, 5]]`).

`--set KEY=V1,V2` on the command line is one more grid, as in `--set devices.cameras.count=5,10
--set seed=1,2,3`; with one value, `--set KEY=V`, it sets the key for all points. What stands
between the commas is YAML: text with a comma needs quotes, `--set 'description="a, b"'`, and a list
its brackets, `--set 'training.seeds=[0, 1],[2, 3]'`.

Everything is crossed: the parts of the block with each other and with what the command line says.
Points are numbered from 0 in the order in which axes are written, the last changing fastest. What
is drawn depends on `sweep.seed`, the key and the number of the point: another key changes nothing,
and with more points of `random` the first ones stay the same. The simulation's `seed` is the same
at every point, so that points differ by their keys and not by chance; to repeat each with other
chances, raise `simulation.replications`, or vary `seed`.

Before anything is run, every value is tried: one that no combination accepts is refused. Of values
that do not go together, such as a batch size and a profile without it, the points fail, and are
listed at the end. `offramp check` says how many points there are; `offramp check SCENARIO --set
'sweep.grid.seed=[1, 2, 3]'` how many there would be."""

RECOMMENDATIONS = """\
Keys are written as in a sweep, ranges too; [recommend.md](recommend.md) says how they are searched,
what it costs, and what it takes to be recommended."""

#: Where each section of the schema is written, in the order of the page.
SECTIONS = {
    "data.": "DataSection",
    "data.label_noise.": "LabelNoiseSection",
    "model.": "ModelSection",
    "training.": "TrainingSection",
    "training.pacing.": "PacingSection",
    "training.scoring.": "ScoringSection",
    "profile.": "ProfileSection",
    "links.NAME.": "LinkSection",
    "links.NAME.uplink.": "DirectionSection",
    "mqtt.": "MqttSection",
    "nodes.NAME.": "NodeSection",
    "nodes.NAME.batch.": "BatchSection",
    "nodes.NAME.next_tier.": "NextTierSection",
    "nodes.NAME.overhead.": "OverheadSection",
    "nodes.NAME.overhead.cooling.": "CoolingSection",
    "devices.NAME.": "DeviceGroupSection",
    "devices.NAME.arrivals.": "ArrivalsSection",
    "devices.NAME.compute.": "ComputeSection",
    "nodes.NAME.energy., devices.NAME.energy.": "EnergySection",
    "faults.N.": "AnyFault",
    "policies.N.": "PolicySection",
    "simulation.": "SimulationSection",
    "sweep.": "SweepSection",
    "sweep.random., sweep.latin_hypercube.": "SampledSection",
    "recommend.": "RecommendSection",
}

#: Sections that are one of several, by the key that says which.
CHOICES = {
    "ArrivalsSection": (
        "process",
        (
            "PoissonArrivals",
            "PeriodicArrivals",
            "OnOffArrivals",
            "DiurnalArrivals",
            "ClosedLoopArrivals",
            "TraceArrivals",
        ),
    ),
    "AnyFault": (
        "kind",
        ("NodeCrash", "SlowNode", "LinkOutage", "BrokerRestart", "DeviceChurn"),
    ),
}


def _section(title: str, key: str, section: dict[str, Any], schema: dict[str, Any]) -> str:
    lines = [f"## {title.replace('.,', ',')}", "", section.get("description", "").strip(), ""]
    lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    required = section.get("required", [])
    # What may be in several places is listed without them.
    key = "" if "," in key else key
    for name, value in section["properties"].items():
        if _is_section(value, schema) and not _is_optional(value):
            continue
        kind = "keys, see below" if _is_section(value, schema) else _kind(value, schema)
        lines.append(f"| `{key}{name}` | {kind} | {_rest(name, value, required)}")
    return "\n".join(lines)


def _choices(title: str, choice: tuple[str, tuple[str, ...]], schema: dict[str, Any]) -> str:
    """A section that is one of several: first the keys of all, then those of each."""
    tag, names = choice
    members = [schema["$defs"][name] for name in names]
    common = set.intersection(*(set(member["properties"]) for member in members)) - {tag}
    lines = [f"## {title}", "", f"| {tag} | key | value | default | meaning |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, value in members[0]["properties"].items():
        if name in common:
            lines.append(f"| any | `{name}` | {_kind(value, schema)} | {_rest(name, value, [])}")
    for member in members:
        kind = member["properties"][tag]["const"]
        lines.append(f"| `{kind}` | | | | {member['description']} |")
        for name, value in member["properties"].items():
            if name not in common and name != tag:
                rest = _rest(name, value, member["required"])
                lines.append(f"| | `{name}` | {_kind(value, schema)} | {rest}")
    return "\n".join(lines)


def _rest(name: str, value: dict[str, Any], required: list[str]) -> str:
    default = "required" if name in required else _default(value)
    meaning = value.get("description", "").replace("|", "\\|")
    return f"{default} | {meaning} |"


def _is_optional(value: dict[str, Any]) -> bool:
    return any(one.get("type") == "null" for one in value.get("anyOf", []))


def _is_section(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    if any("$ref" in one for one in value.get("patternProperties", {}).values()):
        return True
    if "discriminator" in value or "discriminator" in value.get("items", {}):
        return True
    reference = value.get("$ref") or value.get("items", {}).get("$ref", "")
    for one in value.get("anyOf", []):
        reference = reference or one.get("$ref", "")
    return bool(reference) and "properties" in schema["$defs"][reference.rpartition("/")[2]]


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None:
        return "absent"
    text = "empty" if default in ([], {}, "") else str(default).replace("'", "")
    return f"`{text.lower() if default in (True, False) else text}`" if text != "empty" else text


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    if "oneOf" in value:
        if any(one.get("$ref", "").endswith("Spec") for one in value["oneOf"]):
            return "number ≥ 0 or distribution"
        return " or ".join(_kind(one, schema) for one in value["oneOf"])
    if "$ref" in value:
        section = schema["$defs"][value["$ref"].rpartition("/")[2]]
        keys = ", ".join(
            f"{name}: {_kind(one, schema)}" for name, one in section.get("properties", {}).items()
        )
        return f"{{{keys}}}" if keys else _kind(section, schema)
    if "anyOf" in value:
        kinds = [_kind(one, schema) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return " \\| ".join(dict.fromkeys(f"`{one}`" for one in value["enum"]))
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], schema)}"
    if value.get("type") == "object":
        return f"mapping of {_kind(value.get('additionalProperties', {}), schema)}"
    names = {
        "integer": "integer",
        "number": "number",
        "string": "text",
        "boolean": "true \\| false",
    }
    kind = names.get(value.get("type", ""), "value")
    limits = [
        f"{sign} {value[limit]:g}"
        for limit, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if limit in value
    ]
    return " ".join([kind, " and ".join(limits)]).strip()


def _policies() -> str:
    return (
        "A policy may be written as its name alone: `- deadline_aware`. The built-in ones:\n\n"
        "| policy | parameters | rule |\n| --- | --- | --- |\n"
        "| `fixed_exit` | `exit` (required) | always answer at this exit |\n"
        "| `full` | | always answer at the last exit |\n"
        f"| `confidence` | {THRESHOLDS} | answer at the first exit whose confidence reaches "
        "its threshold |\n"
        "| `deadline_aware` | `quantile` (0.95), `when_none_fits` (`earliest_exit`, or `drop`) | "
        "the deepest exit whose latency quantile fits what is left of the deadline, the way home "
        "included |\n"
        f"| `deadline_confidence` | {THRESHOLDS}; `quantile` (0.95), `when_none_fits` "
        "(`earliest_exit`, or `drop`) | go on exit by exit until confident enough, or until the "
        "next exit would be too late |\n"
        "| `anytime` | `quantile` (0.95), `first_exit` (`finish`, or `cut`) | go on segment by "
        "segment until the deadline cuts it, and answer with the last finished exit; `cut` drops "
        "requests that had none |\n"
        "| `load_adaptive` | `quantile` (0.95), `when_none_fits` (`earliest_exit`, or `drop`) | "
        "as `deadline_aware`, but with each worker's share of the queue to be served in the time "
        "that is left too: the longer the queue, the earlier the exit |\n"
        f"| `offload` | {THRESHOLDS}; `quantile` (0.95), `when_none_fits` (`earliest_exit`, or "
        "`drop`), `raw_input` (false) | where not confident enough, send on what the next tier can "
        "answer in time, else go on here if that fits; with `raw_input`, also before the first "
        "exit |\n"
        "| `imprecise` | `mandatory` (1), `quantile` (0.95) | always compute exit `mandatory`; "
        "go on from there while the next exit fits and nobody waits |\n"
        "| `oracle` | `quantile` (0.05) | knows which exits are correct and what they take: answer "
        "where it is soonest correct, refuse what cannot be in time; simulated only |\n\n"
        "Thresholds are given in one of four ways: `threshold` for every exit; `thresholds`, a "
        "list with one for each exit but the last; `wanted_accuracy` (0 to 1), the cheapest "
        "threshold with that accuracy on the validation split; `wanted_cost_ms`, the most accurate "
        "threshold with at most that mean time of inference there. It is the time from the image "
        "to the answer, exit by exit, with the classifiers of all exits on the way, of one image "
        "by itself on the node that the first devices ask, as if it held the whole network: "
        "waiting, batches, overheads, links and next tiers are not in it. The last two ways look "
        "at no deadline.\n\n"
        "Any other key is a parameter of the policy. [CONTRIBUTING](../CONTRIBUTING.md) shows how "
        "to write your own."
    )


def _distributions(schema: dict[str, Any]) -> str:
    lines = ["## Distributions", "", "| distribution | parameters | |", "| --- | --- | --- |"]
    for name, section in schema["$defs"].items():
        if name.endswith("Spec"):
            properties = dict(section["properties"])
            kind = properties.pop("distribution")["const"]
            parameters = ", ".join(f"`{one}`" for one in properties)
            if section["additionalProperties"]:
                parameters += ", and those of the distribution"
            lines.append(f"| `{kind}` | {parameters} | {section['description']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
