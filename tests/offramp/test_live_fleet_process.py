"""The process of the devices, and Ctrl-C while it starts."""

import os
import signal
import subprocess
import sys
import time

import pytest

from offramp.live.fleet_process import _deaf_to_ctrl_c


def test_ctrl_c_meanwhile_is_heard_afterwards():
    before = signal.getsignal(signal.SIGINT)
    after = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with _deaf_to_ctrl_c():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            after.append(True)
        after.append(False)
    assert after == [True]
    assert signal.getsignal(signal.SIGINT) is before


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
