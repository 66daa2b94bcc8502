"""tc.compile: one graph a signature, guards, effects, errors, and what users can look at."""

import threading

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim
from tracecc.nn.utils import rnn
from tracecc.trace import TraceError


def digits_like():
    tc.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )
    opt = optim.Adam(model.parameters(), lr=1e-3)

    def train_step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss

    return model, opt, train_step


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 1, 8, 8)).astype("float32")
    return tc.from_numpy(x), tc.from_numpy(rng.integers(0, 10, n))


def test_a_whole_training_step_is_one_graph_with_eager_numbers():
    losses = []
    for wrap in (lambda f: f, tc.compile):
        model, _, train_step = digits_like()
        tc.manual_seed(3)
        step = wrap(train_step)
        losses.append([step(*images(8, i)).item() for i in range(10)])
        # The bias before batch norm has no gradient but round-off, which Adam scales to full steps.
        kept = [p for name, p in model.named_parameters() if name != "0.bias"]
        losses[-1].append(float(sum(p.detach().numpy().sum() for p in kept)))
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    assert step.traces == 1


def test_a_short_batch_traces_once_more_and_compiles_no_kernel():
    _, _, train_step = digits_like()
    step = tc.compile(train_step)
    step(*images(8))
    step(*images(5))
    assert step.traces == 2
    assert step._last.forward.kernels_compiled == 0
    step(*images(8))
    step(*images(5))
    assert step.traces == 2


@pytest.mark.parametrize("stage", ["traced", "grad", "simplified", "fused"])
def test_every_stage_prints_parses_and_prints_the_same(stage):
    _, _, train_step = digits_like()
    step = tc.compile(train_step)
    step(*images(4))
    text = str(step.ir(stage))
    assert str(tc.ir.parse(text)) == text


def test_the_traced_ir_names_parameters_lines_and_updates():
    _, _, train_step = digits_like()
    step = tc.compile(train_step)
    step(*images(4))
    text = str(step.ir())
    assert '"0.weight"' in text
    assert "test_compile.py:" in text
    assert "update" in text
    assert "Adam.lr" in text


def test_kernels_and_explain_have_something_to_say():
    _, _, train_step = digits_like()
    step = tc.compile(train_step)
    step(*images(4))
    assert "def " in str(step.kernels())
    said = step.explain()
    assert "first call" in said
    assert "guards" in said


def test_a_hand_edited_dump_runs_and_shows_the_edit():
    step = tc.compile(lambda x: x * 2.0 + 1.0)
    step(tc.ones(3))
    edited = str(step.ir("simplified")).replace("2.0", "5.0")
    run = tc.compile(tc.ir.parse(edited))
    np.testing.assert_array_equal(run(tc.ones(3)).numpy(), np.full(3, 6.0, np.float32))


def test_results_that_require_grad_join_the_callers_tape():
    model, other = nn.Linear(5, 3), nn.Linear(5, 3)
    other.load_state_dict(model.state_dict())
    x = tc.randn(4, 5, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    forward = tc.compile(lambda v: model(v).tanh())
    (forward(x * 1.0) ** 2).sum().backward()
    (other(z * 1.0).tanh() ** 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.weight.grad.numpy(), other.weight.grad.numpy(), rtol=1e-5, atol=1e-6
    )


def test_backward_uses_numbers_and_buffers_as_they_were_at_the_call():
    buffer, weight = tc.full((3,), 2.0), tc.ones(3, requires_grad=True)

    class Scale:
        factor = 3.0

    @tc.compile
    def f(x):
        y = x * buffer * Scale.factor * weight
        buffer.add_(1)
        return y

    x = tc.ones(3, requires_grad=True)
    first = f(x)
    Scale.factor = 5.0
    second = f(x)
    first.sum().backward()
    assert x.grad.tolist() == weight.grad.tolist() == [2 * 3.0] * 3
    with tc.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.sum().backward()


def test_a_module_can_be_compiled():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    fast = tc.compile(model)
    x = tc.randn(2, 4)
    np.testing.assert_allclose(fast(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-6)
    assert len(list(fast.parameters())) == 2


def test_a_method_is_compiled_per_instance():
    class Scale:
        def __init__(self, k):
            self.k = k

        @tc.compile
        def apply(self, x):
            return x * self.k

    a, b = Scale(2.0), Scale(3.0)
    assert a.apply(tc.ones(1)).item() == 2.0
    assert b.apply(tc.ones(1)).item() == 3.0


def test_nested_compiled_functions_become_one_graph():
    inner = tc.compile(lambda x: x * 2)
    outer = tc.compile(lambda x: inner(x) + 1)
    assert outer(tc.ones(1)).item() == 3.0
    assert inner.traces == 0


def test_containers_of_tensors_go_in_and_come_out():
    f = tc.compile(lambda d, pair: {"sum": d["a"] + pair[0], "list": [pair[1], 5, "text"]})
    out = f({"a": tc.ones(2)}, (tc.ones(2), tc.zeros(1)))
    assert out["sum"].tolist() == [2.0, 2.0]
    assert out["list"][0].tolist() == [0.0]
    assert out["list"][1:] == [5, "text"]


def test_a_float_argument_changes_without_a_retrace():
    f = tc.compile(lambda x, t: x / t)
    assert f(tc.ones(1), 2.0).item() == 0.5
    assert f(tc.ones(1), 4.0).item() == 0.25
    assert f.traces == 1


def branch(x):
    if x.sum() > 0:
        return x
    return -x


@pytest.mark.parametrize(
    "function",
    [branch, lambda x: x.sum().item(), lambda x: x.numpy(), lambda x: float(x.sum())],
    ids=["if", "item", "numpy", "float"],
)
def test_python_that_needs_numbers_raises_a_trace_error_with_the_line(function):
    with pytest.raises(TraceError, match=r"test_compile\.py:\d+") as caught:
        tc.compile(function)(tc.ones(3))
    assert "cond" in str(caught.value)


SHAPED_BY_NUMBERS = {
    "tensor_split": (lambda x, n: x.tensor_split(n), [[1, 3], [2, 2]]),
    "repeat_interleave": (lambda x, n: x[:2].repeat_interleave(n), [[1, 2], [0, 3], [4, 4]]),
    "one_hot": (lambda x, n: F.one_hot(n[1:]) * x[0], [[9, 2], [0, 2], [0, 5]]),
    "bincount": (lambda x, n: tc.bincount(n, x[:2]), [[0, 3], [3, 3], [5, 0]]),
    "lengths": (
        lambda x, n: rnn.pack_padded_sequence(x.view(3, 2), n, enforce_sorted=False).data,
        [[1, 3], [3, 1]],
    ),
}


@pytest.mark.parametrize("name", SHAPED_BY_NUMBERS)
def test_numbers_of_arguments_that_decide_shapes_are_guarded(name):
    function, numbers = SHAPED_BY_NUMBERS[name]
    compiled, x = tc.compile(function), tc.arange(6.0) + 1
    for n in numbers * 2:
        found = compiled(x, tc.tensor(n))
        assert repr(found) == repr(function(x, tc.tensor(n)))
    assert compiled.traces <= len({repr(function(x, tc.tensor(n))) for n in numbers})


def test_numbers_that_decide_shapes_may_change_in_place_around_a_compiled_function():
    sizes = tc.tensor([1, 2])
    f = tc.compile(lambda x: x.tensor_split(sizes))
    assert [len(p) for p in f(tc.arange(4.0))] == [1, 1, 2]
    sizes.add_(1)
    assert [len(p) for p in f(tc.arange(4.0))] == [2, 1, 1]
    assert f.traces == 2
    assert "indices of tensor_split changed from [1, 2] to [2, 3]" in f.explain()


def test_numbers_that_the_function_computes_decide_no_shapes():
    for function in (lambda n: tc.bincount(n * 2), lambda n: F.one_hot(n.add_(1))):
        with pytest.raises(TraceError, match="number of"):
            tc.compile(function)(tc.tensor([1, 2]))


def test_equal_and_allclose_become_bools_when_the_call_returns():
    f = tc.compile(lambda a, b: (tc.equal(a, b), tc.where(tc.allclose(a, b), a, -b)))
    a, b = tc.ones(2), tc.tensor([1.0, 3.0])
    assert f(a, a)[0] is True
    assert f(a, b)[0] is False
    assert f(a, b)[1].tolist() == [-1.0, -3.0]
    with pytest.raises(TraceError, match="truth of a tensor"):
        tc.compile(lambda a, b: a if tc.equal(a, b) else b)(a, b)


def test_after_a_failed_trace_nothing_has_changed():
    model = nn.Linear(3, 3)
    opt = optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().numpy().copy()

    @tc.compile
    def step(x):
        model(x).sum().backward()
        opt.step()
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        step(tc.ones(2, 3))
    np.testing.assert_array_equal(model.weight.detach().numpy(), before)
    assert model.weight.grad is None


def test_a_traced_tensor_that_leaked_is_refused_by_name():
    kept = []
    f = tc.compile(lambda x: kept.append(x * 2) or x)
    f(tc.ones(2))
    with pytest.raises(TraceError):
        kept[0].numpy()


def test_wrong_shapes_are_refused_at_the_call_with_the_users_line():
    f = tc.compile(lambda a, b: a @ b)
    with pytest.raises(RuntimeError, match="shape"):
        f(tc.ones(2, 3), tc.ones(4, 5))


def test_cond_while_and_scan_agree_with_eager():
    def program(x):
        y = tc.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
        n, z = tc.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 1.5), (tc.tensor(0), y))
        last, ys = tc.scan(lambda c, v: (c + v, c * v), tc.zeros(()), z)
        return n, z, last, ys

    for x in (tc.tensor([1.0, 2.0, -0.5]), tc.tensor([-1.0, -2.0, 0.5])):
        for a, b in zip(program(x), tc.compile(program)(x), strict=True):
            np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-6)


def test_gradients_flow_through_cond_and_scan():
    w = tc.tensor([0.5, -1.5], requires_grad=True)

    def loss(x):
        y = tc.cond(x.sum() > 0, lambda v: v * w, lambda v: v - w, (x,))
        last, _ = tc.scan(lambda c, v: (tc.tanh(c + v * w), c), tc.zeros(2), y.reshape(2, 1))
        return last.sum()

    def gradient(x):
        return tc.autograd.grad(loss(x), (w,))[0]

    for x in (tc.tensor([1.0, 2.0]), tc.tensor([-1.0, -2.0])):
        np.testing.assert_allclose(tc.compile(gradient)(x).numpy(), gradient(x).numpy(), rtol=1e-5)


def test_higher_derivatives_inside_one_graph():
    def second(x):
        (g,) = tc.autograd.grad((x**4).sum(), (x,), create_graph=True)
        return tc.autograd.grad(g.sum(), (x,))[0]

    x = tc.tensor([1.0, -2.0], requires_grad=True)
    np.testing.assert_allclose(tc.compile(second)(x).numpy(), [12.0, 48.0], rtol=1e-6)


def test_a_custom_function_is_traced_with_its_own_backward():
    class Clip(tc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (x.abs() < 2)

    @tc.compile
    def f(x):
        return tc.autograd.grad(Clip.apply(x).sum(), (x,))[0]

    x = tc.tensor([0.5, 1.5, 2.5], requires_grad=True)
    assert f(x).tolist() == [1.0, 1.0, 0.0]


def test_several_threads_may_call_one_compiled_function():
    f = tc.compile(lambda x: (x * 2).sum())
    f(tc.ones(1000))
    wrong = []

    def work(k):
        for _ in range(50):
            if f(tc.full((1000,), float(k))).item() != 2000.0 * k:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_state_that_a_later_pass_over_a_row_reads_again_is_not_overwritten():
    def update(v, p, g):
        v.add_(g * g)
        change = g / (v + 1.0).sqrt()
        p.sub_(change / change.norm())

    results = []
    for run in (update, tc.compile(update)):
        v, p = tc.ones(40), tc.ones(40)
        for k in range(3):
            run(v, p, tc.linspace(-1.0, 2.0, 40) * (k + 1))
        results.append((v.numpy(), p.numpy()))
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
