"""Fusion and the schedule: how many launches, what happens in place, which memory is reused."""

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.backends.cpu.lower import compile_graph
from tracecc_ir.interpret import interpret
from tracecc_ir.text import parse


def launches(function, *inputs):
    """The kinds of launches of a compiled call."""
    compiled = tc.compile(function)
    compiled(*inputs)
    return [b.launch.kind for b in compiled._last.forward._bound]


def run(text, inputs=(), state=()):
    """A graph's outputs and state after it, compiled; checked against the interpreter."""
    graph = parse(text)
    expected, updates = interpret(graph, inputs, state)
    held = [np.array(a) for a in state]
    outputs = compile_graph(graph)(list(inputs), held)
    for found, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    places = [s.value for s in graph.state]
    for update, value in zip(graph.updates, updates, strict=True):
        np.testing.assert_allclose(held[places.index(update.state)], value, rtol=1e-6)
    return outputs, held


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: (x * 2).tanh() + x.exp() * x.sigmoid(), "map"),
        (lambda x: F.softmax(x, -1), "rows"),
        (lambda x: F.gelu(F.layer_norm(x, (64,))) + x, "rows"),
        (lambda x: F.log_softmax(x * 0.5, -1), "rows"),
        (lambda x: x.transpose(0, 1)[::2] * 3, "map"),
    ],
    ids=["chain", "softmax", "layer_norm_gelu", "log_softmax", "view"],
)
def test_a_fusible_function_is_one_launch(function, kind):
    assert launches(function, tc.randn(32, 64)) == [kind]


def test_state_is_updated_in_place_without_a_copy():
    text = """
    graph step(%g: f32[8])
      state %w: f32[8] "w" {
      %0 = mul(%g, 0.5) : f32[8]
      %1 = sub(%w, %0) : f32[8]
      update %w = %1
    }
    """
    executable = compile_graph(parse(text))
    assert [b.launch.kind for b in executable._bound] == ["map"]
    assert executable.program.arena_bytes == 0
    run(text, [np.ones(8, np.float32)], [np.full(8, 2.0, np.float32)])


def test_an_output_sees_the_state_from_before_its_update():
    text = """
    graph step(%g: f32[4])
      state %w: f32[4] "w" {
      %0 = add(%w, %g) : f32[4]
      %1 = mul(%w, 3.0) : f32[4]
      update %w = %0
      return %1
    }
    """
    outputs, held = run(text, [np.ones(4, np.float32)], [np.full(4, 2.0, np.float32)])
    assert outputs[0].tolist() == [6.0] * 4
    assert held[0].tolist() == [3.0] * 4


def test_two_states_swap():
    text = """
    graph swap()
      state %a: f32[3] "a", %b: f32[3] "b" {
      update %a = %b
      update %b = %a
    }
    """
    _, held = run(text, [], [np.zeros(3, np.float32), np.ones(3, np.float32)])
    assert [h.tolist() for h in held] == [[1.0] * 3, [0.0] * 3]


def test_a_permuted_update_of_its_own_state_is_not_done_in_place():
    text = """
    graph turn()
      state %a: f32[3, 3] "a" {
      %0 = permute(%a) axes=(1, 0) : f32[3, 3]
      %1 = add(%0, 1.0) : f32[3, 3]
      update %a = %1
    }
    """
    start = np.arange(9, dtype=np.float32).reshape(3, 3)
    _, held = run(text, [], [start])
    np.testing.assert_array_equal(held[0], start.T + 1)


@pytest.mark.parametrize("shape", [(1,), (7,), (1000,), (4099,), (65536 * 3 + 5,)])
def test_sums_are_the_same_bits_for_any_number_of_threads_and_close_to_float64(shape):
    x = tc.randn(*shape)
    f = tc.compile(lambda v: (v * v).sum())
    found = []
    before = tc.get_num_threads()
    for threads in (1, 2, 3):
        tc.set_num_threads(threads)
        found.append(f(x).item())
    tc.set_num_threads(before)
    assert len(set(found)) == 1
    exact = np.square(x.numpy().astype(np.float64)).sum()
    assert abs(found[0] - exact) <= 4 * np.spacing(np.float32(exact))


def test_the_arena_is_smaller_than_its_temporaries():
    def deep(x):
        for _ in range(6):
            x = tc.tanh(x @ x)
        return x

    compiled = tc.compile(deep)
    compiled(tc.randn(32, 32))
    program = compiled._last.forward.program
    total = sum(b.nbytes for b in program.buffers if b.kind == "arena")
    assert program.arena_bytes < total / 2


def test_the_schedule_and_its_reasons_are_readable():
    compiled = tc.compile(lambda x: F.softmax(x, -1))
    compiled(tc.randn(4, 8))
    text = compiled.ir("scheduled")
    assert "rows" in text
    assert "test_schedule.py" in text
    assert "arena" in text


@pytest.mark.parametrize("index", [3, -4, 2**40])
def test_a_fused_lookup_out_of_range_is_an_error_and_the_next_call_works(index):
    table = tc.arange(6.0).reshape(3, 2)
    lookup = tc.compile(lambda i: F.embedding(i, table) * 2)
    good = tc.tensor([2, 0, -1])
    expected = table.numpy()[[2, 0, -1]] * 2
    np.testing.assert_array_equal(lookup(good).numpy(), expected)
    with pytest.raises(IndexError):
        lookup(tc.tensor([0, index, 1]))
    np.testing.assert_array_equal(lookup(good).numpy(), expected)
