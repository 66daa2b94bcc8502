"""No kernel reads or writes outside of its operands: they lie between unreadable pages."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
PROGRAM = pathlib.Path(__file__).with_name("guarded.py")


def guarded(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("end", ["end", "start"])
def test_one_element_too_many_ends_the_process(end: str) -> None:
    done = guarded("overrun", end)
    assert done.stdout == "begun\n"
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


def test_random_kernels_stay_within_their_operands_and_equal_the_references() -> None:
    done = guarded(0, 105)
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert done.stdout.endswith(" cases ran\n")
    assert int(done.stdout.split()[-3]) > 95
