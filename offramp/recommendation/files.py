"""What a recommendation leaves in its folder, besides the page and the figure."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from models.files import whole_file, write_text
from models.importing import module_file
from offramp.key_paths import locate, put
from offramp.named_files import named_files
from offramp.recommendation.definition import Question
from offramp.recommendation.outcome import Outcome, trials_table, verified_table
from offramp.recommendation.verification import Verified
from offramp.scenario import LoadedScenario

TRIALS, VERIFIED, JSON, SCENARIO = (
    "trials.csv",
    "verified.csv",
    "recommendation.json",
    "recommendation.yaml",
)


def write_files(folder: Path, outcome: Outcome, command: str) -> None:
    """Write tables, JSON, and the scenario that is recommended, where one is.

    Raises:
        OSError: a file cannot be written.
    """
    for name, frame in ((TRIALS, trials_table(outcome)), (VERIFIED, verified_table(outcome))):
        with whole_file(folder / name) as partial:
            frame.to_csv(partial, index=False)
    write_text(folder / JSON, json.dumps(_told(outcome), indent=1, ensure_ascii=False) + "\n")
    found = outcome.recommended
    if found is None:
        (folder / SCENARIO).unlink(missing_ok=True)
    else:
        write_text(folder / SCENARIO, recommended_yaml(outcome.question, found, command))


def recommended_yaml(question: Question, found: Verified, command: str) -> str:
    """The scenario with the recommended values in it; ``offramp run`` shows what was verified.

    Files that it names relative to the folder of the given scenario are named in full.
    """
    loaded = recommended_scenario(question, found)
    template = question.template
    data = json.loads(json.dumps(template.data))
    values = question.verified(found.screened.strategy, found.screened.configuration)
    for location, value in zip(template.locations, json.loads(json.dumps(values)), strict=True):
        put(data, location, value)
    for key, file in named_files(loaded).items():
        name = _in_full(file.name, file.path, file.is_code, loaded.folder)
        if name is not None:
            put(data, locate(data, key) + (("policy",) if _is_policy(key) else ()), name)
    data["name"] = loaded.scenario.name
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 100
    yaml.dump(data, text)
    targets = ", ".join(map(str, question.targets))
    return (
        f"# The cheapest configuration that meets {targets}, as it was found by\n#\n"
        f"#   {command}\n#\n"
        "# offramp run shows the simulations with which it was verified.\n\n" + text.getvalue()
    )


def recommended_scenario(question: Question, found: Verified) -> LoadedScenario:
    """The scenario that a verified configuration is."""
    values = question.verified(found.screened.strategy, found.screened.configuration)
    loaded = question.template.scenario_at(values)
    name = f"{loaded.scenario.name[:50]}-recommended"
    update = {"name": name}
    return LoadedScenario(
        loaded.scenario.model_copy(update=update), loaded.folder, loaded.source, loaded.overrides
    )


def _is_policy(key: str) -> bool:
    return re.fullmatch(r"policies\.\d+", key) is not None


def _in_full(name: str, path: Path, is_code: bool, folder: Path) -> str | None:
    """A file's name that is right wherever the scenario lies; None if it is as it is written."""
    if is_code:
        file = module_file(name, folder)
        return None if file is None else f"{file}:{name.rpartition(':')[2]}"
    if "$" in name or name.startswith("~"):
        return None  # of the user's own, and right anywhere
    return str(path.absolute())


# --- JSON ----------------------------------------------------------------------------------------


def _told(outcome: Outcome) -> dict[str, Any]:
    question = outcome.question
    found = outcome.recommended
    return {
        "scenario": question.base.scenario.name,
        "targets": [
            {"metric": it.column, "at_least" if it.is_share else "at_most": it.value}
            for it in question.targets
        ],
        "cost": question.cost,
        "prices": dict(question.section.prices),
        "met": found is not None,
        "recommended": _one(outcome, found),
        "next_cheaper": _one(outcome, outcome.next_cheaper),
        "best": _one(outcome, outcome.best),
        "cheapest_by_strategy": {
            strategy: _one(outcome, outcome.recommended_of(strategy))
            for strategy in question.strategies
        },
        "bound_level": outcome.level,
        "trained_keys": question.trained_keys,
        "search": {
            "seed": question.section.seed,
            "exhaustive": outcome.exhaustive,
            "trials": len(outcome.tried),
            "failed": sum(it.candidate is None for it in outcome.tried),
            "screening_replications": question.section.screening_replications,
            "replications": question.replications,
            "space": list(question.space.lines()),
        },
    }


def _one(outcome: Outcome, it: Verified | None) -> dict[str, Any] | None:
    if it is None:
        return None
    question, screened = outcome.question, it.screened
    bounds = it.evidence.bounds(outcome.level)
    return {
        "strategy": screened.strategy,
        "policy": screened.configuration.policy,
        "keys": dict(zip(question.space.keys, screened.configuration.values, strict=True)),
        "trial": screened.number,
        "cost": it.cost.amount,
        "compute_s": it.cost.compute_s,
        **({"j_per_request": it.cost.energy_j} if question.knows_energy else {}),
        "metrics": {
            target.column: {
                "mean": _number(estimate.mean),
                "half_width": _number(estimate.half_width),
                "bound": _number(bound),
                "training_seeds": estimate.training_seeds,
                "replications": estimate.replications,
            }
            for target, estimate, bound in zip(
                question.targets, it.evidence.estimates, bounds, strict=True
            )
        },
        "overloaded_runs": it.evidence.overloaded,
        "verdict": it.verdict,
    }


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None
