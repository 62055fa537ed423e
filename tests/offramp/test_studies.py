"""Studies: what is crossed, what is trained, and the table that a stopped study resumes from."""

import contextlib
import copy
import io
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import offramp.study.run
import offramp.study.table
from models.artifacts import read_predictions
from models.checkpoint import read_curve
from models.errors import ResultsError, ScenarioError, TrainingError
from models.networks.multi_exit import build_network
from offramp.console import Console
from offramp.store import Store
from offramp.study.cells import cells
from offramp.study.definition import COLUMNS, Study, load_study, shipped_studies
from offramp.study.run import run_study, write_results
from offramp.yaml_source import read_file

Change = dict[str, Any]
#: Configuration, strategy and seed of a training: (3, "standard", 0).
Training = tuple[Any, str, int]

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Two configurations, two strategies and two seeds: eight trainings of a frozen ResNet-8's exit.
TINY: Change = {
    "name": "tiny-study",
    "description": "Does it matter?",
    "data": {"dataset": "digits"},
    "model": {"backbone": "resnet8", "exits": ["layer1"]},
    "training": {
        "regime": "classifier_wise",
        "strategies": ["standard", "curriculum"],
        "seeds": 2,
        "steps": 3,
        "backbone_steps": 2,
        "batch_size": 32,
        "learning_rate": 0.1,
        "evaluations": 3,
        "augment": False,
        "threads": 1,
        "scoring": {"function": "final_exit"},
    },
    "axes": {"training.steps": [3, 4]},
}

STRATEGIES = TINY["training"]["strategies"]
TRAININGS: list[Training] = [
    (steps, strategy, seed) for seed in (0, 1) for steps in (3, 4) for strategy in STRATEGIES
]
#: The same as they are begun: what makes a seed's scores, what needs none, what takes the scores.
BEGUN: list[Training] = [
    (steps, strategy, seed)
    for seed in (0, 1)
    for steps, strategy in (
        (3, "curriculum"),
        (3, "standard"),
        (4, "standard"),
        (4, "curriculum"),
    )
]


def write(path: Path, changes: Change | None = None) -> Path:
    """Write TINY to ``path`` with ``changes`` by key, parts of it parted by slashes."""
    data = copy.deepcopy(TINY)
    for key, value in (changes or {}).items():
        *parents, last = key.split("/")
        node: Any = data
        for part in parents:
            node = node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(data, text)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny study, changed, and returns its path."""
    return lambda changes=None: write(tmp_path / "study.yaml", changes)


@pytest.fixture
def loaded(study: Callable[..., Path]) -> Callable[..., Study]:
    return lambda changes=None, *overrides: load_study(str(study(changes)), overrides)


def of_keys(found: Study, *parts: str) -> list[Any]:
    """A setting of every configuration."""
    values = []
    for configuration in found.configurations:
        value: Any = configuration.experiment
        for part in parts:
            value = getattr(value, part)
        values.append(value)
    return values


# --- definition ---------------------------------------------------------------------------------


def test_without_axes_there_is_one_configuration(loaded: Callable[..., Study]) -> None:
    for changes in ({"axes": ...}, {"axes": {}}):
        found = loaded(changes)
        assert found.axes == ()
        assert [it.values for it in found.configurations] == [{}]
        assert of_keys(found, "training", "steps") == [3]


def test_a_key_and_its_values_are_an_axis_called_by_the_last_part_of_the_key(
    loaded: Callable[..., Study],
) -> None:
    found = loaded(
        {
            "training/pacing": {"start_fraction": 0.3},
            "axes": {"training.pacing.full_at": [0.2, 0.9]},
        }
    )
    assert found.axes == ("full_at",)
    assert [it.values for it in found.configurations] == [{"full_at": 0.2}, {"full_at": 0.9}]
    assert of_keys(found, "training", "pacing", "full_at") == [0.2, 0.9]
    assert of_keys(found, "training", "pacing", "start_fraction") == [0.3, 0.3]


def test_labels_with_the_keys_that_they_set_are_an_axis(loaded: Callable[..., Study]) -> None:
    found = loaded(
        {
            "axes": {
                "labels": {
                    "clean": {},
                    "20 % wrong": {"data.label_noise": {"symmetric_percent": 20}},
                    "40 %, slowly": {
                        "data.label_noise.symmetric_percent": 40,
                        "training.learning_rate": 0.01,
                    },
                }
            }
        }
    )
    assert [it.values["labels"] for it in found.configurations] == [
        "clean",
        "20 % wrong",
        "40 %, slowly",
    ]
    noise = [it and it.symmetric_percent for it in of_keys(found, "data", "label_noise")]
    assert noise == [None, 20, 40]
    assert of_keys(found, "training", "learning_rate") == [0.1, 0.1, 0.01]


@pytest.mark.parametrize("name", ["training.pacing", "my.pacing"])
def test_an_axis_of_labels_keeps_one_name_though_it_has_a_dot(
    name: str, loaded: Callable[..., Study]
) -> None:
    labels = {"early": {"training.pacing.full_at": 0.2}, "late": {"training.pacing.full_at": 0.9}}
    found = loaded({"axes": {name: labels}})
    assert len(found.configurations) == 2
    for configuration in found.configurations:
        assert tuple(configuration.values) == found.axes


def test_axes_are_crossed_the_last_one_fastest(loaded: Callable[..., Study]) -> None:
    found = loaded(
        {
            "axes": {
                "speed": {"slow": {"training.learning_rate": 0.01}, "fast": {}},
                "training.steps": [3, 4, 5],
            }
        }
    )
    assert found.axes == ("speed", "steps")
    assert [tuple(it.values.values()) for it in found.configurations] == [
        *(("slow", 3), ("slow", 4), ("slow", 5)),
        *(("fast", 3), ("fast", 4), ("fast", 5)),
    ]
    assert of_keys(found, "training", "learning_rate") == [0.01] * 3 + [0.1] * 3
    assert of_keys(found, "training", "steps") == [3, 4, 5] * 2


LISTED = {
    "training.steps": st.lists(st.integers(3, 99), min_size=1, max_size=3, unique=True),
    "training.learning_rate": st.lists(st.floats(0.01, 1), min_size=1, max_size=3, unique=True),
    "training.pacing.full_at": st.lists(st.floats(0.1, 1), min_size=1, max_size=2, unique=True),
    "data.validation_fraction": st.lists(st.floats(0.1, 0.5), min_size=1, max_size=2, unique=True),
}


@given(st.fixed_dictionaries({}, optional=LISTED))
@settings(REPEATABLE, max_examples=30)
def test_every_combination_is_there_once_and_differs_from_the_study_in_its_values_alone(
    tmp_path: Path, axes: dict[str, list[Any]]
) -> None:
    common = {"training/scoring": {"function": "early_checkpoint", "steps": 2}}
    path = write(tmp_path / "base.yaml", {**common, "axes": {}})
    base = load_study(str(path)).configurations[0].experiment
    found = load_study(str(write(tmp_path / "crossed.yaml", {**common, "axes": axes})))
    assert len(found.configurations) == prod(map(len, axes.values()))
    assert len({tuple(it.values.values()) for it in found.configurations}) == len(
        found.configurations
    )
    for configuration in found.configurations:
        expected = {
            "data": base.data.model_dump(),
            "model": base.model.model_dump(),
            "training": base.training.model_dump(),
        }
        for key, value in zip(axes, configuration.values.values(), strict=True):
            assert value in axes[key]
            *parents, last = key.split(".")
            node = expected
            for part in parents:
                node = node[part]
            node[last] = value
        experiment = configuration.experiment
        assert experiment.data.model_dump() == expected["data"]
        assert experiment.model.model_dump() == expected["model"]
        assert experiment.training.model_dump() == expected["training"]


def test_an_override_changes_what_no_axis_sets(loaded: Callable[..., Study]) -> None:
    found = loaded(None, "training.steps=9", "training.learning_rate=0.5", "name=other")
    assert found.name == "other"
    assert of_keys(found, "training", "steps") == [3, 4], "an axis that sets the same key wins"
    assert of_keys(found, "training", "learning_rate") == [0.5, 0.5]
    assert found.overrides == ("training.steps=9", "training.learning_rate=0.5", "name=other")


def test_an_override_replaces_the_axes(loaded: Callable[..., Study]) -> None:
    found = loaded(None, "axes={training.batch_size: [8, 16]}")
    assert [it.values for it in found.configurations] == [{"batch_size": 8}, {"batch_size": 16}]


def test_files_are_relative_to_the_study(
    loaded: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.pt").write_text("weights")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = loaded({"axes": {"start": {"fresh": {}, "mine": {"model.weights": "mine.pt"}}}})
    experiment = found.configurations[1].experiment
    assert experiment.file(experiment.model.weights or "") == tmp_path / "mine.pt"


def labelled(name: str, **settings: object) -> Change:
    """One axis with a label ``a`` that sets keys, and a label ``b`` that sets none."""
    return {"axes": {name: {"a": {k.replace("__", "."): v for k, v in settings.items()}, "b": {}}}}


# Changes to the tiny study, the key that the message names, what else it says.
BAD: list[tuple[Change, str, list[str]]] = [
    ({"nme": "a"}, "nme", ["unknown key", "did you mean 'name'?", "axes, measures, notes"]),
    ({"axs": {}}, "axs", ["unknown key", "did you mean 'axes'?"]),
    ({"links": {}}, "links", ["unknown key", "allowed: name, description, data, model"]),
    ({"training/stps": 3}, "training.stps", ["unknown key", "did you mean 'steps'?"]),
    ({"name": ...}, "name", ["this key is required"]),
    ({"training/steps": ...}, "training.steps", ["this key is required"]),
    ({"measures": ["test_acuracy"]}, "measures.0", ["did you mean 'test_accuracy'?"]),
    ({"measures": []}, "measures", ["a list with an entry"]),
    ({"axes": ["training.steps"]}, "axes", ["a mapping of names"]),
    ({"axes": {"training.steps": 3}}, "axes.training.steps", ["given 3", "list", "mapping"]),
    ({"axes": {"training.steps": []}}, "axes.training.steps", ["an axis needs values"]),
    ({"axes": {"speed": {}}}, "axes.speed", ["an axis needs values"]),
    ({"axes": {"speed": {"slow": 3}}}, "axes.speed", ["mapping"]),
    ({"axes": {"steps": [3, 4]}}, "axes.steps", ["a key of data, model or training", "labels"]),
    ({"axes": {"trainin.steps": [3]}}, "axes.trainin.steps", ["data, model or training"]),
    ({"axes": {"name": ["a", "b"]}}, "axes.name", ["data, model or training"]),
    (
        {"axes": {"training.pacing": [{"full_at": 0.3}]}},
        "axes.training.pacing",
        ["no numbers or texts need labels"],
    ),
    (
        {"axes": {"model.exits": [["relu"], ["layer1"]]}},
        "axes.model.exits",
        ["no numbers or texts need labels"],
    ),
    (labelled("speed", steps=3), "axes.speed.a", ["'steps' is no key of data, model or training"]),
    (
        {"axes": {"training.steps": [3], "training.scoring.steps": [4]}},
        "axes.training.scoring.steps",
        ["two axes are called 'steps'"],
    ),
    (
        {"axes": {"training.steps": [3], "steps": {"few": {}}}},
        "axes.steps",
        ["two axes are called 'steps'"],
    ),
    ({"axes": {"training.steps": [3, 4, 3]}}, "axes.training.steps", ["3"]),
    (
        {"axes": {"training.steps": [3, 4], "budget": {"short": {"training.steps": 5}}}},
        "axes",
        ["training.steps sets training.steps, and budget sets training.steps"],
    ),
    (
        {
            "axes": {
                "pacing": {"early": {"training.pacing": {"full_at": 0.1}}},
                "training.pacing.full_at": [0.5],
            }
        },
        "axes",
        ["one would undo the other"],
    ),
    ({"training/strategies": ["standard"]}, "training.strategies", ["name it and another"]),
    (
        {"training/strategies": ["curriculum", "random_curriculum"]},
        "training.strategies",
        ["compares strategies with 'standard'"],
    ),
    (
        {"training/checkpoints": {"standard": ["study.yaml"]}},
        "training.checkpoints",
        ["a study trains its networks itself"],
    ),
    *((labelled(name), f"axes.{name}", [f"{name!r} is a column"]) for name in COLUMNS),
]

#: Of a value that an axis sets, the key that it is set for and the point of the grid are told.
BAD_POINTS: list[tuple[Change, str, list[str]]] = [
    (
        {"axes": {"training.steps": [3, 0]}},
        "training.steps",
        ["given 0", "greater than or equal to 1", "(at steps=0)"],
    ),
    ({"axes": {"training.steps": ["few"]}}, "training.steps", ["given 'few'", "(at steps=few)"]),
    (
        {"axes": {"training.stps": [3, 4]}},
        "training.stps",
        ["unknown key", "did you mean 'steps'?", "(at stps=3)"],
    ),
    (
        {"axes": {"training.steps": [3, 4], "data.dataset": ["digits", "cifr10"]}},
        "data.dataset",
        ["did you mean 'cifar10'?", "(at steps=3, dataset=cifr10)"],
    ),
    (
        labelled("scorer", training__scoring__function="c_score"),
        "training.scoring.file",
        ["c_score needs this key", "(at scorer=a)"],
    ),
    (
        labelled("scorer", training__regime="mixed"),
        "training.scoring.function",
        ["regime classifier_wise", "(at scorer=a)"],
    ),
    (
        labelled("network", model__backbone="resnt20"),
        "model.backbone",
        ["did you mean 'resnet20'?", "(at network=a)"],
    ),
    (
        labelled("network", model__weights="$NOT_SET_HERE/a.pt"),
        "model.weights",
        ["$NOT_SET_HERE is not set", "(at network=a)"],
    ),
    (
        labelled("budget", training__evaluations=9),
        "training.evaluations",
        ["9 evaluations do not fit into 3 steps", "(at budget=a)"],
    ),
    (labelled("deep", training__steps__more=3), "axes", ["training.steps.more", "no keys"]),
    (
        labelled("arms", training__strategies=["curriculum", "random_curriculum"]),
        "training.strategies",
        ["compares strategies with 'standard'", "(at arms=a)"],
    ),
    (
        labelled("arms", training__checkpoints={it: ["study.yaml"] for it in STRATEGIES})
        | {"training/seeds": 1},
        "training.checkpoints",
        ["a study trains its networks itself", "(at arms=a)"],
    ),
]


@pytest.mark.parametrize(
    ("changes", "key", "fragments"),
    [
        pytest.param(
            *row, id=", ".join(f"{key}={str(value)[:60]}" for key, value in row[0].items())
        )
        for row in (*BAD, *BAD_POINTS)
    ],
)
def test_a_bad_study_is_told_with_file_line_key_and_what_is_allowed(
    changes: Change,
    key: str,
    fragments: list[str],
    study: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = study(changes)
    ran = offramp("study", path)
    assert (ran.status, ran.out) == (2, "")
    assert list(tmp_path.iterdir()) == [path]
    _, lines = read_file(path)
    at = [".".join(map(str, location)) for location in lines]
    above = [name for name in at if key == name or key.startswith(f"{name}.")]
    numbers = dict(zip(at, lines.values(), strict=True))
    place = f"{path}:{numbers[max(above, key=len)]}" if above else f"{path}"
    assert ran.err.startswith(f"error: {place}: {key}: ")
    for fragment in fragments:
        assert fragment in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", ["measure", "baseline", "n", "p", "gain_points", "left_out"])
def test_no_axis_is_called_like_a_column_of_the_gains(
    name: str, loaded: Callable[..., Study]
) -> None:
    with pytest.raises(ScenarioError, match=f"axes.{name}: "):
        loaded(labelled(name, training__steps=4))


def test_a_problem_of_many_points_is_told_once_and_others_beside_it(
    loaded: Callable[..., Study],
) -> None:
    with pytest.raises(ScenarioError) as raised:
        loaded(
            {
                "axes": {
                    "scorer": {
                        "a": {"training.scoring.function": "c_score"},
                        "b": {"training.regime": "mixed"},
                    },
                    "training.steps": [3, 4],
                }
            }
        )
    first, second = str(raised.value).splitlines()
    assert first.endswith("c_score needs this key (at scorer=a, steps=3)")
    assert second.endswith("regime classifier_wise (at scorer=b, steps=3)")


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("training.stps=3", ["training.stps", "did you mean 'steps'?"]),
        ("axes={training.steps: []}", ["axes.training.steps", "an axis needs values"]),
        ("training.strategies=[standard]", ["training.strategies", "name it and another"]),
        ("name", ["write it as key.path=value"]),
    ],
)
def test_a_bad_override_is_quoted(
    override: str, fragments: list[str], loaded: Callable[..., Study]
) -> None:
    with pytest.raises(ScenarioError) as raised:
        loaded(None, override)
    assert str(raised.value).startswith(f"--set {override}: ")
    for fragment in fragments:
        assert fragment in str(raised.value)


@pytest.mark.parametrize("name", ["end_to_nd", "end_to_end.yaml", ".", ""])
def test_a_name_that_is_no_file_names_the_studies_that_ship(
    name: str, offramp: Callable[..., Any]
) -> None:
    ran = offramp("study", name)
    assert (ran.status, ran.out) == (2, "")
    assert "no such file" in ran.err
    assert ", ".join(shipped_studies()) in ran.err
    if name.startswith("end"):
        assert "did you mean 'end_to_end'?" in ran.err


# --- the studies that ship ----------------------------------------------------------------------

#: A file in a folder that an environment variable names.
NAMED_FILE = re.compile(r"\$(OFFRAMP_\w+)/([\w.-]+)")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Empty files in place of all that shipped studies name; returns the variables."""
    named = {
        pair for it in shipped_studies().values() for pair in NAMED_FILE.findall(it.read_text())
    }
    for variable, file in named:
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).mkdir(exist_ok=True)
        (tmp_path / variable / file).touch()
    return {variable for variable, _ in named}


def test_these_ship() -> None:
    assert {"classifier_wise", "curriculum_search", "end_to_end", "label_noise"} <= set(
        shipped_studies()
    )


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_study_that_ships_loads_by_its_name_with_every_point_of_its_grid(
    name: str, stand_ins: set[str]
) -> None:
    found = load_study(name)
    written = YAML(typ="safe").load(shipped_studies()[name].read_text())
    assert found.name == written["name"]
    assert found.source == name
    assert len(found.configurations) == prod(len(axis) for axis in written.get("axes", {}).values())
    for configuration in found.configurations:
        assert "standard" in configuration.experiment.training.strategies
        assert configuration.experiment.architecture.exit_count >= 2


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_study_that_ships_names_the_variable_that_is_not_set(
    name: str, stand_ins: set[str], offramp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shipped_studies()[name].read_text()
    for variable in stand_ins:
        if f"${variable}/" not in text:
            continue
        with monkeypatch.context() as without:
            without.delenv(variable)
            ran = offramp("study", name)
        assert (ran.status, ran.out) == (2, "")
        assert f"${variable} is not set" in ran.err


def test_the_commands_in_the_heads_of_the_shipped_studies_load(stand_ins: set[str]) -> None:
    commands = [
        (name, arguments)
        for path in shipped_studies().values()
        for name, arguments in re.findall(r"^# .*offramp study (\S+)(.*)$", path.read_text(), re.M)
    ]
    assert len(commands) >= len(shipped_studies())
    for name, arguments in commands:
        overrides = re.findall(r"--set (\S+)", arguments)
        found = load_study(name, overrides)
        for override in overrides:
            key, value = override.split("=")
            if key == "name":
                assert found.name == value
            else:
                assert set(of_keys(found, *key.split("."))) == {value}


# --- the table ----------------------------------------------------------------------------------


class Finished:
    """A study that ran to its end. Read only: tests change copies."""

    def __init__(self, folder: Path, run: Callable[..., Any], changes: Change) -> None:
        self.path = write(folder / "study.yaml", changes)
        self.store, self.results = folder / "store", folder / "results"
        self.ran = run("study", self.path, "--store", self.store, "-o", self.results, "-j", 1)
        assert self.ran.status == 0, self.ran.err
        self.accuracy = pd.read_csv(self.results / "accuracy.csv")
        self.curves = pd.read_csv(self.results / "curves.csv")


END_TO_END: Change = {
    "training/regime": "end_to_end",
    "training/scoring": {"function": "early_checkpoint", "steps": 2},
    "training/backbone_steps": ...,
    "training/augment": True,
}


@pytest.fixture(scope="module")
def finished(offramp: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny study, finished."""
    return Finished(tmp_path_factory.mktemp("finished"), offramp, {})


@pytest.fixture(scope="module")
def end_to_end(offramp: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same of whole networks."""
    return Finished(tmp_path_factory.mktemp("end_to_end"), offramp, END_TO_END)


@pytest.fixture(params=["finished", "end_to_end"])
def either(request: pytest.FixtureRequest) -> Finished:
    """Both, one after the other."""
    found: Finished = request.getfixturevalue(request.param)
    return found


def trainings_in(table: pd.DataFrame) -> list[Training]:
    """Trainings of a table, each of which must have a row for each of the two exits."""
    found = []
    for training, rows in table.groupby(["steps", "strategy", "seed"], sort=False):
        assert sorted(rows["exit"]) == [1, 2]
        found.append(training)
    return found


def test_the_table_has_a_row_for_each_configuration_strategy_seed_and_exit(
    either: Finished,
) -> None:
    assert list(either.accuracy.columns) == [
        *("steps", "strategy", "seed", "exit", "test_accuracy", "validation_accuracy"),
        *("curve_area", "asked", "computed_by", "made_from"),
    ]
    assert len(either.accuracy) == 2 * 2 * 2 * 2
    assert sorted(trainings_in(either.accuracy)) == sorted(TRAININGS)
    assert either.accuracy["made_from"].nunique() == 8


def test_test_accuracy_is_that_of_the_stored_predictions(either: Finished) -> None:
    for row in either.accuracy.itertuples():
        folder = either.store / "trained" / row.made_from
        predictions = read_predictions(folder / "predictions.parquet")
        assert (predictions.about["strategy"], predictions.about["seed"]) == (
            row.strategy,
            row.seed,
        )
        right = predictions.predicted[:, row.exit - 1] == predictions.label
        assert row.test_accuracy == pytest.approx(right.sum() / len(right), abs=1e-6)


def test_the_curves_are_those_of_the_stored_checkpoints(either: Finished) -> None:
    assert len(either.curves) == 8 * 3 * 2
    for made_from, rows in either.curves.groupby("made_from"):
        curve = read_curve(either.store / "trained" / made_from / "checkpoint.safetensors")
        last = rows["steps"].iloc[0]
        assert curve.step[-1] == last
        for exit in (1, 2):
            of_exit = rows[rows["exit"] == exit].sort_values("step")
            assert list(of_exit["step"]) == curve.step
            assert list(of_exit["validation_accuracy"]) == pytest.approx(
                [accuracies[exit - 1] for accuracies in curve.validation_accuracy], abs=1e-6
            )


def test_curve_area_is_the_mean_of_the_curve_and_validation_accuracy_its_last_point(
    either: Finished,
) -> None:
    for row in either.accuracy.itertuples():
        curve = either.curves[
            (either.curves["made_from"] == row.made_from) & (either.curves["exit"] == row.exit)
        ].sort_values("step")
        assert len(curve) == 3
        accuracies = list(curve["validation_accuracy"])
        assert row.curve_area == pytest.approx(sum(accuracies) / 3, abs=2e-6)
        assert row.validation_accuracy == accuracies[-1]


def test_strategies_of_a_seed_start_from_the_same_frozen_backbone(finished: Finished) -> None:
    last = finished.accuracy[finished.accuracy["exit"] == 2]
    assert (last.groupby("seed")["test_accuracy"].nunique() == 1).all()
    assert len(list((finished.store / "backbone").iterdir())) == 2, "one for each seed"


def test_the_page_says_what_was_run_and_every_link_leads_to_a_file(either: Finished) -> None:
    page = (either.results / "report.md").read_text()
    assert page.startswith("# tiny-study\n\nDoes it matter?\n")
    assert "- steps: 3, 4\n- strategies: standard, curriculum\n- training seeds: 0, 1\n" in page
    assert "2 configurations × 2 strategies × 2 training seeds: 8 trainings." in page
    assert f"offramp study {either.path}\n" in page
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 6
    for link in links:
        assert (either.results / link).is_file(), link
    assert not [path for path in either.results.rglob("*") if "partial" in path.name]


def test_the_gains_on_the_page_are_those_of_the_table(either: Finished) -> None:
    gains = pd.read_csv(either.results / "gains_over_standard.csv")
    trained = 1 if "classifier_wise" in either.path.read_text() else 2
    assert len(gains) == 2 * 2 * trained, "two measures, two configurations, the exits trained"
    for row in gains.itertuples():
        arms = either.accuracy[
            (either.accuracy["steps"] == row.steps) & (either.accuracy["exit"] == row.exit)
        ].pivot(index="seed", columns="strategy", values=row.measure)
        expected = 100 * (arms["curriculum"] - arms["standard"]).mean()
        assert row.gain_points == pytest.approx(expected, abs=1e-3)
        assert (row.strategy, row.baseline, row.n) == ("curriculum", "standard", 2)


# --- trained once, and only what is missing -----------------------------------------------------


@pytest.fixture
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offramp.study.run, "write_figures", lambda *arguments: {})


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Trainings that were begun in this process, in their order; figures are left out."""
    monkeypatch.setattr(offramp.study.run, "write_figures", lambda *arguments: {})
    found: list[Training] = []
    train = offramp.study.run.TrainingStage.train_network

    def noted(stage: Any, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        found.append((stage.experiment.training.steps, strategy, seed))
        train(stage, strategy, seed, made_from)

    monkeypatch.setattr(offramp.study.run.TrainingStage, "train_network", noted)
    return found


@pytest.fixture
def run(
    study: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Runs the tiny study, changed, in one process."""

    def run(changes: Change | None = None, *arguments: object) -> Any:
        folders = ("--store", tmp_path / "store", "-o", tmp_path / "results", "-j", 1)
        return offramp("study", study(changes), *folders, *arguments)

    return run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def copied(finished: Finished, results: Path, tmp_path: Path) -> Finished:
    """The finished study's store and results, to go on from."""
    shutil.copytree(finished.store, tmp_path / "store")
    shutil.copytree(finished.results, results)
    return finished


def table_of(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "accuracy.csv")


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(list(table.columns)).reset_index(drop=True)


def test_trainings_follow_seed_by_seed_and_first_what_others_wait_for(
    run: Callable[..., Any], begun: list[Training]
) -> None:
    assert run().status == 0
    assert begun == BEGUN


def test_the_table_is_in_the_studys_order_whichever_training_was_first(
    run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    run()
    assert begun != TRAININGS
    assert trainings_in(table_of(results)) == TRAININGS


def test_a_finished_study_trains_nothing_and_shows_the_same(
    copied: Finished, run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    ran = run()
    assert ran.status == 0
    assert ran.out.startswith(f"8 of 8 trainings are in {results}\n")
    assert begun == []
    for name in ("accuracy.csv", "curves.csv"):
        assert (results / name).read_bytes() == (copied.results / name).read_bytes()
    # Without its figures, and with the path of this test's own study.
    page = (copied.results / "report.md").read_text().replace(str(copied.path), "study.yaml")
    again = (results / "report.md").read_text()
    again = re.sub(r"offramp study \S+", "offramp study study.yaml", again)
    assert page.split("## Figures")[0].strip() == again.strip()


def test_the_numbers_of_a_study_that_is_read_again_are_the_same(
    copied: Finished, run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    run()
    name = "gains_over_standard.csv"
    assert (results / name).read_bytes() == (copied.results / name).read_bytes()


def test_the_table_alone_is_enough_to_go_on_from(
    copied: Finished, run: Callable[..., Any], begun: list[Training], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "store")
    assert run().status == 0
    assert begun == []


def test_the_store_alone_is_enough_to_go_on_from(
    copied: Finished, run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    shutil.rmtree(results)
    assert run().status == 0
    assert begun == []
    pd.testing.assert_frame_equal(in_order(table_of(results)), in_order(copied.accuracy))


PACED: Change = {
    "axes": {
        "pacing": {
            "early": {"training.pacing.full_at": 0.2},
            "late": {"training.pacing.full_at": 0.9},
        }
    }
}


def test_a_training_that_configurations_share_is_trained_once_and_is_in_the_rows_of_each(
    run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    assert run(PACED).status == 0
    once = [(3, "standard", 0), (3, "standard", 1)]
    assert sorted(begun) == sorted(once + [(3, "curriculum", 0), (3, "curriculum", 1)] * 2)
    table = table_of(results)
    assert len(table) == 2 * 2 * 2 * 2
    assert table[table["strategy"] == "standard"]["made_from"].nunique() == 2
    assert table[table["strategy"] == "curriculum"]["made_from"].nunique() == 4
    early, late = (
        table[(table["strategy"] == "standard") & (table["pacing"] == pacing)]
        .drop(columns="pacing")
        .reset_index(drop=True)
        for pacing in ("early", "late")
    )
    assert len(early) == 2 * 2
    pd.testing.assert_frame_equal(early, late)
    curves = pd.read_csv(results / "curves.csv")
    assert len(curves) == 2 * 2 * 2 * 2 * 3


def test_a_shared_training_is_under_the_values_of_each_whatever_they_are(
    run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    """Null beside a number, and 1 beside 0.5: pandas would make NaN and 1.0 of them."""
    changes: Change = {
        "axes": {"training.scoring.steps": [None, 2], "training.pacing.full_at": [0.5, 1]},
        "training/scoring": {"function": "early_checkpoint"},
    }
    assert run(changes).status == 0
    table = pd.read_csv(results / "accuracy.csv", dtype=str, keep_default_na=False)
    cells = table.groupby(["steps", "full_at", "strategy"]).size()
    assert set(cells.index) == {*product(["None", "2"], ["0.5", "1"], ["standard", "curriculum"])}
    assert cells.nunique() == 1
    begun.clear()
    before = (results / "accuracy.csv").read_bytes()
    assert run(changes).status == 0
    assert not begun
    assert (results / "accuracy.csv").read_bytes() == before


def test_a_training_that_raises_what_it_likes_fails_alone(
    run: Callable[..., Any], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = offramp.study.run.TrainingStage.train_network

    def odd(stage: Any, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        if (stage.experiment.training.steps, strategy, seed) == (3, "curriculum", 1):
            raise ZeroDivisionError("odd")
        train(stage, strategy, seed, made_from)

    monkeypatch.setattr(offramp.study.run.TrainingStage, "train_network", odd)
    ran = run()
    assert ran.status == 2
    assert "steps=3 curriculum, seed 1: ZeroDivisionError: odd" in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert (results / "report.md").exists()
    assert len(table_of(results)) == (8 - 1) * 2


def test_a_new_configuration_takes_what_it_shares_from_the_table(
    run: Callable[..., Any], begun: list[Training], results: Path, tmp_path: Path
) -> None:
    few = copy.deepcopy(PACED)
    del few["axes"]["pacing"]["late"]
    assert run(few).status == 0
    shutil.rmtree(tmp_path / "store" / "trained")
    begun.clear()
    assert run(PACED).status == 0
    assert begun == [(3, "curriculum", 0), (3, "curriculum", 1)]
    table, curves = table_of(results), pd.read_csv(results / "curves.csv")
    assert len(table) == 2 * 2 * 2 * 2
    assert len(curves) == 3 * len(table)
    assert not table.duplicated(["pacing", "strategy", "seed", "exit"]).any()


#: A change, and the trainings that it asks for anew.
CHANGED: dict[str, tuple[Change, list[Training]]] = {
    "another description and other measures": (
        {"description": "Why?", "measures": ["validation_accuracy"], "notes": ["Few steps."]},
        [],
    ),
    "another name": ({"name": "other"}, []),
    "threads": ({"training/threads": 2}, []),
    "pacing": (
        {"training/pacing": {"full_at": 0.9}},
        [it for it in TRAININGS if it[1] == "curriculum"],
    ),
    "another scorer": (
        {"training/scoring": {"function": "early_checkpoint", "steps": 2}},
        [it for it in TRAININGS if it[1] == "curriculum"],
    ),
    "one seed more": (
        {"training/seeds": 3},
        [(steps, strategy, 2) for steps, strategy, seed in BEGUN if seed == 0],
    ),
    "another strategy": (
        {"training/strategies": ["standard", "random_curriculum", "curriculum"]},
        [(steps, "random_curriculum", seed) for seed in (0, 1) for steps in (3, 4)],
    ),
    "another step": (
        {"axes": {"training.steps": [3, 5]}},
        [(5, strategy, seed) for steps, strategy, seed in TRAININGS if steps == 4],
    ),
    "learning rate": ({"training/learning_rate": 0.05}, TRAININGS),
}


@pytest.mark.parametrize(("changes", "anew"), CHANGED.values(), ids=CHANGED.keys())
def test_a_changed_setting_trains_again_what_depends_on_it_and_nothing_else(
    changes: Change,
    anew: list[Training],
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
) -> None:
    ran = run(changes)
    assert ran.status == 0
    assert sorted(begun) == sorted(anew)
    table = table_of(results)
    strategies = changes.get("training/strategies", ["standard", "curriculum"])
    assert sorted(trainings_in(table)) == sorted(
        (steps, strategy, seed)
        for seed in range(changes.get("training/seeds", 2))
        for steps in changes.get("axes", TINY["axes"])["training.steps"]
        for strategy in strategies
    )
    assert len(pd.read_csv(results / "curves.csv")) == 3 * len(table)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"training/seeds": 1}, [it for it in TRAININGS if it[2] == 0]),
        ({"axes": {"training.steps": [4]}}, [it for it in TRAININGS if it[0] == 4]),
    ],
    ids=["fewer seeds", "fewer steps"],
)
def test_rows_that_are_no_longer_asked_for_are_dropped_where_nothing_else_is_missing(
    changes: Change,
    left: list[Training],
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
) -> None:
    assert run(changes).status == 0
    assert begun == []
    gains = pd.read_csv(results / "gains_over_standard.csv")
    assert set(gains["n"]) == {len({seed for _, _, seed in left})}
    assert set(gains["steps"]) == {steps for steps, _, _ in left}
    assert sorted(trainings_in(table_of(results))) == sorted(left)
    assert sorted(trainings_in_curves(results)) == sorted(left)


def trainings_in_curves(results: Path) -> list[Training]:
    curves = pd.read_csv(results / "curves.csv")
    return list(curves.groupby(["steps", "strategy", "seed"]).groups)


#: Values of an axis that a table in CSV does not give back as they were.
AXES: dict[str, Change] = {
    "numbers": {"training.learning_rate": [0.1, 1e-5, 1]},
    "many digits": {"training.learning_rate": [0.123456789, 0.123456788]},
    "flags": {"training.augment": [True, False]},
    "nothing": {"model.resize": [None, 16]},
    "labels of many kinds": {"it": {'a, "b"': {}, "c|d\ne": {"training.steps": 4}}},
    "labels that look like nothing": {"it": {"NA": {}, "None": {"training.steps": 4}}},
    "labels that look like numbers": {"it": {"01": {}, "1": {"training.steps": 4}}},
    "labels that look like flags": {"it": {"true": {}, "True": {"training.steps": 4}}},
}


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES.keys())
def test_whatever_the_values_of_an_axis_the_table_is_gone_on_from(
    axes: Change, run: Callable[..., Any], begun: list[Training], results: Path, tmp_path: Path
) -> None:
    changes = {"axes": axes, "training/learning_rate": 1, "training/seeds": 1}
    assert run(changes).status == 0
    (values,) = axes.values()
    assert len(begun) == 2 * len(values)
    begun.clear()
    shutil.rmtree(tmp_path / "store" / "trained")
    ran = run(changes)
    assert ran.status == 0
    total = 2 * len(values)
    assert ran.out.startswith(f"{total} of {total} trainings are in {results}\n")
    assert begun == []


# --- stopped in the middle ----------------------------------------------------------------------


@contextlib.contextmanager
def stopped_at(number: int, error: BaseException) -> Iterator[None]:
    """The training of that number, counted from 1, raises ``error`` when it is half done."""
    stage = offramp.study.run.TrainingStage
    train, count = stage._store_trained, 0

    def stopping(self: Any, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise error
        train(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_store_trained", stopping)
        yield


@pytest.mark.parametrize("number", [1, 4, 8])
def test_an_interrupted_study_leaves_whole_rows_and_goes_on_from_there(
    number: int,
    finished: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    tmp_path: Path,
) -> None:
    with stopped_at(number, KeyboardInterrupt()):
        ran = run()
    assert ran.status == 130
    assert ran.err.startswith("interrupted")
    done = BEGUN[: number - 1]
    assert begun == BEGUN[:number]
    if done:
        assert sorted(trainings_in(table_of(results))) == sorted(done)
        assert len(pd.read_csv(results / "curves.csv")) == 3 * 2 * len(done)
    else:
        assert not (results / "accuracy.csv").exists()
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    begun.clear()
    ran = run()
    assert ran.status == 0
    assert ran.out.startswith(f"{len(done)} of 8 trainings are in {results}\n")
    assert begun == BEGUN[number - 1 :]
    pd.testing.assert_frame_equal(in_order(table_of(results)), in_order(finished.accuracy))


class Impatient(Console):
    """Interrupts when so many trainings are done."""

    def __init__(self, done: int) -> None:
        super().__init__(quiet=True)
        self.done = done

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        def update(done: int) -> None:
            if description == "train" and done == self.done:
                raise KeyboardInterrupt

        yield update


@pytest.mark.parametrize("done", [2, 5])
def test_a_training_that_is_done_is_in_the_table_before_its_progress_is_shown(
    done: int,
    loaded: Callable[..., Study],
    begun: list[Training],
    results: Path,
    tmp_path: Path,
) -> None:
    found, store = loaded(), Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        run_study(found, store, results, Impatient(done), jobs=1)
    assert sorted(trainings_in(table_of(results))) == sorted(BEGUN[:done])
    assert (results / "report.md").exists()
    begun.clear()
    run_study(found, store, results, Console(quiet=True), jobs=1)
    assert sorted(begun) == sorted(BEGUN[done:])


def test_a_study_that_was_killed_between_its_two_tables_has_no_row_twice(
    finished: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_file, written = offramp.study.table.whole_file, 0

    @contextlib.contextmanager
    def killed(path: Path) -> Iterator[Path]:
        nonlocal written
        written += 1
        if written == 4:  # the second training's second table
            raise KeyboardInterrupt
        with whole_file(path) as partial:
            yield partial

    with monkeypatch.context() as patch:
        patch.setattr(offramp.study.table, "whole_file", killed)
        assert run().status == 130
    ran = run()
    assert (ran.status, ran.err) == (0, "")
    for name in ("accuracy.csv", "curves.csv"):
        assert (results / name).read_bytes() == (finished.results / name).read_bytes()


# --- gone on with on another host ----------------------------------------------------------------


@pytest.fixture
def other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, networks are computed by a torch that was not there before."""
    monkeypatch.setattr(
        "offramp.stages.keys._software", lambda backbone: {"torch": "99.1"}, raising=True
    )


def test_a_finished_study_is_finished_on_another_host(
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    other_versions: None,
) -> None:
    assert run().status == 0
    assert begun == []
    pd.testing.assert_frame_equal(in_order(table_of(results)), in_order(copied.accuracy))


def test_seeds_that_are_whole_are_kept_and_the_next_are_trained_here(
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    other_versions: None,
) -> None:
    assert run({"training/seeds": 3}).status == 0
    assert begun == [(steps, strategy, 2) for steps, strategy, seed in BEGUN if seed == 0]
    table = table_of(results)
    assert len(table) == 3 * 2 * 2 * 2
    by_seed = table.groupby("seed")["computed_by"].unique()
    assert by_seed[2] == ["torch 99.1, cpu, " + table["computed_by"][0].split(", ")[2]]
    assert list(by_seed[0]) == list(by_seed[1]) == [copied.accuracy["computed_by"][0]]
    page = (results / "report.md").read_text()
    assert "8 trainings with torch" in page
    assert "4 trainings with torch 99.1" in page


def test_a_seed_that_another_host_left_half_done_is_trained_again_so_that_it_pairs(
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    other_versions: None,
) -> None:
    for name in ("accuracy.csv", "curves.csv"):
        table = pd.read_csv(results / name)
        lost = (table["seed"] == 1) & (table["strategy"] == "curriculum")
        table[~lost].to_csv(results / name, index=False)
    assert run().status == 0
    assert sorted(begun) == sorted(it for it in TRAININGS if it[2] == 1)
    table = table_of(results)
    assert len(table) == len(copied.accuracy)
    assert (table.groupby(["steps", "seed"])["computed_by"].nunique() == 1).all()


def test_so_it_is_on_a_host_that_chooses_another_precision(
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = copied.accuracy["computed_by"][0].split(", ")[2]
    other = {"fp32": "bf16", "bf16": "fp32"}[chosen]
    monkeypatch.setattr("offramp.stages.keys.resolved_precision", lambda *asked: other)
    assert run().status == 0
    assert begun == []


def test_a_precision_that_is_asked_for_is_not_that_which_a_host_chose(
    copied: Finished, run: Callable[..., Any], begun: list[Training]
) -> None:
    assert run({"training/precision": "fp32"}).status == 0
    assert len(begun) in (0, 8)  # the store may have what is the same on this host


# --- trainings that fail ------------------------------------------------------------------------


@pytest.mark.usefixtures("_without_figures")
def test_a_training_that_diverges_is_named_and_the_others_are_shown(
    run: Callable[..., Any], results: Path
) -> None:
    changes = {**END_TO_END, "axes": {"training.learning_rate": [0.1, 1e30]}}
    ran = run({**changes, "training/scoring": {"function": "early_checkpoint", "steps": 1}})
    assert ran.status == 2
    assert ran.err.startswith(f"error: 4 of 8 trainings failed; what {results} shows is without")
    for strategy in ("standard", "curriculum"):
        for seed in (0, 1):
            assert f"\nlearning_rate=1e+30 {strategy}, seed {seed}: the " in ran.err
    assert ran.err.count("lower the learning rate (now 1e+30)") == 4
    table = table_of(results)
    assert set(table["learning_rate"]) == {0.1}
    assert len(table) == 2 * 2 * 2
    assert "Traceback" not in ran.err
    page = (results / "report.md").read_text()
    assert "1e+30" not in page.replace("1e30", "1e+30").split("## What was run")[0]


@pytest.mark.parametrize(
    ("failing", "shown"),
    [
        ({(3, "curriculum", 1)}, True),
        ({it for it in TRAININGS if it[1] == "curriculum"}, True),
        ({it for it in TRAININGS if it[1] == "standard"}, None),
        (set(TRAININGS), False),
    ],
    ids=["one", "a strategy", "the baseline", "all"],
)
def test_trainings_that_fail_are_named_and_alone_are_trained_again(
    failing: set[Training],
    shown: bool | None,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = offramp.study.run.TrainingStage.train_network

    def fails(stage: Any, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        if (stage.experiment.training.steps, strategy, seed) in failing:
            raise TrainingError("the loss is nan")
        train(stage, strategy, seed, made_from)

    with monkeypatch.context() as patch:
        patch.setattr(offramp.study.run.TrainingStage, "train_network", fails)
        ran = run()
    assert ran.status == 2
    assert f"{len(failing)} of 8 trainings failed" in ran.err
    for steps, strategy, seed in failing:
        assert f"\nsteps={steps} {strategy}, seed {seed}: the loss is nan" in ran.err
    if shown is not None:  # without a baseline there may be a page or none
        assert (results / "report.md").exists() is shown
    begun.clear()
    assert run().status == 0
    assert sorted(begun) == sorted(failing)
    assert sorted(trainings_in(table_of(results))) == sorted(TRAININGS)


def test_what_several_trainings_share_may_fail_without_stopping_the_others(
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    easiness = offramp.study.run.TrainingStage.easiness

    def fails(stage: Any, seed: int, *arguments: Any) -> Any:
        if seed == 0:
            raise TrainingError("the loss is nan")
        return easiness(stage, seed, *arguments)

    monkeypatch.setattr(offramp.study.run.TrainingStage, "easiness", fails)
    ran = run()
    assert ran.status == 2
    assert "the loss is nan" in ran.err
    left = [it for it in TRAININGS if (it[1], it[2]) != ("curriculum", 0)]
    assert sorted(trainings_in(table_of(results))) == sorted(left)


# --- exits that no strategy trains --------------------------------------------------------------


@pytest.fixture
def weights(loaded: Callable[..., Study], tmp_path: Path) -> str:
    """A file of weights for the frozen backbone, which all seeds then share."""
    (configuration,) = loaded({"axes": {}}).configurations
    network = build_network(configuration.experiment.architecture, seed=5)
    torch.save(network.backbone.state_dict(), tmp_path / "frozen.pt")
    return "frozen.pt"


def test_the_last_exit_of_a_backbone_that_all_share_is_in_the_table_but_not_compared(
    weights: str, run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    assert run({"model/weights": weights}).status == 0
    table = table_of(results)
    [share] = table[table["exit"] == 2]["test_accuracy"].unique()
    gains = pd.read_csv(results / "gains_over_standard.csv")
    assert set(gains["exit"]) == {1}
    page = (results / "report.md").read_text()
    assert "Exit 2 is the frozen backbone's own, which no strategy trains: " in page
    assert f"trains: {100 * share:.2f} % of the test set" in page


def test_nor_is_that_of_a_backbone_that_is_another_for_each_seed(finished: Finished) -> None:
    last = finished.accuracy[finished.accuracy["exit"] == 2]
    assert (last.groupby("seed")["test_accuracy"].nunique() == 1).all()
    gains = pd.read_csv(finished.results / "gains_over_standard.csv")
    assert set(gains["exit"]) == {1}
    mean = 100 * last["test_accuracy"].mean()
    assert f"trains: {mean:.2f} % of the test set" in (finished.results / "report.md").read_text()


@pytest.mark.usefixtures("_without_figures")
def test_exits_that_are_trained_are_compared_though_every_accuracy_be_the_same(
    end_to_end: Finished, results: Path
) -> None:
    accuracy = end_to_end.accuracy.assign(test_accuracy=0.5)
    page = write_results(load_study(str(end_to_end.path)), accuracy, end_to_end.curves, results)
    gains = pd.read_csv(results / "gains_over_standard.csv")
    gains = gains[gains["measure"] == "test_accuracy"]
    assert list(gains["exit"]) == [1, 2] * 2
    assert set(gains["verdict"]) == {"identical"}
    assert "frozen" not in page.read_text()


def test_that_activations_do_not_fit_is_told_once(run: Callable[..., Any], results: Path) -> None:
    ran = run({"training/activation_store_gb": 0, "axes": {}})
    assert ran.status == 0
    assert ran.out.count("the frozen backbone runs anew at every step") == 1


# --- one and several processes ------------------------------------------------------------------


def test_one_and_several_processes_give_the_same_tables(
    finished: Finished, loaded: Callable[..., Study], results: Path, tmp_path: Path
) -> None:
    run_study(loaded(), Store(tmp_path / "store"), results, Console(quiet=True), jobs=2)
    for name in ("accuracy.csv", "curves.csv"):
        assert (results / name).read_bytes() == (finished.results / name).read_bytes()


def test_a_table_in_another_order_is_put_in_order(
    copied: Finished, run: Callable[..., Any], begun: list[Training], results: Path
) -> None:
    accuracy = results / "accuracy.csv"
    before = accuracy.read_bytes()
    table = pd.read_csv(accuracy, dtype=str, keep_default_na=False)
    table[::-1].sort_values("exit", kind="stable").to_csv(accuracy, index=False)
    assert accuracy.read_bytes() != before
    assert run().status == 0
    assert begun == []
    assert accuracy.read_bytes() == before


def test_every_training_is_one_cell_or_several_that_share_it(
    loaded: Callable[..., Study],
) -> None:
    found = cells(loaded())
    assert [(it.configuration.values["steps"], it.strategy, it.seed) for it in found] == TRAININGS
    assert len({it.made_from for it in found}) == 8


# --- tables and folders that are not as they should be ------------------------------------------


@pytest.fixture
def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a network was trained before the mistake was reported")

    monkeypatch.setattr("offramp.stages.training.train", never)


def rewrite(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda file: change(pd.read_csv(file)).to_csv(file, index=False)


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    number = next(name for name in ("test_accuracy", "validation_accuracy") if name in table)
    return table.assign(**{number: "many"})


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "binary": lambda file: file.write_bytes(b"\x00\xff\xfe" * 50),
    "another table": lambda file: file.write_text("a,b\n1,2\n"),
    "another axis": rewrite(lambda table: table.rename(columns={"steps": "stops"})),
    "without what it was made from": rewrite(lambda table: table.drop(columns="made_from")),
    "without the exit": rewrite(lambda table: table.drop(columns="exit")),
    "without a measure": rewrite(
        lambda table: table.drop(columns=["test_accuracy", "step"], errors="ignore")
    ),
    "words for numbers": rewrite(in_words),
    "rows of uneven length": lambda file: file.write_text(file.read_text() + "1,2,3" * 9),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.usefixtures("_untrained")
@pytest.mark.parametrize("name", ["accuracy.csv", "curves.csv"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_table_that_is_damaged_or_of_something_else_is_one_message_and_is_left_as_it_was(
    name: str,
    damage: Callable[[Path], object],
    copied: Finished,
    loaded: Callable[..., Study],
    results: Path,
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    found = loaded()
    damage(results / name)
    before = snapshot(results, tmp_path / "store")
    with pytest.raises(ResultsError, match=re.escape(str(results / name))):
        run_study(found, Store(tmp_path / "store"), results, Console(quiet=True), jobs=1)
    assert snapshot(results, tmp_path / "store") == before


@pytest.mark.parametrize("name", ["accuracy.csv", "curves.csv"])
def test_a_table_that_was_removed_is_made_anew(
    name: str,
    copied: Finished,
    run: Callable[..., Any],
    begun: list[Training],
    results: Path,
) -> None:
    (results / name).unlink()
    ran = run()
    assert (ran.status, ran.err) == (0, "")
    assert begun == [], "everything is in the store"
    pd.testing.assert_frame_equal(in_order(table_of(results)), in_order(copied.accuracy))
    curves = pd.read_csv(results / "curves.csv")
    pd.testing.assert_frame_equal(in_order(curves), in_order(copied.curves))


@pytest.mark.usefixtures("_untrained")
@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_results_that_cannot_be_written_are_told_before_anything_is_trained(
    place: str,
    study: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").write_text("a file")
    ran = offramp("study", study(), "--store", tmp_path / "own", "-o", tmp_path / place)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: cannot write results to {tmp_path / place}: ")
    assert (tmp_path / "taken").read_text() == "a file"
    assert not (tmp_path / "own").exists()


@pytest.mark.usefixtures("_untrained")
def test_a_store_that_cannot_be_written_is_told_before_anything_is_trained(
    study: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    ran = offramp("study", study(), "--store", tmp_path / "taken", "-o", tmp_path / "results")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: cannot write to the artefact store")
    assert not (tmp_path / "results").exists()


#: Settings of one configuration's network, and what is said of it.
NETWORKS: dict[str, tuple[Change, list[str]]] = {
    "no such node": ({"model.exits": ["layr1"]}, ["no node 'layr1'", "did you mean 'layer1'?"]),
    "out of order": ({"model.exits": ["layer2", "layer1"]}, ["from the earliest to the last"]),
    "no such file": ({"model.backbone": "gone.py:Net"}, ["no such file", "gone.py"]),
    "no weights": ({"model.weights": "study.yaml"}, ["study.yaml", "file of weights"]),
}


@pytest.fixture
def refused(
    _untrained: None, study: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> Callable[[Change], str]:
    """Runs a study whose second configuration has ``settings``; returns the message."""

    def run(settings: Change) -> str:
        path = study({"axes": {"network": {"plain": {}, "other": settings}}})
        folders = ("--store", tmp_path / "store", "-o", tmp_path / "results")
        ran = offramp("study", path, *folders, "-j", 1)
        assert ran.status == 2
        assert "Traceback" not in ran.err
        return str(ran.err)

    return run


@pytest.mark.parametrize(("settings", "fragments"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_that_cannot_be_is_told_before_any_other_is_trained(
    settings: Change, fragments: list[str], refused: Callable[[Change], str], tmp_path: Path
) -> None:
    message = refused(settings)
    for fragment in fragments:
        assert fragment in message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("settings", "fragments"), NETWORKS.values(), ids=NETWORKS.keys())
def test_of_a_network_that_cannot_be_file_and_configuration_are_told(
    settings: Change, fragments: list[str], refused: Callable[[Change], str], tmp_path: Path
) -> None:
    message = refused(settings)
    assert message.startswith(f"error: {tmp_path / 'study.yaml'}:")
    assert "network=other" in message


# --- the command --------------------------------------------------------------------------------


def test_the_command_says_what_is_there_and_ends_with_the_path_of_the_page(
    finished: Finished,
) -> None:
    lines = finished.ran.out.splitlines()
    assert lines[0] == f"0 of 8 trainings are in {finished.results}"
    assert lines[-1] == f"report: {finished.results / 'report.md'}"
    assert "\x1b" not in finished.ran.out


@pytest.mark.usefixtures("_without_figures")
def test_results_go_to_the_folder_of_the_studys_name_and_quiet_says_where_alone(
    copied: Finished, study: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = study()
    ran = offramp("study", path, "--store", tmp_path / "store", "-j", 1, "--quiet")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "report: results/tiny-study/report.md\n"
    assert (tmp_path / "results" / "tiny-study" / "accuracy.csv").exists()


def test_overrides_change_what_is_trained_and_stand_in_the_command_on_the_page(
    run: Callable[..., Any], begun: list[Training], results: Path, tmp_path: Path
) -> None:
    overrides = ("axes={training.steps: [3]}", "training.seeds=1")
    arguments = [part for override in overrides for part in ("--set", override)]
    ran = run(None, *arguments)
    assert ran.status == 0
    assert begun == [(3, "curriculum", 0), (3, "standard", 0)]
    page = (results / "report.md").read_text()
    [command] = re.findall(r"```sh\n(.*)\n```", page)
    assert command == (
        f"offramp study {tmp_path / 'study.yaml'} --set 'axes={{training.steps: [3]}}' "
        "--set training.seeds=1"
    )
