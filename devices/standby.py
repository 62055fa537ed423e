"""A process that has imported what a part of a live run needs, and waits to become one.

``python -m devices.standby PARENT [IMPORT …]`` imports modules, then reads one line of JSON from
standard input: the name of a module and its arguments. It becomes ``python -m MODULE ARGUMENT …``
then, without the seconds that importing PyTorch takes. It ends with the process PARENT.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path

from devices.tether import end_with

#: Longer names of processes are cut off by the kernel.
_NAME_LENGTH = 15


def main() -> None:
    """Import, wait, and become the module that standard input names; end if it names none."""
    parent, *imports = sys.argv[1:]
    end_with(int(parent))
    for name in imports:
        importlib.import_module(name)
    order = sys.stdin.readline()
    if not order:
        return
    module, *arguments = json.loads(order)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the part runs
    sys.argv = [module, *arguments]
    with suppress(OSError):  # what `ps -o comm` and `pgrep` show of it, on Linux
        Path("/proc/self/comm").write_text(" ".join(sys.argv)[:_NAME_LENGTH], encoding="utf-8")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
