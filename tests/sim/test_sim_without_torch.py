"""The simulator starts without torch: neither a module of ``sim`` nor what it imports needs it."""

import subprocess
import sys
from pathlib import Path

import sim.world

FLOOR = Path(sim.world.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(FLOOR.parent).with_suffix("").parts)
    for path in FLOOR.rglob("*.py")
    if path.stem != "__init__"
)

PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(" ".join(sorted(name for name in sys.modules if "." not in name)))
"""


def test_no_module_of_the_floor_imports_torch():
    assert {"sim.world", "sim.policies", "sim.results.records", "sim.results.verdict"} <= set(
        MODULES
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *MODULES],
        cwd=FLOOR.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert {"sim", "models", "simpy", "numpy"} <= loaded, "the program did import the simulator"
    assert not loaded & {"torch", "torchvision"}
    assert not loaded & {"offramp", "devices"}, "a floor imports only floors below it"
