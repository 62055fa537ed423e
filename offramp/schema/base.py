"""What every section of a scenario has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of a scenario: unknown keys, loose types and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        """Refuse unknown keys here, where the keys that are allowed are known."""
        if isinstance(values, dict) and cls.model_config.get("extra") == "forbid":
            unknown = [key for key in values if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(
                    "unknown_keys",
                    "unknown keys",
                    {"keys": unknown, "allowed": list(cls.model_fields)},
                )
        return values


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]

#: Tags of values that may be written in another way too: a number that may be a list, a word that
#: may be a number, a word that may be a mapping, a list that may be a mapping.
SINGLE, WORD, RULE, CHOICES = "single", "word", "rule", "choices"
#: What else is allowed where one of these does not fit.
OR_ELSE = {
    SINGLE: "a list",
    WORD: "an integer",
    RULE: "{correlated: a number}",
    CHOICES: "a range such as {uniform: [low, high]}",
}
