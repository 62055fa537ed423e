"""The report's table of exits: what an answer at each of them costs, worked out by hand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.artifacts import read_profile
from offramp import Pipeline, load_scenario
from offramp.report.build import build_report
from offramp.store import Store

# ResNet-8 on digits of 8x8 with a linear branch after layer1. Convolutions of 3x3 have no bias;
# a multiply-accumulate counts as two FLOPs; batch norm, ReLU and pooling count none.
STEM = 16 * 9 + 2 * 16  # one channel in, 16 out, and a batch norm
LAYER1 = 2 * (16 * 16 * 9 + 2 * 16)
LAYER2 = 16 * 32 * 9 + 32 * 32 * 9 + 4 * 32
LAYER3 = 32 * 64 * 9 + 64 * 64 * 9 + 4 * 64
PARAMETERS = [
    STEM + LAYER1 + (16 + 1) * 10,
    STEM + LAYER1 + LAYER2 + LAYER3 + (64 + 1) * 10,  # without the branch of exit 1
]
STEM_FLOPS = 2 * 64 * 16 * 9
LAYER1_FLOPS = 2 * 2 * 64 * 16 * 16 * 9
LATER_FLOPS = 2 * (16 * 32 * 9 + 32 * 32 * 9) * 16 + 2 * (32 * 64 * 9 + 64 * 64 * 9) * 4
FLOPS = [
    STEM_FLOPS + LAYER1_FLOPS + 2 * 16 * 10,
    STEM_FLOPS + LAYER1_FLOPS + LATER_FLOPS + 2 * 64 * 10,
]


def exit_table(page: str) -> list[list[str]]:
    """Cells of the table under the heading "Exits", its header first."""
    section = page.split("## Exits\n")[1].split("\n## ")[0]
    lines = [line.strip("| ") for line in section.splitlines() if line.startswith("|")]
    assert set(lines.pop(1)) <= set("-| ")
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_the_numbers_by_hand() -> None:
    assert PARAMETERS == [5_018, 75_002]
    assert FLOPS == [608_576, 1_494_272]


def test_the_report_has_a_row_for_each_exit_with_its_parameters_flops_and_state(
    trained: Any,
) -> None:
    header, first, last = exit_table((trained.results / "report.md").read_text())
    assert header == ["exit", "after", "parameters", "MFLOPs", "to resume after it (kB)"]
    # 16 channels of 8x8, four bytes each: 4,096 bytes.
    assert first == ["1", "layer1", "5,018", "0.6", "4.1"]
    assert last[:4] == ["2", "the whole backbone", "75,002", "1.5"]


def test_it_says_what_a_flop_is_and_what_is_counted(trained: Any) -> None:
    page = (trained.results / "report.md").read_text()
    section = page.split("## Exits\n")[1].split("\n## ")[0]
    assert "a multiply-accumulate counts as two FLOPs" in section
    assert "one image at that exit alone" in section


def test_the_profile_carries_the_exact_numbers(trained: Any) -> None:
    exits = read_profile(trained.results / "profile.parquet").about["exits"]
    assert [exit["exit"] for exit in exits] == [1, 2]
    assert [exit["node"] for exit in exits] == ["layer1", ""]
    assert [exit["parameters"] for exit in exits] == PARAMETERS
    assert [exit["flops"] for exit in exits] == FLOPS
    assert exits[0]["state_bytes"] == 16 * 8 * 8 * 4


@pytest.mark.parametrize(
    ("changes", "nodes", "kilobytes"),
    [
        # 16 channels of 8x8, then 32 of 4x4.
        ({"model.exits": ["relu", "layer2"]}, ["relu", "layer2"], ["4.1", "2.0"]),
        # Cut in the middle of a block: what the convolution made, and what skips it.
        ({"model.exits": ["layer1.0.conv1"]}, ["layer1.0.conv1"], ["8.2"]),
        # 0.407 of the FLOPs is where layer1 ends.
        ({"model.exits": {"at_flops": [0.4]}}, None, ["4.1"]),
        # Four times the pixels.
        ({"model.exits": ["layer1"], "model.resize": 16}, ["layer1"], ["16.4"]),
    ],
    ids=["two exits", "within a block", "placed by FLOPs", "resized"],
)
def test_wherever_exits_sit_the_table_names_the_place_and_what_must_travel(
    changes: dict[str, Any],
    nodes: list[str] | None,
    kilobytes: list[str],
    scenario: Callable[..., Path],
    tmp_path: Path,
) -> None:
    small = {
        "training.strategies": ["standard"],
        "training.seeds": 1,
        "training.steps": 1,
        "policies": ["confidence"],
        "simulation.replications": 1,
        "simulation.deadline_scales": [],
    }
    pipeline = Pipeline(load_scenario(str(scenario({**small, **changes}))), Store(tmp_path / "own"))
    pipeline.train()
    pipeline.profile()
    pipeline.simulate(tmp_path / "results", jobs=1)
    profiled = read_profile(tmp_path / "results" / "profile.parquet").about["exits"]
    rows = exit_table(build_report(tmp_path / "results").page.read_text())[1:]
    assert len(rows) == len(kilobytes) + 1
    assert [row[4] for row in rows[:-1]] == kilobytes
    if nodes:
        assert [row[1] for row in rows[:-1]] == nodes
    assert rows[-1][1] == "the whole backbone"
    for row, exit in zip(rows, profiled, strict=True):
        assert row[0] == str(exit["exit"])
        assert row[2] == f"{exit['parameters']:,}"
        assert row[3] == f"{exit['flops'] / 1e6:.1f}"


def test_without_a_profile_of_this_host_there_is_no_table(
    simulated: Callable[..., tuple[Pipeline, Path]], fixed_service: dict[str, Any]
) -> None:
    pipeline, results = simulated(fixed_service)
    assert "## Exits" not in pipeline.report(results).page.read_text()


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
def test_a_damaged_profile_among_the_results_is_one_message_that_names_it(
    damage: str,
    trained: Any,
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    file = results / "profile.parquet"
    content = {
        "empty": b"",
        "cut": file.read_bytes()[: file.stat().st_size // 2],
        "foreign": (results / "records.parquet").read_bytes(),
    }
    file.write_bytes(content[damage])
    before = snapshot(results)
    ran = offramp("report", results)
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert str(file) in ran.err
    assert snapshot(results) == before
