"""The examples run in their quick form and show what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--quick", *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_digits_learns_and_its_step_is_one_graph(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    out = run("digits.py", "--dump", str(tmp_path / "step.tir"))
    assert float(re.search(r"test accuracy +([\d.]+)", out)[1]) >= 90.0
    assert re.search(r"traces +2:", out)
    assert (tmp_path / "step.tir").read_text().startswith("graph train_step")


def test_learning_rates_change_without_a_retrace():
    out = run("training_loop_lr.py")
    first, last = map(float, re.search(r"fell from ([\d.]+) to ([\d.]+)", out).groups())
    assert last < first
    assert "1 trace" in out


def test_a_dump_is_read_edited_and_run():
    out = run("read_ir_dump.py")
    assert "graph score" in out
    assert "edited 2 to 20" in out


def test_greeks_equal_the_closed_form():
    out = run("black_scholes.py")
    errors = [float(e) for e in re.findall(r"largest error (\S+)", out)]
    assert len(errors) == 5
    assert max(errors) < 1e-9
