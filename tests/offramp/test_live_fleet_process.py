"""The process of the devices, and Ctrl-C while it starts."""

import signal
import subprocess
import sys

from offramp.live.fleet_process import _deaf_to_ctrl_c

#: In a process of its own: test runners have ideas of their own about Ctrl-C.
SENDS_CTRL_C = """
import os, signal, time
from offramp.live.fleet_process import _deaf_to_ctrl_c

before = signal.default_int_handler
signal.signal(signal.SIGINT, before)
try:
    with _deaf_to_ctrl_c():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        print("meanwhile")
    print("afterwards")
except KeyboardInterrupt:
    print("heard", signal.getsignal(signal.SIGINT) is before)
"""


def test_ctrl_c_meanwhile_is_heard_afterwards():
    ran = subprocess.run(
        [sys.executable, "-c", SENDS_CTRL_C], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["meanwhile", "heard", "True"]


def test_who_is_started_meanwhile_never_hears_it():
    with _deaf_to_ctrl_c():
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(0.3)"],
            stdout=subprocess.PIPE,
        )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"1\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
