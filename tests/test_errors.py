"""Bad input says in one sentence what was given and what is expected, and under compile, where.

Trouble with the disk cache (damage, a folder that cannot be written, two processes) is no error.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim
from tracecc.backends.cpu import lower, toolchain
from tracecc_ir.text import parse

HERE = pathlib.Path(__file__).name
X, Y, WHOLE = tc.ones(2, 3), tc.ones(4), tc.arange(3)
LINEAR = nn.Linear(4, 2)

# What is called, on what, which exception, and what its message names: the given and the expected.
BAD = {
    "shapes": (lambda a, b: a + b, (X, Y), RuntimeError, ("(3)", "(4)")),
    "product": (lambda a, b: a @ b, (X, Y), RuntimeError, ("2x3 and 4",)),
    "reshape": (lambda a: a.reshape(5), (X,), RuntimeError, ("[5]", "size 6")),
    "concat": (lambda a, b: tc.cat([a, b]), (X, Y), RuntimeError, ("got 2 and 1",)),
    "dimension": (lambda a: a.sum(5), (X,), IndexError, ("[-2, 1]", "got 5")),
    "index": (lambda a: a[7], (X,), IndexError, ("index 7", "size 2")),
    "expand": (lambda a: a.expand(5, 3), (X,), RuntimeError, ("(5)", "(2)")),
    "mixed product": (
        lambda a: a @ a.double(),
        (tc.ones(3, 3),),
        RuntimeError,
        ("float32 != float64",),
    ),
    "mean": (lambda a: a.mean(), (WHOLE,), RuntimeError, ("floating point", "int64")),
    "bits": (lambda a: a & a, (X,), RuntimeError, ("bitwise_and()", "float32")),
    "in place": (lambda a: a.add_(1.5), (tc.arange(3),), RuntimeError, ("float32", "int64")),
    "index dtype": (lambda a: a.gather(0, a), (X,), RuntimeError, ("int64", "float32")),
    "condition": (lambda a: tc.where(a, a, a), (X,), RuntimeError, ("boolean", "float32")),
    "dtype name": (lambda a: a.to("float33"), (X,), RuntimeError, ("a dtype", "'float33'")),
    "device": (lambda a: a.to("tpu"), (X,), (RuntimeError, TypeError), ("tpu",)),
    "not a tensor": (
        lambda a: F.relu("text"),
        (X,),
        TypeError,
        ("argument 'input'", "must be Tensor, not str"),
    ),
    "linear": (lambda a: LINEAR(a), (X,), RuntimeError, ("dimension is 4", "(2, 3)")),
    "norm": (lambda a: F.layer_norm(a, (4,)), (X,), RuntimeError, ("[*, 4]", "[2, 3]")),
    "loss": (
        lambda a: F.cross_entropy(a, tc.zeros(5, dtype=tc.int64)),
        (X,),
        ValueError,
        ("(2,)", "(5,)"),
    ),
    "window": (
        lambda a: F.conv2d(a, tc.ones(1, 1, 3, 3)),
        (tc.ones(1, 1, 2, 2),),
        RuntimeError,
        ("size 2", "window of 3"),
    ),
    "backward": (lambda a: a.sum().backward(), (X,), RuntimeError, ("does not require grad",)),
}


def message(call, error):
    """The text of the error that a call raises: one sentence, no nested report."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert text[-1] not in ".!"
    return text


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_alike_eager_and_compiled(name):
    function, arguments, error, named = BAD[name]
    eager = message(lambda: function(*arguments), error)
    compiled = message(lambda: tc.compile(function)(*arguments), error)
    assert all(part in eager for part in named), eager
    line = compiled.removesuffix(eager)
    assert line.startswith(f"{HERE}:"), compiled
    assert line.endswith(" <lambda>: ")
    first = function.__code__.co_firstlineno
    assert int(line.split(":")[1].split()[0]) == first


def test_the_line_is_the_innermost_of_the_user():
    def inner(a):
        b = a * 2
        return b.reshape(5)

    def outer(a):
        return inner(a)

    text = message(lambda: tc.compile(outer)(X), RuntimeError)
    assert text.startswith(f"{HERE}:{inner.__code__.co_firstlineno + 2} inner: shape '[5]'")


def test_the_users_own_errors_are_left_alone():
    def refuses(a):
        raise ValueError("mine")

    assert message(lambda: tc.compile(refuses)(X), ValueError) == "mine"
    text = message(lambda: tc.compile(lambda a: a)(), TypeError)
    assert "missing 1 required positional argument" in text


def test_numpy_arrays_given_to_compiled_code():
    array = np.ones(3, "float32")
    for compiled in (tc.compile(lambda a: a * 2), tc.compile(nn.Linear(3, 2))):
        text = message(lambda compiled=compiled: compiled(array), TypeError)
        assert "shape (3,)" in text
        assert "tracecc.from_numpy" in text


GRAPH = "graph f(%x: f32[3], %y: f32[b]) { %z = neg(%x) : f32[3] return %z }"
STATE = """graph g(%x: f32[3])
  state %n: f32[3] "n" { %z = add(%x, %n) : f32[3] update %n = %z return %z }"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((tc.ones(4), Y), "%x of f is f32[3], where b = 4, given an array of f32[4]"),
        ((WHOLE.double(), Y), "given an array of f64[3]"),
        ((X, Y), "given an array of f32[2, 3]"),
        ((tc.ones(3),), "f takes 2 inputs and 0 state arrays, given 1 arrays together"),
        ((np.ones(3, "float32"), Y), "f expects Tensors, given ndarray"),
    ],
)
def test_a_graph_called_with_wrong_arrays(arguments, said):
    assert said in message(lambda: tc.compile(parse(GRAPH))(*arguments), (TypeError, RuntimeError))


def test_a_graph_called_with_wrong_state():
    g = tc.compile(parse(STATE))
    assert "1 state arrays, given 1" in message(lambda: g(tc.ones(3)), (TypeError, RuntimeError))
    text = message(lambda: g(tc.ones(3), state=[tc.ones(2)]), (TypeError, RuntimeError))
    assert "%n of g is f32[3], given an array of f32[2]" in text


def test_state_dicts_that_do_not_fit():
    module, other = nn.Linear(3, 2), nn.Linear(4, 2)
    for wrong, said in (
        ({"weight": tc.ones(2, 3)}, "Missing key(s) in state_dict: bias"),
        ({**module.state_dict(), "more": tc.ones(1)}, "Unexpected key(s) in state_dict: more"),
        (
            other.state_dict(),
            "weight: size mismatch: the state dict has (2, 4), this module ",
        ),
    ):
        with pytest.raises(RuntimeError) as caught:
            module.load_state_dict(wrong)
        assert said in str(caught.value)
    small = optim.Adam(module.parameters())
    large = optim.Adam([*module.parameters(), *other.parameters()])
    text = message(lambda: small.load_state_dict(large.state_dict()), ValueError)
    assert "4 parameters" in text
    assert "has 2" in text


def test_nan_becomes_the_same_integer_eager_and_compiled():
    x = tc.tensor([float("nan"), float("inf"), -float("inf"), -1.5])
    for dtype in (tc.int64, tc.int32, tc.int8, tc.uint8):
        eager, compiled = x.to(dtype), tc.compile(lambda a, dtype=dtype: a.to(dtype))(x)
        assert eager.tolist() == compiled.tolist()
    assert x.to(tc.int32).tolist() == [0, 2**31 - 1, -(2**31), -1]


# The disk cache.


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """The folder of a cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(folder))
    return folder


def softly(x):
    return (x * 3).tanh() + x.sum()


def runs(monkeypatch):
    """Forgets the kernels in memory, checks the numbers; how many kernels the disk lacked."""
    monkeypatch.setattr(toolchain, "_known", {})
    monkeypatch.setattr(lower, "_known", {})
    monkeypatch.setattr(lower, "_met", set())
    x = tc.arange(5).float()
    compiled = tc.compile(softly)
    np.testing.assert_allclose(compiled(x).numpy(), softly(x).numpy(), 1e-6)
    return compiled._last.forward.kernels_compiled


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 4096])
def test_damaged_entries_are_compiled_again(fresh, monkeypatch, damage):
    assert runs(monkeypatch) > 0
    assert runs(monkeypatch) == 0
    for file in fresh.glob("*/*.kernel"):
        file.write_bytes(damage)
    assert runs(monkeypatch) > 0
    assert runs(monkeypatch) == 0


def test_a_cut_off_entry_is_compiled_again(fresh, monkeypatch):
    runs(monkeypatch)
    for file in fresh.glob("*/*.kernel"):
        file.write_bytes(file.read_bytes()[:-7])
    assert runs(monkeypatch) > 0


def test_a_cache_folder_that_is_a_file(fresh, monkeypatch):
    fresh.write_text("in the way")
    assert runs(monkeypatch) > 0
    assert runs(monkeypatch) > 0
    assert fresh.read_text() == "in the way"


def test_a_cache_that_cannot_be_written(fresh, monkeypatch):
    def refuse(*paths):
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "replace", refuse)
    assert runs(monkeypatch) > 0
    assert runs(monkeypatch) > 0
    assert not [f for f in fresh.rglob("*") if f.is_file()]


PROGRAM = """
import tracecc as tc
from tracecc import nn
tc.manual_seed(0)
model = nn.Linear(8, 4)
step = tc.compile(lambda x: model(x).tanh().sum(0))
print(step(tc.arange(16).float().reshape(2, 8)).tolist())
"""


def test_two_processes_compile_one_program_at_once(fresh):
    command = [sys.executable, "-c", PROGRAM]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [p.communicate(timeout=120) for p in running]
    assert [p.returncode for p in running] == [0, 0], said
    assert said[0][0] == said[1][0] != ""
    assert list(fresh.glob("*/*.kernel"))
    assert not list(fresh.glob("*/*.part"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == said[0][0]
