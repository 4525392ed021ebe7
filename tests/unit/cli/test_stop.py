from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, threading, time
from worker.cli.options import Stop
stop = Stop()
def ask():
    time.sleep(0.3)
    for number in {numbers}:
        os.kill(os.getpid(), number)
threading.Thread(target=ask).start()
stop.wait()
print("stopped")
"""


@pytest.mark.parametrize("numbers", [[15], [2], [2, 15], [15, 2], [2, 2, 15]])
def test_any_signals_in_any_number_stop_it(numbers: list[int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(numbers=numbers)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "stopped\n"
