"""Processes that end with the one that started them, however that one ends.

``python -m devices.tether PARENT MODULE [ARGUMENT …]`` runs a module as ``python -m MODULE`` does,
in a process that does not outlive the process PARENT.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

#: prctl(2): the signal that the kernel sends a process when its parent ends.
_PR_SET_PDEATHSIG = 1

#: Where the kernel does not tell, the parent is looked for this often.
_LOOK_EVERY_S = 0.5


def end_with(parent: int) -> None:
    """From now on, end this process at once when its parent ends.

    On Linux the kernel sees to it, with SIGKILL: also while this process hangs. The parent's thread
    that started this process counts as the parent there.

    Args:
        parent: its process id; if it has ended already, so does this process.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            look_for(parent)
    else:
        look_for(parent)
    if os.getppid() != parent:
        os._exit(1)


def look_for(parent: int) -> None:
    """Let a thread end this process when ``parent`` is its parent no longer."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, name="tether", daemon=True).start()


def main() -> None:
    """Tether this process, then become the module that the arguments name."""
    parent, module, *arguments = sys.argv[1:]
    end_with(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
