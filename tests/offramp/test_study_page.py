"""Figures and page of a study: they show the gains, and read the same whichever way they point."""

import itertools
import re
import struct
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models.errors import ResultsError
from offramp.report.figure import FIGURE_SUFFIXES
from offramp.report.style import paper_style
from offramp.study.figures import curve_figures, gain_curve_figures, gain_figures, write_figures
from offramp.study.page import answer, write_page
from offramp.study.panels import parts
from offramp.study.statistics import paired_gains
from tests.offramp.latex_papers import needs_latex, paper_of

STRATEGIES = ("standard", "curriculum", "anti_curriculum", "random_curriculum")
EFFECTS = dict(zip(STRATEGIES, (0, 0.02, -0.02, 0), strict=True))


def study(
    grid: dict[str, list[Any]],
    *,
    seeds: int = 3,
    exits: int = 2,
    strategies: tuple[str, ...] = STRATEGIES,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of a made-up study: accuracy and curves."""
    random = np.random.default_rng(2)
    accuracy, curves = [], []
    for values in itertools.product(*grid.values()):
        for seed in range(seeds):
            shared = random.normal(0.6, 0.02)
            for strategy, exit in itertools.product(strategies, range(1, exits + 1)):
                key = dict(zip(grid, values, strict=True))
                key |= {"strategy": strategy, "seed": seed, "exit": exit}
                final = shared + EFFECTS[strategy] + random.normal(0, 0.0005)
                curve = {step: final * step / (step + 10) for step in (20, 40, 60)}
                accuracy.append(
                    key
                    | {"test_accuracy": final, "validation_accuracy": final}
                    | {"curve_area": float(np.mean(list(curve.values())))}
                )
                curves += [
                    key | {"step": step, "validation_accuracy": y} for step, y in curve.items()
                ]
    return pd.DataFrame(accuracy), pd.DataFrame(curves)


GRID = {"backbone": ["resnet20", "vgg11"], "steps": [100, 400]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study's figures and page in a folder, with the tables that they were made from."""
    folder = tmp_path_factory.mktemp("study")
    accuracy, curves = study(GRID)
    over_standard = paired_gains(accuracy, list(GRID), "standard")
    over_random = paired_gains(accuracy, list(GRID), "random_curriculum", strategies=["curriculum"])
    captions = write_figures(folder / "figures", list(GRID), over_standard, curves)
    page = write_page(
        folder,
        name="early exits",
        description="Which order helps?",
        command="offramp study early-exits.yaml",
        axes=list(GRID),
        accuracy=accuracy,
        gains_over_standard=over_standard,
        gains_over_random=over_random,
        captions=captions,
        notes=["Scoring took 200 steps more."],
    )
    return {
        "folder": folder,
        "accuracy": accuracy,
        "curves": curves,
        "over_standard": over_standard,
        "over_random": over_random,
        "captions": captions,
        "page": page.read_text(encoding="utf-8"),
    }


def tables(page: str) -> list[list[dict[str, str]]]:
    """The tables of a Markdown page: a list of rows each, by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE):
        header, _, *rows = (
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        )
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


# --- figures ----------------------------------------------------------------------------------


def test_every_figure_has_all_its_files_and_nothing_else_is_left(
    written: dict[str, Any],
) -> None:
    names = ["gain_test_accuracy", "gain_curve_area", "learning_curves", "gain_during_training"]
    assert list(written["captions"]) == names
    folder = written["folder"] / "figures"
    files = {f"{name}{suffix}" for name in names for suffix in FIGURE_SUFFIXES}
    assert {path.name for path in folder.iterdir()} == files
    for name in names:
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        png = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width >= 3.4 * 300
        assert height >= 300
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    assert not plt.get_fignums(), "every figure is closed"


@needs_latex
def test_the_figures_of_a_study_go_into_a_paper(written: dict[str, Any], tmp_path: Path) -> None:
    assert paper_of(tmp_path, written["folder"] / "figures")


@pytest.mark.parametrize("measure", ["test_accuracy", "curve_area"])
def test_the_data_behind_the_gains_are_the_gains(measure: str, written: dict[str, Any]) -> None:
    data = pd.read_csv(written["folder"] / "figures" / f"gain_{measure}.csv")
    gains = written["over_standard"]
    expected = gains[gains["measure"] == measure].reset_index(drop=True)
    pd.testing.assert_frame_equal(data, expected, check_dtype=False)


def test_points_and_error_bars_are_drawn_where_the_gains_say(written: dict[str, Any]) -> None:
    gains = written["over_standard"]
    with paper_style():
        (_, figure), _ = gain_figures(gains, list(GRID))
    drawn = []
    for panel in figure.drawing.axes:
        for container in panel.containers:
            (points, _, (bars,)) = container.lines
            (low, high) = bars.get_segments()[0][:, 1]
            filled = points.get_markerfacecolor() != "white"
            drawn.append((points.get_ydata()[0], low, high, filled))
    plt.close(figure.drawing)
    of_measure = gains[gains["measure"] == "test_accuracy"]
    expected = [
        (row.gain_points, row.low_points, row.high_points, row.verdict in ("better", "worse"))
        for row in of_measure.itertuples()
    ]
    assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(expected)))
    assert 0 < sum(filled for *_, filled in drawn) < len(drawn)


def test_curves_are_means_over_seeds_with_their_t_intervals(written: dict[str, Any]) -> None:
    data = pd.read_csv(written["folder"] / "figures" / "learning_curves.csv")
    keys = [*GRID, "exit", "strategy", "step"]
    groups = written["curves"].groupby(keys)["validation_accuracy"]
    assert len(data) == len(groups) == 4 * 2 * 4 * 3
    for row in data.itertuples():
        values = groups.get_group(tuple(getattr(row, key) for key in keys))
        half_width = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
        assert row.n == 3
        assert row.mean == pytest.approx(values.mean())
        assert [row.mean - row.low, row.high - row.mean] == pytest.approx([half_width] * 2)


def test_gains_during_training_are_paired(written: dict[str, Any]) -> None:
    data = pd.read_csv(written["folder"] / "figures" / "gain_during_training.csv")
    assert "standard" not in set(data["strategy"])
    # The last point of a curve is the final accuracy times 60 / 70, in every arm.
    last = data[data["step"] == 60].set_index([*GRID, "exit", "strategy"])
    gains = written["over_standard"]
    for row in gains[gains["measure"] == "test_accuracy"].itertuples():
        point = last.loc[(row.backbone, row.steps, row.exit, row.strategy)]
        assert point["mean"] == pytest.approx(row.gain_points * 60 / 70)
        assert point["high"] == pytest.approx(row.high_points * 60 / 70)


def test_captions_tell_seeds_and_interval(written: dict[str, Any]) -> None:
    for caption in written["captions"].values():
        assert "3 training seeds" in caption
        assert "95 % t intervals" in caption
    assert "24 tested comparisons" in written["captions"]["gain_test_accuracy"]


def test_a_large_study_is_cut_by_its_first_axis_and_every_configuration_is_drawn_once() -> None:
    grid = {"dataset": ["digits"], "backbone": ["a", "b"], "steps": [*range(100, 900, 100)]}
    accuracy, curves = study(grid, seeds=2, exits=1, strategies=STRATEGIES[:2])
    gains = paired_gains(accuracy, list(grid), "standard", measures=["test_accuracy"])
    with paper_style():
        by_gain = dict(gain_figures(gains, list(grid)))
        by_curve = dict(curve_figures(curves, list(grid)))
    plt.close("all")
    assert list(by_gain) == ["gain_test_accuracy_a", "gain_test_accuracy_b"]
    assert "Here dataset = digits, backbone = a." in by_gain["gain_test_accuracy_a"].caption
    assert "16 tested comparisons" in by_gain["gain_test_accuracy_a"].caption
    assert list(by_curve) == [f"learning_curves_{name}_{part}" for name in "ab" for part in (1, 2)]
    for figures, rows in ((by_gain, len(gains)), (by_curve, 16 * 2 * 3)):
        data = pd.concat([figure.data for figure in figures.values()])
        assert len(data) == len(data.drop_duplicates()) == rows


def test_settings_that_look_alike_in_file_names_do_not_overwrite_each_other() -> None:
    frame = pd.DataFrame({"layer": ["a/b", "a b", "a-b"], "exit": 1})
    assert len({suffix for suffix, _ in parts(frame, ["layer"], most=2)}) == 3


@pytest.mark.parametrize(
    ("grid", "columns", "titles"),
    [
        ({}, 1, [""]),
        ({"steps": [1, 2, 3, 4]}, 4, ["steps = 1", "steps = 2", "steps = 3", "steps = 4"]),
        (GRID, 2, ["steps = 100", "steps = 400", "", ""]),
        ({"steps": [1, 2, 3, 4, 5]}, 3, [f"steps = {steps}" for steps in range(1, 6)]),
    ],
)
def test_panels_are_named_once(grid: dict[str, list[Any]], columns: int, titles: list[str]) -> None:
    accuracy, _ = study(grid, seeds=2, strategies=STRATEGIES[:2])
    gains = paired_gains(accuracy, list(grid), "standard", measures=["test_accuracy"])
    with paper_style():
        ((_, figure),) = gain_figures(gains, list(grid))
    panels = [panel for panel in figure.drawing.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == titles
    assert panels[0].get_gridspec().ncols == columns
    names = [text.get_text() for panel in panels for text in panel.texts]
    assert names == (["backbone = resnet20", "backbone = vgg11"] if grid is GRID else [])
    plt.close("all")


def test_configurations_with_different_exits_share_a_figure() -> None:
    accuracy, curves = study({"backbone": ["a", "b"]}, exits=3)
    keep = (accuracy["backbone"] == "a") | (accuracy["exit"] < 3)
    shorter = (curves["backbone"] == "a") | (curves["exit"] < 3)
    gains = paired_gains(accuracy[keep], ["backbone"], "standard", measures=["test_accuracy"])
    with paper_style():
        ((_, figure),) = gain_figures(gains, ["backbone"])
        ((_, lines),) = curve_figures(curves[shorter], ["backbone"])
    ticks = [[text.get_text() for text in axes.get_xticklabels()] for axes in figure.drawing.axes]
    assert ticks == [["1", "2", "3"], ["1", "2"]]
    assert sum(panel.get_visible() for panel in lines.drawing.axes) == 5
    plt.close("all")


def test_one_seed_draws_points_without_intervals_and_lines_without_bands(tmp_path: Path) -> None:
    accuracy, curves = study({}, seeds=1)
    captions = write_figures(tmp_path, [], paired_gains(accuracy, [], "standard"), curves)
    assert "1 training seed" in captions["gain_test_accuracy"]
    assert "0 tested comparisons" in captions["gain_test_accuracy"]
    for caption in captions.values():
        assert "no intervals" in caption
        assert "95 %" not in caption
    assert pd.read_csv(tmp_path / "learning_curves.csv")["low"].isna().all()


@pytest.mark.parametrize("seeds", [2, 3])
def test_bands_are_drawn_of_three_seeds_and_not_of_two(seeds: int) -> None:
    _, curves = study({}, seeds=seeds)
    with paper_style():
        ((_, figure),) = curve_figures(curves, [])
    bands = [it for panel in figure.drawing.axes for it in panel.collections if it.get_paths()]
    assert bool(bands) == (seeds == 3)
    assert ("Of two seeds no band is drawn" in figure.caption) == (seeds == 2)
    assert figure.data["low"].notna().all()
    plt.close("all")


def test_the_baseline_alone_has_learning_curves_and_no_gains(tmp_path: Path) -> None:
    accuracy, curves = study({}, strategies=("standard",))
    gains = paired_gains(accuracy, [], "standard")
    assert list(write_figures(tmp_path, [], gains, curves)) == ["learning_curves"]


def test_an_arm_without_common_seeds_is_no_obstacle(tmp_path: Path) -> None:
    accuracy, curves = study({})
    lonely = (accuracy["strategy"] == "curriculum") & (accuracy["exit"] == 1)
    gains = paired_gains(accuracy[~lonely], [], "standard")
    assert (gains["n"] == 0).sum() == 2
    write_figures(tmp_path, [], gains, curves)


def test_curves_that_do_not_fit_are_refused() -> None:
    _, curves = study({})
    with pytest.raises(ResultsError, match="no column step"):
        list(curve_figures(curves.drop(columns="step"), []))
    with pytest.raises(ResultsError, match="more than one row"):
        list(gain_curve_figures(pd.concat([curves, curves]), [], "standard"))


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    accuracy, curves = study({}, seeds=2, exits=1)
    gains = paired_gains(accuracy, [], "standard")
    for name in ("one", "two"):
        write_figures(tmp_path / name, [], gains, curves)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


# --- page -------------------------------------------------------------------------------------


def test_the_numbers_on_the_page_are_the_gains(written: dict[str, Any]) -> None:
    shown = [row for table in tables(written["page"]) for row in table if "verdict" in row]
    gains = pd.concat([written["over_standard"], written["over_random"]])
    assert len(shown) == len(gains) == 2 * 24 + 2 * 8
    for cells, row in zip(shown, gains.itertuples(), strict=True):
        assert (cells["backbone"], cells["steps"]) == (row.backbone, str(row.steps))
        assert (cells["exit"], cells["strategy"]) == (str(row.exit), row.strategy)
        assert cells["seeds"] == "3"
        gain, half_width = map(float, cells["gain, points"].split(" ± "))
        assert gain == pytest.approx(row.gain_points, abs=0.0051)
        assert half_width == pytest.approx(row.half_width_points, abs=0.0051)
        baseline = float(cells[f"{row.baseline} mean"].removesuffix(" %"))
        assert baseline == pytest.approx(100 * row.baseline_mean, abs=0.051)
        strategy = float(cells["strategy mean"].removesuffix(" %"))
        assert strategy == pytest.approx(100 * row.strategy_mean, abs=0.051)
        assert cells["verdict"] == row.verdict
        if cells["p (Holm)"] == "< 0.001":
            assert row.p_holm < 0.001
        else:
            assert float(cells["p (Holm)"]) == pytest.approx(row.p_holm, abs=0.00051)


def test_the_gains_lie_beside_the_page_unrounded(written: dict[str, Any]) -> None:
    for file, gains in (
        ("gains_over_standard.csv", written["over_standard"]),
        ("gains_over_random_order.csv", written["over_random"]),
    ):
        data = pd.read_csv(written["folder"] / file)
        pd.testing.assert_frame_equal(data, gains.reset_index(drop=True), check_dtype=False)
        assert f"[{file}]({file})" in written["page"]


def test_the_page_counts_by_exit(written: dict[str, Any]) -> None:
    (counts,) = [table for table in tables(written["page"]) if "comparisons" in table[0]]
    assert len(counts) == 2 * 3 * 2
    gains = written["over_standard"]
    for cells in counts:
        rows = gains[
            (gains["strategy"] == cells["strategy"])
            & (gains["exit"] == int(cells["exit"]))
            & (gains["measure"].str.startswith("test") == (cells["measure"] == "test accuracy"))
        ]
        assert int(cells["comparisons"]) == len(rows) == 4
        for verdict in ("better", "worse", "no difference shown", "identical"):
            assert int(cells[verdict]) == (rows["verdict"] == verdict).sum()


def test_the_page_says_what_was_run_and_links_files_that_exist(written: dict[str, Any]) -> None:
    page = written["page"]
    for text in (
        "# early exits\n\nWhich order helps?",
        "- backbone: resnet20, vgg11\n- steps: 100, 400\n",
        "- strategies: standard, curriculum, anti_curriculum, random_curriculum\n",
        "- training seeds: 0, 1, 2\n",
        "4 configurations × 4 strategies × 3 training seeds: 48 trainings.",
        "```sh\nofframp study early-exits.yaml\n```",
        "Scoring took 200 steps more.",
        "24 (test_accuracy, over standard)",
        "8 (test_accuracy, over random_curriculum)",
    ):
        assert text in page
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) == 4 * 3 + 4
    for link in links:
        assert (written["folder"] / link).stat().st_size > 0


def test_missing_trainings_are_counted(tmp_path: Path) -> None:
    accuracy, _ = study({"steps": [100, 400]}, strategies=STRATEGIES[:2])
    lost = (accuracy["seed"] == 2) & (accuracy["strategy"] == "curriculum")
    accuracy = accuracy[~(lost & (accuracy["steps"] == 400))]
    page = _page(tmp_path, accuracy, ["steps"])
    assert "11 of 12 trainings (missing: 1)." in page
    seeds = {cells["seeds"] for table in tables(page) for cells in table if "seeds" in cells}
    assert seeds == {"3", "2 (1 left out)"}


def test_without_a_control_the_page_says_what_that_leaves_open(tmp_path: Path) -> None:
    accuracy, _ = study({}, strategies=STRATEGIES[:2])
    page = _page(tmp_path, accuracy, [])
    assert "a gain may come from the pacing alone" in page
    assert "1 configuration × 2 strategies × 3 training seeds: 6 trainings." in page
    assert not (tmp_path / "gains_over_random_order.csv").exists()


def test_one_seed_is_called_untested(tmp_path: Path) -> None:
    accuracy, _ = study({}, seeds=1)
    page = _page(tmp_path, accuracy, [])
    assert page.count("With fewer than two common training seeds, nothing was tested.") == 6
    assert "(no interval)" in page
    assert "nan" not in page


def test_names_cannot_break_a_table(tmp_path: Path) -> None:
    accuracy, _ = study({"layers": ["a|b"]})
    rows = [row for table in tables(_page(tmp_path, accuracy, ["layers"])) for row in table]
    assert {row["layers"] for row in rows if "layers" in row} == {"a\\|b"}


def _page(folder: Path, accuracy: pd.DataFrame, axes: list[str]) -> str:
    gains = paired_gains(accuracy, axes, "standard")
    path = write_page(
        folder,
        name="study",
        description="A study.",
        command="make study",
        axes=axes,
        accuracy=accuracy,
        gains_over_standard=gains,
    )
    return path.read_text(encoding="utf-8")


# --- the answer -------------------------------------------------------------------------------


def comparison(*differences: float, exit: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"strategy": arm, "seed": seed, "exit": exit, "test_accuracy": 0.5 + gain}
            for seed, difference in enumerate(differences)
            for arm, gain in (("standard", 0), ("curriculum", difference))
        ]
    )


def test_the_answer_worked_by_hand() -> None:
    accuracy = pd.concat(
        [
            comparison(0.05, 0.051, 0.049, exit=1),
            comparison(-0.03, -0.031, -0.029, exit=2),
            comparison(0.01, -0.01, 0.0, exit=3),
            comparison(0, 0, 0, exit=4),
        ]
    )
    gains = paired_gains(accuracy, [], "standard", measures=["test_accuracy"])
    # Half widths: 4.303 / √3 times 0.1, 0.1 and 1 points; the identical exit has none.
    assert answer(gains) == (
        "- Test accuracy: **curriculum** against standard: better in 1 of 4 comparisons, worse in "
        "1, no difference shown in 1, identical in 1. Mean gain +0.50 points; before correction, "
        "the 95 % interval lies above zero in 1 and below zero in 1; its median half width is "
        "0.25 points."
    )


def test_the_answer_tells_what_correction_took_away() -> None:
    # p = 0.037 each: below 0.05 alone, above it as two.
    accuracy = pd.concat([comparison(0.01, 0.02, 0.04, 0.02, exit=exit) for exit in (1, 2)])
    gains = paired_gains(accuracy, [], "standard", measures=["test_accuracy"])
    assert "better in 0 of 2 comparisons" in answer(gains)
    assert "the 95 % interval lies above zero in 2 and below zero in 0" in answer(gains)


def test_losses_read_like_gains() -> None:
    gain, loss = (
        answer(
            paired_gains(
                comparison(*(sign * difference for difference in (0.05, 0.051, 0.049))),
                [],
                "standard",
                measures=["test_accuracy"],
            )
        )
        for sign in (1, -1)
    )
    for here, there in (
        ("better in 1 of 1 comparison, worse in 0", "better in 0 of 1 comparison, worse in 1"),
        ("+5.00", "-5.00"),
        ("above zero in 1 and below zero in 0", "above zero in 0 and below zero in 1"),
    ):
        assert here in gain
        gain = gain.replace(here, there)
    assert gain == loss


def test_arms_that_never_differ_are_nothing_to_test() -> None:
    gains = paired_gains(comparison(0, 0), [], "standard", measures=["test_accuracy"])
    assert answer(gains).endswith("identical in 1. There was nothing to test.")


def test_nothing_to_compare_is_said() -> None:
    accuracy = comparison(0.1, 0.2)
    alone = accuracy[accuracy["strategy"] == "standard"]
    gains = paired_gains(alone, [], "standard", measures=["test_accuracy"])
    assert answer(gains) == "There was nothing to compare."
