"""The command line: dumps, passes and runs of IR text, the cache, help, one-sentence errors."""

from __future__ import annotations

import numpy as np
import pytest

from tracecc import config
from tracecc.cli import main

PROGRAM = """
import tracecc as tc

@tc.compile
def step(x):
    return (x * 2).relu().sum()

def plain(x, y):
    z = x + y
    return z.exp()

def undecided(x):
    return x if x.sum() > 0 else -x

class Model:
    def forward(x):
        return x.tanh()

def example_inputs():
    return [tc.ones(2), tc.ones(2)]

step(tc.ones(4))
"""
GRAPH = """
graph f(%x: f32[3]) {
  %y = mul(%x, 1.0) : f32[3]
  %z = silu(%y) : f32[3]
  return %z
}
"""
COUNTER = """
graph count(%x: f32[2])
  state %n: f32[2] "steps" {
  %m = add(%n, %x) : f32[2]
  update %n = %m
  return %m
}
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "cli_program.py"
    path.write_text(PROGRAM)
    return str(path)


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "g.tir"
    path.write_text(GRAPH)
    return str(path)


@pytest.fixture
def saved(tmp_path):
    def save(array, name="x"):
        path = tmp_path / f"{name}.npy"
        np.save(path, array)
        return str(path)

    return save


def fails(arguments, capsys):
    """The one line that a command with wrong input prints."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("tracecc: ")
    assert "Traceback" not in said.err
    return said.err


def test_dump_of_a_function_that_its_file_called(program, capsys):
    assert main(["dump", f"{program}:step"]) == 0
    text = capsys.readouterr().out
    assert "graph step(%x: f32[4])" in text
    assert "# cli_program.py:6 step" in text
    assert main(["dump", f"{program}:step", "--no-locations"]) == 0
    assert "#" not in capsys.readouterr().out


def test_dump_with_the_types_of_the_arguments(program, capsys):
    assert main(["dump", f"{program}:plain", "--input", "f32[2, 3]", "--input", "f64[]"]) == 0
    text = capsys.readouterr().out
    assert "graph plain(%x: f32[2, 3], %y: f64[])" in text
    assert "# cli_program.py:9 plain" in text


def test_dump_takes_example_inputs_and_names_with_dots(program, capsys):
    assert main(["dump", f"{program}:plain"]) == 0
    assert "%x: f32[2], %y: f32[2]" in capsys.readouterr().out
    assert main(["dump", f"{program}:Model.forward", "--input", "f16[5]"]) == 0
    assert "tanh(%x) : f16[5]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "shown"),
    [("grad", "relu"), ("simplified", "relu"), ("fused", "kernel"), ("scheduled", "program step")],
)
def test_dump_after_every_stage(program, capsys, stage, shown):
    assert main(["dump", f"{program}:step", "--stage", stage]) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        ("step", [], "expected FILE.py:FUNCTION"),
        ("nowhere.py:step", [], "there is no file nowhere.py"),
        ("{}:nothing", [], "defines no nothing"),
        ("{}:plain", ["--input", "f32[2"], "expected ']'"),
        ("{}:plain", ["--input", "f32[b]"], "needs numbers for sizes"),
        ("{}:plain", ["--input", "f32[2]"], "missing 1 required positional argument"),
        ("{}:undecided", ["--input", "f32[2]"], "cli_program.py:13 undecided: the truth of"),
    ],
)
def test_dump_of_what_cannot_be_dumped(program, capsys, target, more, said):
    name = target.format(program)
    assert said in fails(["dump", name if ":" in target else "step", *more], capsys)


def test_a_file_that_cannot_be_loaded(tmp_path, capsys):
    path = tmp_path / "cli_broken.py"
    path.write_text("def f(:\n")
    assert "SyntaxError" in fails(["dump", f"{path}:f"], capsys)
    path.write_text("raise KeyError('no')\n")
    assert "cannot be loaded: KeyError" in fails(["dump", f"{path}:f"], capsys)


def test_opt_runs_the_passes_it_is_given(graph, capsys):
    assert main(["opt", graph, "--passes", "simplify,dce"]) == 0
    assert capsys.readouterr().out == (
        "graph f(%x: f32[3]) {\n  %z = silu(%x) : f32[3]\n  return %z\n}\n"
    )
    assert main(["opt", graph]) == 0
    assert "kernel" in capsys.readouterr().out


def test_what_opt_prints_it_can_read(graph, tmp_path, capsys):
    main(["opt", graph])
    text = capsys.readouterr().out
    again = tmp_path / "again.tir"
    again.write_text(text)
    assert main(["opt", str(again), "--passes", "dce"]) == 0
    assert capsys.readouterr().out == text


def test_run_compiled_and_interpreted_print_the_same(graph, saved, tmp_path, capsys):
    x = np.array([-1, 0, 2], np.float32)
    for flag in ([], ["--interpret"]):
        prefix = str(tmp_path / "out")
        assert main(["run", graph, "--inputs", saved(x), "--output", prefix, *flag]) == 0
        assert capsys.readouterr().out.startswith("[")
        np.testing.assert_allclose(np.load(prefix + "0.npy"), x / (1 + np.exp(-x)), 1e-6)


def test_run_with_state(tmp_path, saved, capsys):
    path = tmp_path / "count.tir"
    path.write_text(COUNTER)
    x, n = saved(np.ones(2, np.float32)), saved(np.full(2, 4, np.float32), "n")
    for flag in ([], ["--interpret"]):
        assert main(["run", str(path), "--inputs", x, "--state", n, *flag]) == 0
        assert capsys.readouterr().out == "update n = [5. 5.]\n[5. 5.]\n"


def test_run_reads_bfloat16(tmp_path, saved, capsys):
    import ml_dtypes

    path = tmp_path / "half.tir"
    path.write_text("graph f(%x: bf16[2]) { %y = neg(%x) : bf16[2] return %y }")
    x = saved(np.ones(2, ml_dtypes.bfloat16))
    assert main(["run", str(path), "--inputs", x]) == 0
    assert capsys.readouterr().out == "[-1 -1]\n"


def test_run_with_wrong_arrays(graph, saved, tmp_path, capsys):
    assert "needs 1" in fails(["run", graph], capsys)
    four = saved(np.ones(4, np.float32), "four")
    assert "f32[3], given an array of f32[4]" in fails(["run", graph, "--inputs", four], capsys)
    double = saved(np.ones(3), "double")
    assert "given an array of f64[3]" in fails(["run", graph, "--inputs", double], capsys)
    assert "not a .npy file" in fails(["run", graph, "--inputs", graph], capsys)
    assert "No such file" in fails(["run", graph, "--inputs", "none.npy"], capsys)


def test_text_that_is_not_ir(graph, tmp_path, capsys):
    path = tmp_path / "bad.tir"
    path.write_text("graph f(")
    assert "line 1:9: expected a %name" in fails(["opt", str(path)], capsys)
    path.write_text("graph f(%x: f32[3]) { %y = silu(%x) : f32[4] return %y }")
    assert "f32[4]" in fails(["opt", str(path)], capsys)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not a file of text" in fails(["opt", str(path)], capsys)
    assert "no pass 'nope'; expected" in fails(["opt", graph, "--passes", "nope"], capsys)
    assert "No such file" in fails(["opt", "none.tir"], capsys)


def test_cache_info_and_clear(graph, saved, tmp_path, capsys):
    main(["run", graph, "--inputs", saved(np.ones(3, np.float32))])
    capsys.readouterr()

    def info(*arguments):
        assert main(["cache", *arguments]) == 0
        return dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())

    assert info("info")["folder"] == str(tmp_path / "cache")
    assert info("clear")["kernels"] == "0"
    assert info("info")["bytes"] == "0"


def test_a_setting_that_is_not_a_number(monkeypatch, capsys):
    monkeypatch.setenv("TRACECC_CACHE_SIZE", "lots")
    assert "TRACECC_CACHE_SIZE must be a whole number" in fails(["cache", "info"], capsys)


def test_help_names_every_environment_variable(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for setting in config.SETTINGS:
        assert setting.variable in text
    assert all(command in text for command in ("dump", "opt", "run", "cache"))


def test_an_unknown_command_is_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["nope"])
    assert stop.value.code == 2
    assert "invalid choice: 'nope'" in capsys.readouterr().err


def test_debug_levels_say_more_each(monkeypatch, program, capsys):
    from tracecc_ir.passes import pipeline

    monkeypatch.setattr(pipeline, "debug", False)
    said = []
    for level in "0123":
        monkeypatch.setenv("TRACECC_DEBUG", level)
        assert main(["dump", f"{program}:plain"]) == 0
        said.append(capsys.readouterr().err)
        assert pipeline.debug == (level == "3")
    assert said[0] == ""
    assert said[1].splitlines()[-1].startswith("tracecc: plain: (f32[2], f32[2]): first call; ")
    for stage in ("traced", "grad", "simplified", "decomposed", "fused"):
        assert f"-- {stage}\ngraph plain(" in said[2]
        assert f"-- {stage}\n" not in said[1]
