"""Functions of functions beside PyTorch's: gradients, Jacobians, vmap, checks."""

import numpy as np
import pytest

import tracecc as tc
from tracecc import func, nn

torch = pytest.importorskip("torch")

X = np.array([[0.3, -0.7], [1.1, 0.4]], np.float64)
MODES = ["eager", "compiled"]


def f(x):
    return x.sin() * x + x.sum() ** 2


def g(x):
    return (x.exp() * x).sum()


def run(mode, function, *args):
    return (tc.compile(function) if mode == "compiled" else function)(*args)


def close(a, b, tolerance=1e-9):
    if isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y, tolerance)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        close(list(a.values()), list(b.values()), tolerance)
    else:
        a, b = a.detach().numpy(), b.detach().numpy()
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


CASES = {
    "grad": lambda m, x: m.grad(g)(x),
    "grad_twice": lambda m, x: m.grad(lambda v: m.grad(g)(v).sum())(x),
    "grad_and_value": lambda m, x: m.grad_and_value(g)(x),
    "argnums": lambda m, x: m.grad(lambda a, b: (a * b.sin()).sum(), (0, 1))(x, x + 1),
    "aux": lambda m, x: m.grad(lambda v: (g(v), v * 2), has_aux=True)(x),
    "dict": lambda m, x: m.grad(lambda d: (d["a"] * d["b"]).sum())({"a": x, "b": x * 2}),
    "vjp": lambda m, x: (lambda r: (r[0], r[1](x + 1)))(m.vjp(f, x)),
    "jvp": lambda m, x: m.jvp(f, (x,), (x - 2,)),
    "jacrev": lambda m, x: m.jacrev(f)(x),
    "jacfwd": lambda m, x: m.jacfwd(f)(x),
    "jacfwd_two": lambda m, x: m.jacfwd(lambda a, b: a @ b, (0, 1))(x, x + 1),
    "hessian": lambda m, x: m.hessian(g)(x),
    "vmap": lambda m, x: m.vmap(lambda r: r.sin() / r.sum())(x),
    "vmap_dims": lambda m, x: m.vmap(lambda a, b: a * b, in_dims=(0, None), out_dims=1)(x, x),
    "vmap_grad": lambda m, x: m.vmap(m.grad(g))(x),
    "vmap_two": lambda m, x: m.vmap(m.vmap(lambda v: v * v))(x),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_transform_equals_torchs(name, mode):
    case = CASES[name]
    close(run(mode, lambda x: case(func, x), tc.tensor(X)), case(torch.func, torch.tensor(X)))


def test_results_require_grad_only_where_something_outside_does():
    x = tc.tensor(X)
    assert not func.grad(g)(x).requires_grad
    w = tc.tensor(2.0, dtype=tc.float64, requires_grad=True)
    found = func.grad(lambda v: (v * v * w).sum())(x)
    found.sum().backward()
    assert w.grad.item() == pytest.approx(2 * X.sum())


@pytest.mark.parametrize("mode", MODES)
def test_functional_call_and_ensembles_equal_torchs(mode):
    made = []
    for library in (tc, torch):
        models = [library.nn.Linear(2, 3).double() for _ in range(2)]
        for i, m in enumerate(models):
            m.load_state_dict({"weight": library.tensor(np.full((3, 2), 0.5 + i)),
                               "bias": library.tensor(np.arange(3.0))})  # fmt: skip
        params, _ = library.func.stack_module_state(models)

        def both(p, x, library=library, models=models):
            call = library.func.functional_call
            one = call(models[0], {"weight": p["weight"][1] * 2}, (x,))
            many = library.func.vmap(lambda q: call(models[0], q, (x,)))(p)
            gradient = library.func.grad(lambda q: call(models[0], q, (x,)).square().sum())
            return one, many, gradient({k: v[0] for k, v in p.items()})

        step = tc.compile(both) if mode == "compiled" and library is tc else both
        x = library.tensor(X)
        made.append(step(params, x))
        if mode == "compiled" and library is tc:
            step(params, x)
            assert step.traces == 1
    close(*made)


@pytest.mark.parametrize("mode", MODES)
def test_parameters_are_differentiated_without_grad_and_inside_a_compiled_vmap(mode):
    w, x = nn.Parameter(tc.tensor([2.0])), tc.tensor([[1.0], [3.0]])
    inner = func.grad(lambda p, v: (p * p * v).sum())
    with tc.no_grad():
        assert inner(w, x[1]).item() == 12.0
    rows = func.vmap(lambda row: inner(w, row))
    found = (tc.compile(rows) if mode == "compiled" else rows)(x)
    assert found.tolist() == [[4.0], [12.0]]


def test_autograd_functional_equals_torchs():
    made = []
    for library in (tc, torch):
        m, x = library.autograd.functional, library.tensor(X)
        made.append([
            m.jacobian(f, x), m.hessian(g, x), *m.vjp(f, x, x), *m.jvp(f, x, x),
            *m.vhp(g, x, x), *m.hvp(g, x, x),
            *m.jacobian(lambda a, b: a @ b, (x, x)),
        ])  # fmt: skip
    close(*made)


def test_gradcheck_accepts_right_and_refuses_wrong_derivatives():
    class Wrong(tc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    x = tc.tensor(X, requires_grad=True)
    assert tc.autograd.gradcheck(f, (x,))
    assert tc.autograd.gradgradcheck(f, (x,))
    assert tc.autograd.gradcheck(lambda a, b: a @ b, (x, tc.tensor(X + 1, requires_grad=True)))
    assert not tc.autograd.gradcheck(Wrong.apply, (x,), raise_exception=False)
    with pytest.raises(RuntimeError, match="mismatch for output 0 with respect to input 0"):
        tc.autograd.gradcheck(Wrong.apply, (x,))
    with pytest.raises(RuntimeError, match="mismatch for output 1"):
        tc.autograd.gradcheck(lambda t: (t.detach().exp(), Wrong.apply(t)), (x,))


def test_anomaly_mode_names_the_forward_line():
    x = tc.tensor(0.0, requires_grad=True)
    with tc.autograd.detect_anomaly():
        y = x.sqrt() * 0  # this line
        with pytest.raises(RuntimeError, match=r"returned nan values.*test_func\.py"):
            y.backward()
    (x.sqrt() * 0).backward()
