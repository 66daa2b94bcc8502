"""L-BFGS whose step is inside a compiled function: loops of one graph with eager's numbers."""

import copy

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn

OPTIONS = {
    "fixed": {"lr": 0.5, "max_iter": 3},
    "wolfe": {"line_search_fn": "strong_wolfe", "max_iter": 4},
    "short": {"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 2, "lr": 0.3},
    "few": {"line_search_fn": "strong_wolfe", "max_iter": 8, "max_eval": 5},
}


def regression(library, options, dtype="float64", wrap=lambda f: f):
    """A step of regularised logistic regression, its parameters and its optimiser."""
    rng = np.random.default_rng(0)
    x = library.tensor(rng.standard_normal((40, 4)).astype(dtype))
    y = library.tensor((rng.standard_normal((40, 1)) + x[:, :1].numpy() > 0).astype(dtype))
    w = library.tensor(rng.standard_normal((4, 1)).astype(dtype), requires_grad=True)
    b = library.tensor(np.zeros(1, dtype), requires_grad=True)
    opt = library.optim.LBFGS([w, b], **options)

    def step():
        def closure():
            opt.zero_grad()
            z = x @ w + b
            loss = library.nn.functional.binary_cross_entropy_with_logits(z, y)
            loss = loss + 0.01 * w.square().sum()
            loss.backward()
            return loss

        return opt.step(closure)

    return wrap(step), [w, b], opt


def history(step, params, steps=20):
    losses = [step().item() for _ in range(steps)]
    return [losses, *(p.detach().numpy() for p in params)]


def close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_compiled_step_equals_eager_and_torch(name):
    torch = pytest.importorskip("torch")
    options = OPTIONS[name]
    *made, opt = regression(tc, options, wrap=tc.compile)
    found = history(*made)
    *made, eager = regression(tc, options)
    close(found, history(*made))
    close(found, history(*regression(torch, options)[:2]))
    counts = [
        [o.state_dict()["state"][0][key] for key in ("n_iter", "func_evals")] for o in (opt, eager)
    ]
    assert counts[0] == counts[1]


def test_in_float32_too():
    options = OPTIONS["wolfe"]
    found = history(*regression(tc, options, "float32", tc.compile)[:2])
    close(found, history(*regression(tc, options, "float32")[:2]), 1e-3)


def test_the_gradients_left_behind_are_those_at_the_result():
    step, (w, b), _ = regression(tc, OPTIONS["wolfe"], wrap=tc.compile)
    for _ in range(12):
        step()
    assert max(w.grad.abs().max().item(), b.grad.abs().item()) < 1e-5


def test_eager_and_compiled_steps_may_alternate():
    plain, params, _ = regression(tc, OPTIONS["wolfe"])
    compiled = tc.compile(plain)
    losses = [f().item() for f in (plain, compiled, compiled, plain, plain, compiled)]
    close(
        [losses, *(p.detach().numpy() for p in params)],
        history(*regression(tc, OPTIONS["wolfe"])[:2], 6),
    )


def test_a_saved_state_goes_on_eager_or_compiled():
    step, params, opt = regression(tc, OPTIONS["wolfe"], wrap=tc.compile)
    history(step, params, 2)
    saved, values = copy.deepcopy(opt.state_dict()), [p.detach().clone() for p in params]
    assert isinstance(saved["state"][0]["old_dirs"], list)
    expected = history(step, params, 2)
    for wrap in (lambda f: f, tc.compile):
        step, params, opt = regression(tc, OPTIONS["wolfe"], wrap=wrap)
        step()
        opt.load_state_dict(saved)
        with tc.no_grad():
            for p, value in zip(params, values, strict=True):
                p.copy_(value)
        close(history(step, params, 2), expected)


def test_a_change_of_lr_does_not_retrace():
    step, _, opt = regression(tc, OPTIONS["fixed"], wrap=tc.compile)
    step()
    opt.param_groups[0]["lr"] = 0.25
    step()
    assert step.explain().splitlines()[0].endswith("1 graph")


def test_a_closure_that_writes_other_memory_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    opt = tc.optim.LBFGS(model.parameters())

    def closure():
        opt.zero_grad()
        loss = model(tc.ones(3, 2)).sum()
        loss.backward()
        return loss

    with pytest.raises(tc.TraceError, match="writes other memory than its parameters"):
        tc.compile(lambda: opt.step(closure))()
