"""Parts of a live run: they start, say why they end, stop when asked and never outlive the run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.processes import Part, Parts
from models.errors import LiveError

#: Generous: this machine may be busy.
SOON_S = 30.0


def wait_until(happened: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], tuple[str, dict[str, str]]]:
    """Writes a module; returns its name and the environment in which it is found."""

    def write(text: str) -> tuple[str, dict[str, str]]:
        name = f"part_{len(list(tmp_path.glob('part_*')))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name, {"PYTHONPATH": str(tmp_path)}

    return write


@pytest.fixture
def parts() -> Iterator[Parts]:
    with Parts() as parts:
        yield parts


Module = Callable[[str], tuple[str, dict[str, str]]]


def test_a_part_gets_its_arguments(parts: Parts, module: Module, tmp_path: Path) -> None:
    name, environment = module(
        "import sys, pathlib\npathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[1:]))\n"
    )
    out = tmp_path / "out"
    part = parts.start("a part", name, [str(out), "--wide", "a b"], environment)
    wait_until(lambda: part.status is not None, "the end of the part")
    assert part.status == 0
    assert out.read_text() == f"{out} --wide a b"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="confines no processes")
@pytest.mark.parametrize("stands_by", [False, True])
def test_a_part_runs_on_its_processors_alone(
    stands_by: bool, parts: Parts, module: Module, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    name, environment = module(
        "import os, pathlib, sys, time\n"
        "time.sleep(0.2)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(sorted(os.sched_getaffinity(0))))"
    )
    *_, last = sorted(os.sched_getaffinity(0))
    if stands_by:
        parts.stand_by(["json"], environment)
    start = parts.start_at_once if stands_by else parts.start
    part = start("part", name, [str(told)], environment, processors=[last])
    wait_until(lambda: part.status is not None, "its end")
    assert told.read_text() == f"[{last}]", part.obituary()


def test_who_ends_says_how_and_what_it_said_last(parts: Parts, module: Module) -> None:
    name, environment = module(
        "import sys\n"
        "for number in range(5000): print('line', number)\n"
        "print('error: the port is taken', file=sys.stderr)\n"
        "sys.exit(2)\n"
    )
    part = parts.start("node edge", name, environment=environment)
    wait_until(lambda: part.status is not None, "the end of the part")
    lines = part.obituary().splitlines()
    assert lines[0] == "node edge ended with status 2; it said last:"
    assert "  error: the port is taken" in lines
    assert len(lines) == 9  # and not five thousand


def test_who_is_killed_says_by_which_signal(parts: Parts, module: Module) -> None:
    part = parts.start("node edge", *_sleeper(module))
    os.kill(part.pid, signal.SIGKILL)
    wait_until(lambda: part.status is not None, "the end of the part")
    assert part.obituary() == "node edge was ended by SIGKILL"


def test_a_part_is_asked_to_stop_and_may_finish_its_work(
    parts: Parts, module: Module, tmp_path: Path
) -> None:
    done, ready = tmp_path / "done", tmp_path / "ready"
    name, environment = module(
        "import pathlib, signal, sys, time\n"
        "def finish(*_):\n"
        "    pathlib.Path(sys.argv[1]).write_text('whole')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, finish)\n"
        "pathlib.Path(sys.argv[2]).touch()\n"
        "time.sleep(600)\n"
    )
    part = parts.start("a part", name, [str(done), str(ready)], environment)
    wait_until(ready.exists, "the start of the part")
    parts.stop(part)
    assert (part.status, done.read_text()) == (0, "whole")


def test_parts_that_end_together_are_each_asked_once(
    parts: Parts, module: Module, tmp_path: Path
) -> None:
    asked, ready = ([tmp_path / f"{what} {it}" for it in range(2)] for what in ("asked", "ready"))
    name, environment = module(
        "import pathlib, signal, sys, time\n"
        "times = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: times.append(time.monotonic()))\n"
        "pathlib.Path(sys.argv[2]).touch()\n"
        "while not times or time.monotonic() < times[0] + float(sys.argv[3]):\n"
        "    time.sleep(0.01)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(len(times)))\n"
    )
    both = [
        parts.start(it.name, name, [str(it), str(other), takes_s], environment)
        for it, other, takes_s in zip(asked, ready, ("1", "0.3"), strict=True)
    ]
    wait_until(lambda: all(it.exists() for it in ready), "the start of the parts")
    parts.stop(*both)
    assert [(part.status, it.read_text()) for part, it in zip(both, asked, strict=True)] == [
        (0, "1"),
        (0, "1"),
    ]


def test_who_does_not_stop_when_asked_is_killed(
    parts: Parts, module: Module, tmp_path: Path
) -> None:
    ready = [tmp_path / f"ready {number}" for number in range(3)]
    name, environment = module(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)\n"
    )
    stubborn = [parts.start(it.name, name, [str(it)], environment) for it in ready]
    wait_until(lambda: all(it.exists() for it in ready), "the start of the parts")
    parts.stop(*stubborn, within_s=0.2)
    assert [part.status for part in stubborn] == [-signal.SIGKILL] * 3


def test_an_error_of_the_run_leaves_no_part_behind(module: Module) -> None:
    started: list[Part] = []

    def run_that_fails() -> None:
        with Parts() as parts:
            started.extend(parts.start("a part", *_sleeper(module)) for _ in range(2))
            raise LiveError("the run cannot go on")

    with pytest.raises(LiveError):
        run_that_fails()
    assert [part.status is None for part in started] == [False, False]


def test_ctrl_c_in_a_terminal_does_not_reach_parts(parts: Parts, module: Module) -> None:
    part = parts.start("a part", *_sleeper(module))
    assert os.getsid(part.pid) != os.getsid(0)


def test_a_file_of_the_working_folder_does_not_stand_in_for_ours(
    parts: Parts, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "devices.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(trap)
    name, environment = module("print('ours')\n")
    part = parts.start("a part", name, environment=environment)
    wait_until(lambda: part.status is not None, "the end of the part")
    assert (part.status, part.last_words()) == (0, "ours")


def test_a_python_that_cannot_be_started_is_an_error_of_the_run(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LiveError, match=r"node edge cannot be started: .*No such file"):
        parts.start("node edge", "part")


RUN = """
import sys, time
from devices.processes import Parts
with Parts() as parts:
    part = parts.start("a part", "sleeper")
    print(part.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_parts_die_with_a_run_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=subprocess.PIPE, env=environment, text=True
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert is_alive(pid)
        run.send_signal(how)
        wait_until(lambda: not is_alive(pid), "the end of the orphan")


#: The child tethers itself after its parent has ended, as a slow start may.
LATE = """
import os, sys, time
from devices.tether import end_with, look_for
parent = os.getpid()
if os.fork() == 0:
    if sys.argv[1] == "late":
        while os.getppid() == parent:
            time.sleep(0.01)
        end_with(parent)
    else:
        look_for(parent)
        print(os.getpid(), flush=True)
        time.sleep(600)
    print("still there", flush=True)
os._exit(0) if sys.argv[1] == "late" else time.sleep(600)
"""


def test_who_is_tethered_too_late_ends_at_once() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LATE, "late"], capture_output=True, text=True, timeout=SOON_S
    )
    assert ran.stdout == ""


def test_without_help_of_the_kernel_the_parent_is_looked_for() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LATE, "looking"], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()
        wait_until(lambda: not is_alive(pid), "the end of the orphan")


# --- standing by ---------------------------------------------------------------------------------

#: Takes long to import, and says how often it was.
SLOW = """
import os, pathlib, time
with open(pathlib.Path(__file__).with_suffix(".count"), "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(0.5)
"""

SAYS = """
import os, sys
import part_0
print(os.getpid(), *sys.argv[1:], sys.stdin.read() or "no input")
"""


def test_who_stands_by_has_imported_and_becomes_the_part(
    parts: Parts, module: Module, tmp_path: Path
) -> None:
    slow, environment = module(SLOW)
    says, _ = module(SAYS)
    parts.stand_by([slow], environment)
    count = tmp_path / "part_0.count"
    wait_until(count.exists, "the import")
    parts.stand_by([slow], environment)  # one is enough
    part = parts.start_at_once("a part", says, ["a b", "--wide"], environment)
    wait_until(lambda: part.status is not None, "the end of the part")
    assert part.status == 0
    assert part.last_words() == f"{part.pid} a b --wide no input"
    assert count.read_text() == f"{part.pid}\n"


def test_without_one_that_stands_by_a_part_is_started_as_ever(
    parts: Parts, module: Module, tmp_path: Path
) -> None:
    slow, environment = module(SLOW)
    says, _ = module(SAYS)
    parts.stand_by([slow], environment)
    count = tmp_path / "part_0.count"
    wait_until(count.exists, "the import")
    waiting = int(count.read_text())
    other = {**environment, "OMP_NUM_THREADS": "1"}
    one = parts.start_at_once("of another environment", says, [], other)
    os.kill(waiting, signal.SIGKILL)
    wait_until(lambda: not is_alive(waiting), "the end of what stood by")
    two = parts.start_at_once("after its death", says, [], environment)
    for part in (one, two):
        wait_until(lambda part=part: part.status is not None, "the end of the part")
        assert (part.status, part.pid != waiting) == (0, True)


def test_who_stands_by_ends_with_the_run(module: Module, tmp_path: Path) -> None:
    slow, environment = module(SLOW)
    with Parts() as parts:
        parts.stand_by([slow], environment)
        count = tmp_path / "part_0.count"
        wait_until(lambda: count.exists() and count.read_text(), "the import")
        pid = int(count.read_text())
        assert is_alive(pid)
    assert not is_alive(pid)


def _sleeper(module: Module) -> tuple[str, list[str], dict[str, str]]:
    name, environment = module("import time\ntime.sleep(600)\n")
    return name, [], environment
