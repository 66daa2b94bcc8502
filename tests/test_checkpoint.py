"""Checkpoints: the same numbers with and without, from less memory, eager and compiled."""

import re
import weakref

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn
from tracecc.utils.checkpoint import checkpoint, checkpoint_sequential
from tracecc_ir.parser import parse
from tracecc_ir.passes.pipeline import run

F = nn.functional


def data(*shape, seed=0):
    return tc.tensor(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def plain(function, *args, **options):
    return function(*args)


def arena(compiled):
    """The bytes of temporaries of a compiled function."""
    return sum(int(n) for n in re.findall(r"arena (\d+) bytes", compiled.explain()))


def numbers(tensors):
    return [t.detach().numpy().copy() for t in tensors]


def close(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


class Block(nn.Module):
    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm(x)))))


def training(call, width=32, depth=6, dropout=0.0):
    """A step of a deep perceptron whose blocks are called by ``call``, and its parameters."""
    tc.manual_seed(0)
    blocks = nn.ModuleList([Block(width, dropout) for _ in range(depth)])
    optimizer = tc.optim.SGD(blocks.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        for block in blocks:
            x = call(block, x, use_reentrant=False)
        loss = x.square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, list(blocks.parameters())


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_training_with_dropout_gives_the_same_numbers_with_and_without(wrap):
    x, found = data(64, 32), []
    for call in (plain, checkpoint):
        step, parameters = training(call, dropout=0.3)
        step = wrap(step)
        losses = [step(x) for _ in range(3)]
        drawn = tc.rand(2)
        found.append(numbers([*losses, drawn, *parameters, *(p.grad for p in parameters)]))
    close(*found)


def test_training_equals_torch():
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint as theirs

    layers = [(data(16, 16, seed=i) / 4).numpy() for i in range(3)]

    def gradients(library, call):
        x = library.tensor(data(4, 16).numpy(), requires_grad=True)
        ws = [library.tensor(w, requires_grad=True) for w in layers]
        h = x
        for w in ws:
            h = call(lambda t, w=w: (t @ w).tanh().exp(), h, use_reentrant=False)
        h.sum().backward()
        return [t.grad.numpy() for t in (x, *ws)]

    close(gradients(tc, checkpoint), gradients(torch, theirs))


def test_a_compiled_perceptron_needs_half_of_the_memory():
    x, bytes_ = data(2048, 32), {}
    for call in (plain, checkpoint):
        step = tc.compile(training(call, 32, 8)[0])
        step(x)
        bytes_[call] = arena(step)
    widest = 2048 * 128 * 4
    assert bytes_[plain] > 8 * widest
    assert bytes_[checkpoint] * 2 < bytes_[plain]


def test_a_compiled_transformer_needs_half_of_the_memory():
    x, bytes_, losses = data(4, 64, 32), [], []
    for call in (plain, checkpoint):
        tc.manual_seed(0)
        layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(32, 4, 128, 0.1, batch_first=True) for _ in range(6)]
        )

        @tc.compile
        def step(x, call=call, layers=layers):
            for layer in layers:
                x = call(layer, x, use_reentrant=False)
            x.square().mean().backward()
            return x

        losses.append(numbers([step(x), *(p.grad for p in layers.parameters())]))
        bytes_.append(arena(step))
    close(*losses)
    assert bytes_[1] * 2 < bytes_[0]


def test_eager_backward_holds_no_part_after_its_turn():
    def wide_arrays_alive(call):
        """How many widest activations live after forward, and at most between two blocks later."""
        made, seen = [], []
        blocks = nn.ModuleList([Block(16) for _ in range(6)])
        for block in blocks:
            block.widen.register_forward_hook(
                lambda module, args, y: made.append(weakref.ref(y.detach().numpy()))
            )
        x = data(8, 16).requires_grad_()
        for block in blocks:
            x = call(block, x)
            x.register_hook(lambda g: seen.append(alive()))

        def alive():
            return sum(a() is not None for a in made)

        after = alive()
        x.sum().backward()
        return after, max(seen)

    assert wide_arrays_alive(plain) == (6, 6)
    assert wide_arrays_alive(checkpoint) == (0, 0)


def test_backward_outside_of_the_compiled_function_keeps_only_the_borders():
    saved, found = [], []
    for call in (plain, checkpoint):
        tc.manual_seed(0)
        blocks = nn.ModuleList([Block(16, 0.2) for _ in range(4)])

        @tc.compile
        def forward(x, call=call, blocks=blocks):
            for block in blocks:
                x = call(block, x, use_reentrant=False)
            return x

        y = forward(data(32, 16))
        saved.append(sum(a.nbytes for a in y.grad_fn.saved))
        y.sum().backward()
        found.append(numbers([y, *(p.grad for p in blocks.parameters())]))
    close(*found)
    assert saved[1] * 2 < saved[0]


def nested(call, x, w):
    def inner(t):
        return F.dropout(t @ w, 0.25).tanh()

    def outer(t):
        return call(inner, call(inner, t, use_reentrant=False).sin(), use_reentrant=False).exp()

    return call(outer, call(outer, x, use_reentrant=False), use_reentrant=False)


def test_a_barrier_keeps_equal_nodes_apart_and_costs_nothing():
    graph = parse("""
    graph main(%x: f32[64]) {
      %a = exp(%x) : f32[64]
      %y, %after = barrier(%x, %a) : f32[64], f32[64]
      %b = exp(%y) : f32[64]
      return %a, %b, %after
    }
    """)
    stages = dict(run(graph))
    assert [n.op.name for n in stages["scalarized"].nodes] == ["exp", "barrier", "exp"]
    assert [n.op.name for n in stages["fused"].nodes] == ["kernel", "kernel"]
    found = tc.compile(graph)(tc.zeros(64))
    assert [t.sum().item() for t in found] == [64.0, 64.0, 64.0]


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_checkpoints_nest(wrap):
    found = []
    for call in (plain, checkpoint):
        tc.manual_seed(5)
        x, w = data(8, 6).requires_grad_(), data(6, 6, seed=1).requires_grad_()

        @wrap
        def step(call=call, x=x, w=w):
            y = nested(call, x, w)
            y.sum().backward()
            return y

        found.append(numbers([step(), x.grad, w.grad]))
    close(*found)


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_sequential_runs_all_but_the_last_segment_again(wrap):
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x).tanh()

    tc.manual_seed(0)
    model = nn.Sequential(*[Counted(4, 4) for _ in range(5)])
    x, want = data(3, 4).requires_grad_(), data(3, 4).requires_grad_()

    @wrap
    def step(x):
        checkpoint_sequential(model, 2, x, use_reentrant=False).sum().backward()

    step(x)
    assert len(calls) == 5 + 2
    model(want).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), want.grad.numpy(), 1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_gradients_reach_what_the_function_captured_and_hooks_run_once(wrap):
    w = tc.tensor(3.0, requires_grad=True)
    w.register_hook(lambda g: g * 10)

    @wrap
    def step(x):
        h = x * w
        y, flag, same = checkpoint(lambda t: (t * h * w, "kept", t), x)
        assert flag == "kept"
        (y + same).backward()

    x = tc.tensor(2.0, requires_grad=True)
    step(x)  # y = x * x * w * w
    assert x.grad.item() == 2 * 2 * 9 + 1
    assert w.grad.item() == 10 * 4 * 2 * 3


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_second_derivatives_go_through(wrap):
    w = data(3, 3, seed=2).double()

    def penalty(call, x):
        y = call(lambda t: (t @ w).sin().exp(), x * 2)
        (g,) = tc.autograd.grad(y.sum(), x, create_graph=True)
        return tc.autograd.grad(g.square().sum(), x)[0]

    x = data(2, 3).double().requires_grad_()
    expected = penalty(plain, x)
    np.testing.assert_allclose(wrap(lambda: penalty(checkpoint, x))().numpy(), expected.numpy())


def test_second_derivatives_through_a_compiled_call():
    f = tc.compile(lambda t: checkpoint(lambda v: v.sin().exp(), t))
    x = tc.linspace(0.1, 1, 4).double().requires_grad_()
    assert tc.autograd.gradcheck(f, (x,))
    assert tc.autograd.gradgradcheck(f, (x,))


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_a_custom_function_keeps_its_own_gradient(wrap):
    class Reverse(tc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return -g

    x = tc.tensor([1.0, 2.0], requires_grad=True)
    wrap(lambda t: checkpoint(lambda v: Reverse.apply(v * v), t).sum().backward())(x)
    assert x.grad.tolist() == [-2.0, -4.0]


def test_context_fn_wraps_each_run():
    entered = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            entered.append(self.name)

        def __exit__(self, *error):
            pass

    x = tc.tensor(1.0, requires_grad=True)
    notes = Note("first"), Note("again")
    y = checkpoint(lambda t: t.exp(), x, use_reentrant=False, context_fn=lambda: notes)
    y.backward()
    assert entered == ["first", "again"]


@pytest.mark.parametrize(("wrap", "updates"), [(lambda f: f, 2), (tc.compile, 1)])
def test_running_statistics_move_at_each_run_eager_and_once_compiled(wrap, updates):
    norm, x = nn.BatchNorm1d(3), data(4, 3)

    @wrap
    def step(x):
        checkpoint(norm, x, use_reentrant=False).square().sum().backward()

    step(x)
    assert norm.num_batches_tracked.item() == updates
    expected = (1 - 0.9**updates) * x.mean(0)
    np.testing.assert_allclose(norm.running_mean.numpy(), expected.numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, tc.compile], ids=["eager", "compiled"])
def test_checkpoints_inside_of_vmapped_gradients_and_lbfgs(wrap):
    w, x = data(3, 3).double(), data(4, 3, seed=1).double()

    def gradients(call):
        return wrap(tc.func.vmap(tc.func.grad(lambda v: call(lambda t: (t @ w).sin().sum(), v))))

    close(numbers([gradients(checkpoint)(x)]), numbers([gradients(plain)(x)]))

    def losses(call):
        p = w.clone().requires_grad_()
        opt = tc.optim.LBFGS([p], line_search_fn="strong_wolfe", max_iter=3)

        def closure():
            opt.zero_grad()
            loss = (call(lambda t: (t @ p).tanh(), x) - 0.3).square().sum()
            loss.backward()
            return loss

        step = wrap(lambda: opt.step(closure))
        return numbers([step() for _ in range(3)])

    close(losses(checkpoint), losses(plain))
