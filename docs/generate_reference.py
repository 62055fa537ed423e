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
the scenario's folder. Where a *distribution* is allowed, write a number, or a mapping such as
`{distribution: lognormal, median: 4, sigma: 0.5}`, in the unit of the key."""


def reference() -> str:
    """The whole page."""
    schema = Scenario.model_json_schema()
    parts = [INTRODUCTION]
    for title, key, section in _sections(schema):
        lines = [f"## {title}", "", section.get("description", "").strip(), ""]
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        required = section.get("required", [])
        for name, value in section["properties"].items():
            if _is_section(value, schema):
                continue
            default = "required" if name in required else _default(value)
            meaning = value.get("description", "").replace("|", "\\|")
            lines.append(f"| `{key}{name}` | {_kind(value, schema)} | {default} | {meaning} |")
        if key == "policies.N.":
            lines += ["", _policies()]
        parts.append("\n".join(lines))
    parts.append(_distributions(schema))
    return "\n\n".join(parts) + "\n"


def _sections(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    definitions = schema["$defs"]
    places = {
        "data.": "DataSection",
        "data.label_noise.": "LabelNoiseSection",
        "model.": "ModelSection",
        "training.": "TrainingSection",
        "training.pacing.": "PacingSection",
        "training.scoring.": "ScoringSection",
        "profile.": "ProfileSection",
        "links.NAME.uplink.": "DirectionSection",
        "nodes.NAME.": "NodeSection",
        "devices.NAME.": "DeviceGroupSection",
        "devices.NAME.arrivals.": "ArrivalsSection",
        "policies.N.": "PolicySection",
        "simulation.": "SimulationSection",
    }
    titled = [(key.strip("."), key, definitions[name]) for key, name in places.items()]
    titled = [
        (title.replace("uplink", "uplink, links.NAME.downlink"), key, section)
        for title, key, section in titled
    ]
    return [("The whole", "", schema), *titled]


def _is_section(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    if any("$ref" in one for one in value.get("patternProperties", {}).values()):
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
        return " \\| ".join(f"`{one}`" for one in value["enum"])
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
        "| `confidence` | `threshold` (0.9) | answer at the first exit whose confidence reaches "
        "the threshold |\n"
        "| `deadline_aware` | `quantile` (0.95), `when_none_fits` (`earliest_exit`, or `drop`) | "
        "the deepest exit whose latency quantile fits what is left of the deadline, the way home "
        "included |\n\n"
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
            lines.append(f"| `{kind}` | {parameters} | {section['description']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
