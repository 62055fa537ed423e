"""A policy in a file of the user's own, named in the scenario by its import path."""

import datetime
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

MINE = """\
from dataclasses import dataclass

from sim.policy import ANSWER, run_to


@dataclass
class Mine:
    last: int = 1

    def decide(self, request, node):
        return ANSWER if request.exit else run_to(self.last)
"""


@pytest.fixture
def simulate(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    fixed_service: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Runs ``offramp simulate`` with one policy, without the report, from another folder."""
    from offramp import Pipeline

    monkeypatch.setattr(Pipeline, "report", lambda self, results: None)
    monkeypatch.setattr("offramp.report.terminal.show_report", lambda report, console: None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def run(policy: object, jobs: int = 1) -> Any:
        path = scenario({**fixed_service, "policies": [policy]})
        return offramp("simulate", path, "--store", store, "-o", tmp_path / "results", "-j", jobs)

    return run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def records(results: Path) -> pd.DataFrame:
    return pq.read_table(results / "records.parquet").to_pandas()


def test_a_file_beside_the_scenario_works_from_any_folder(
    simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert simulate("mine.py:Mine").status == 0
    frame = records(results)
    assert set(frame["policy"]) == {"Mine"}
    assert set(frame["exit"]) == {1}


def test_its_keyword_arguments_are_keys_of_the_yaml(
    simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert simulate({"policy": "mine.py:Mine", "last": 2}).status == 0
    frame = records(results)
    assert set(frame["policy"]) == {"Mine(last=2)"}
    assert set(frame["exit"]) == {2}


def test_several_processes_load_it_too_and_give_the_same_bytes(
    simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    contents = []
    for jobs in (1, 2):
        assert simulate("mine.py:Mine", jobs).status == 0
        contents.append((results / "records.parquet").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("jobs", "seconds"),
    [(1, 1), (2, 1), (1, 0)],
    ids=["one process", "several processes", "within the same second"],
)
def test_it_is_simulated_again_when_its_code_changes(
    jobs: int,
    seconds: int,
    simulate: Callable[..., Any],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, saved_s = tmp_path / "mine.py", 1_700_000_000
    for exit in (1, 2):
        file.write_text(MINE.replace("last: int = 1", f"last: int = {exit}"))
        os.utime(file, (saved_s, saved_s))
        saved_s += seconds
        ran = simulate("mine.py:Mine", jobs)
        assert ran.status == 0
        assert re.search(r"^made    simulation", ran.out, re.M)
        assert set(records(results)["exit"]) == {exit}


def test_it_may_keep_state_which_no_other_run_sees(
    simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from sim.policy import ANSWER, DROP, run_to\n"
        "class First:\n"
        "    def __init__(self): self.seen = 0\n"
        "    def decide(self, request, node):\n"
        "        if request.exit: return ANSWER\n"
        "        self.seen += 1\n"
        "        return run_to(1) if self.seen <= 50 else DROP\n"
    )
    assert simulate("mine.py:First").status == 0
    arms = records(results).groupby(["strategy", "training_seed", "replication"], observed=True)
    answered = arms["exit"].count()
    assert answered.nunique() <= 2, "each replication starts anew, whatever the arm"
    assert (answered > 0).all()


# --- what goes wrong in it ----------------------------------------------------------------------

BAD_DECISIONS = {
    "raise RuntimeError('boom')": ["RuntimeError", "boom"],
    "return 7": ["decided 7", "run_to(1) to run_to(2)", "DROP"],
    "return None": ["decided None"],
    "return ANSWER": ["decided ANSWER", "once an exit is computed"],
    "return run_to(3)": ["run_to(3)", "run_to(1) to run_to(2)"],
    "return run_to(0)": ["0"],
    "return run_to(1)": ["decided run_to(1)", "after exit 1"],
    "return run_to(65)": ["65"],
}


@pytest.mark.parametrize(("code", "fragments"), BAD_DECISIONS.items(), ids=BAD_DECISIONS.keys())
def test_a_decision_that_cannot_be_is_one_message_and_leaves_nothing(
    code: str,
    fragments: list[str],
    simulate: Callable[..., Any],
    results: Path,
    store: Path,
    tmp_path: Path,
    snapshot: Callable[..., dict[str, str]],
) -> None:
    (tmp_path / "bad.py").write_text(
        "from sim.policy import ANSWER, DROP, run_to\n"
        "class Bad:\n"
        "    def decide(self, request, node):\n"
        f"        {code}\n"
    )
    before = snapshot(store)
    ran = simulate("bad.py:Bad")
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1
    for fragment in ("Bad", "node 'edge'", *fragments):
        assert fragment in ran.err
    assert "object at 0x" not in ran.err
    assert snapshot(store, results) == before


def test_what_it_raises_in_another_process_is_the_same_kind_of_message(
    simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(
        "class Bad:\n    def decide(self, request, node):\n        raise RuntimeError('boom')\n"
    )
    ran = simulate("bad.py:Bad", 2)
    assert ran.status == 2
    assert ran.err.startswith("error: policy")
    assert "boom" in ran.err
    assert "Traceback" not in ran.err
    assert list(results.iterdir()) == []


BAD_FILES = {
    "class Bad\n": ["SyntaxError", "line 1"],
    "import gone_module\n": ["gone_module"],
    "raise RuntimeError('boom')\n": ["RuntimeError", "boom"],
    "import sys\nsys.exit(3)\n": ["cannot be imported"],
    "class Bat:\n    def decide(self, request, node): ...\n": ["no class 'Bad'", "'Bat'"],
    "Bad = 3\n": ["no class 'Bad'"],
    "class Bad: ...\n": ["no method decide"],
    "class Bad:\n    decide = 3\n": ["no method decide"],
    "class Bad:\n    def __init__(self): raise RuntimeError('boom')\n": ["boom"],
    (
        "class Bad:\n    def check(self, exits): raise KeyError('boom')\n"
        "    def decide(self, request, node): ...\n"
    ): ["boom"],
}


@pytest.mark.parametrize(("code", "fragments"), BAD_FILES.items())
def test_a_file_that_cannot_be_used_is_one_message_about_the_scenario(
    code: str, fragments: list[str], simulate: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(code)
    ran = simulate("bad.py:Bad")
    assert (ran.status, ran.out) == (2, "")
    assert re.match(rf"error: {re.escape(str(tmp_path))}/tiny\.yaml:\d+: policies\.0: ", ran.err)
    for fragment in ("'bad.py:Bad'", *fragments):
        assert fragment in ran.err
    assert not results.exists()


def test_a_parameter_that_no_manifest_can_hold_is_one_message(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    code = (
        "class Own:\n    def __init__(self, since): ...\n    def decide(self, request, node): ...\n"
    )
    (tmp_path / "own.py").write_text(code)
    path = scenario({"policies": [{"policy": "own.py:Own", "since": datetime.date(2026, 1, 2)}]})
    ran = offramp("check", path)
    assert ran.status == 2
    assert (
        "policies.0.since: 2026-01-02 is read as a date or the like: write it in quotes" in ran.err
    )
