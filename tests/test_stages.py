"""Graphs in the disk cache: exact, refused when damaged or of another version, never needed."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from random_graphs import Drawn, graphs

from tracecc import cache
from tracecc.backends import get_backend
from tracecc.trace import stages
from tracecc.trace.stages import Stages
from tracecc_ir.codec import decode, encode
from tracecc_ir.errors import IRError
from tracecc_ir.passes.pipeline import STAGES
from tracecc_ir.text import parse
from tracecc_ir.verify import verify

CPU = get_backend("cpu")
PROGRAM = """\
graph main(%p: bool[], %x: f64[b, 3], %i: i64[])
  state %w: f64[3] "0.weight", %lr: f64[] "SGD.\\"lr\\"" {
  %h   = broadcast(%w) axes=(1,) : f64[b, 3]  # digits.py:31 forward
  %h.1 = mul(%h, nan) : f64[b, 3]             # digits.py:32 <lambda>; why: it reads well
  %m   = ge(%h.1, 0.1) : bool[b, 3]
  %h.2 = select(%m, %x, -0.0) : f64[b, 3]     # grad of digits.py:32
  %q   = cond(%p, %h.2) : f64[b, 3] {
    then(%a: f64[b, 3]) {
      %c = neg(%a) : f64[b, 3]
      return %c
    }
    otherwise(%a: f64[b, 3]) {
      return %a
    }
  }
  %0   = reduce_sum(%q) axes=(0,) : f64[3]
  %g   = vjp reduce_sum(%q, %0, %w) wrt=(0,) axes=(0,) : f64[b, 3]
  %1   = pad(%g) low=(0, 0) high=(0, 1) interior=(0, 0) value=inf : f64[b, 4]
  %z   = 1.5-2.0j : c64[2 + b]
  update %w = %0
  return %1, %0, %z
}
"""


def chain(links=stages.SMALLEST):
    """A graph that is large enough to be stored."""
    steps = [f"  %x.{i + 1} = exp(%x.{i}) : f32[8]  # chain.py:{i} f" for i in range(links)]
    return parse("\n".join(["graph chain(%x.0: f32[8]) {", *steps, f"  return %x.{links}", "}"]))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """Counts runs of the pipeline."""
    counted = []
    monkeypatch.setattr(
        stages, "run_passes", lambda *a, **k: counted.append(a) or original(*a, **k)
    )
    return counted


original = stages.run_passes


def test_an_encoded_graph_is_read_back_with_names_places_and_numbers():
    graph = parse(PROGRAM)
    again = decode(encode(graph))
    assert str(again) == str(graph)
    assert encode(again) == encode(graph)
    assert [n.loc for n in again.nodes] == [n.loc for n in graph.nodes]
    verify(again)


@given(graphs())
def test_random_graphs_are_read_back(drawn: Drawn):
    again = decode(encode(drawn.graph))
    assert str(again) == str(drawn.graph)
    assert encode(again) == encode(drawn.graph)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[[],[],0]", '[[["f32"]],[],[]]', "[[],[]"])
def test_a_text_that_is_no_graph_is_refused(text):
    with pytest.raises(IRError, match="this is no encoded graph"):
        decode(text)


def test_a_text_with_an_unknown_op_is_refused():
    types, locs, graph = json.loads(encode(chain()))
    graph[3][0][0] = "os.system"
    with pytest.raises(IRError, match=r"there is no op os\.system"):
        decode(json.dumps([types, locs, graph]))


def test_the_second_time_no_pass_runs_and_every_stage_can_still_be_seen(runs):
    first = Stages(chain(), CPU)
    assert (len(runs), cache.info()["graphs"], cache.info()["kernels"]) == (1, 1, 0)
    second = Stages(chain(), CPU)
    assert len(runs) == 1
    assert list(second) == [s.name for s in STAGES]
    assert {name: str(g) for name, g in second.items()} == {
        name: str(g) for name, g in original(chain(), target=CPU)
    }
    assert str(first["fused"]) == str(second["fused"])
    assert "unknown" not in second


def test_another_graph_and_a_small_one_are_not_found(runs):
    Stages(chain(), CPU)
    Stages(chain(stages.SMALLEST + 1), CPU)
    assert len(runs) == 2
    for _ in range(2):
        Stages(chain(3), CPU)
    assert (len(runs), cache.info()["graphs"]) == (4, 2)


@pytest.mark.parametrize("part", [slice(0, 40), slice(-9, None), slice(0, None)])
def test_a_damaged_file_is_worked_out_and_stored_again(runs, folder, part):
    expected = str(Stages(chain(), CPU).fused)
    (file,) = folder.glob("*/*.graph")
    data = bytearray(file.read_bytes())
    data[part] = b"?" * len(data[part])
    file.write_bytes(data)
    assert str(Stages(chain(), CPU).fused) == expected
    assert len(runs) == 2
    assert str(Stages(chain(), CPU).fused) == expected
    assert len(runs) == 2


def test_an_entry_that_is_no_graph_is_worked_out_again(runs, monkeypatch):
    expected = str(Stages(chain(), CPU).fused)
    monkeypatch.setattr(cache, "get", lambda *_: b"[]")
    assert str(Stages(chain(), CPU).fused) == expected
    assert len(runs) == 2


@pytest.mark.parametrize("what", ["ir 0 numpy 0", None])
def test_another_version_or_machine_finds_nothing(runs, monkeypatch, what):
    Stages(chain(), CPU)
    if what:
        monkeypatch.setattr(stages, "_versions", lambda: what)
    else:
        monkeypatch.setattr(CPU, "identity", lambda: "another machine")
    Stages(chain(), CPU)
    assert (len(runs), cache.info()["graphs"]) == (2, 2)


def test_a_change_of_any_pass_changes_the_version(tmp_path):
    file = tmp_path / "passes" / "fuse.py"
    file.parent.mkdir()
    file.write_text("a = 1")
    before = cache.fingerprint(tmp_path)
    cache.fingerprint.cache_clear()
    file.write_text("a = 2")
    assert cache.fingerprint(tmp_path) != before
    cache.fingerprint.cache_clear()


def test_without_a_writable_cache_the_passes_run(runs, monkeypatch, folder):
    (folder / "file").write_text("")
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(folder / "file"))
    assert str(Stages(chain(), CPU).fused) == str(Stages(chain(), CPU).fused)
    assert len(runs) == 2


SCRIPT = f"""
import tracecc as tc
from tracecc.trace import stages
runs = []
original = stages.run_passes
stages.run_passes = lambda *a, **k: runs.append(0) or original(*a, **k)
@tc.compile
def f(x):
    for i in range({stages.SMALLEST}):
        x = (x * 1.01).exp().tanh()
    return x
print(f(tc.ones(100)).sum().item(), len(runs))
"""


def start():
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)


def finish(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.split()


def test_two_processes_at_once_leave_a_graph_that_a_third_reads():
    both = [start(), start()]
    numbers = {finish(p)[0] for p in both}
    third = finish(start())
    assert {third[0]} == numbers
    assert third[1] == "0"
