"""What users change between calls: eager and compiled stay equal for 20 steps each."""

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim

STEPS = 20


def batch(seed: int, n: int = 16):
    rng = np.random.default_rng(seed)
    x = tc.from_numpy(rng.standard_normal((n, 6)).astype("float32"))
    y = tc.from_numpy(rng.integers(0, 3, n))
    return x, y


def mlp(*middle):
    tc.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 3))


def both(scenario):
    """Runs ``scenario(wrap)`` eager and compiled and compares the numbers that it yields."""
    tc.manual_seed(1)
    eager = [np.array(v, dtype=np.float64) for v in scenario(lambda f: f)]
    tc.manual_seed(1)
    compiled = [np.array(v, dtype=np.float64) for v in scenario(tc.compile)]
    assert len(eager) == len(compiled) >= STEPS
    for step, (a, b) in enumerate(zip(eager, compiled, strict=True)):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6, err_msg=f"value {step}")


def training(wrap, model, opt, loss_fn=F.cross_entropy):
    @wrap
    def step(x, y):
        opt.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


def weights(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_learning_rate_and_momentum_changed_between_calls(kind):
    def scenario(wrap):
        model = mlp()
        if kind == "sgd":
            opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        else:
            opt = optim.Adam(model.parameters(), lr=0.1)
        step = training(wrap, model, opt)
        for i in range(STEPS):
            opt.param_groups[0]["lr"] = 0.1 / (i + 1)
            if kind == "sgd":
                opt.param_groups[0]["momentum"] = 0.9 - 0.01 * i
            yield step(*batch(i)).item()
            yield weights(model)

    both(scenario)


def test_a_hundred_learning_rates_trace_once():
    model = mlp()
    opt = optim.Adam(model.parameters(), lr=0.1)
    step = training(tc.compile, model, opt)
    for i in range(100):
        opt.param_groups[0]["lr"] = 0.1 / (i + 1)
        step(*batch(i))
    assert step.traces == 1


def test_train_and_eval_flipped():
    def scenario(wrap):
        model = mlp(nn.BatchNorm1d(8), nn.Dropout(0.3))
        forward = wrap(lambda x: model(x).sum())
        for i in range(STEPS):
            model.train(i % 3 != 0)
            yield forward(batch(i)[0]).item()

    both(scenario)


def test_gradients_accumulated_over_two_calls():
    def scenario(wrap):
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def accumulate(x, y):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for i in range(STEPS):
            yield accumulate(*batch(i)).item()
            yield model[0].weight.grad.numpy()
            if i % 2:
                opt.step()
                opt.zero_grad()

    both(scenario)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_inside_and_outside(set_to_none):
    def scenario(wrap):
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def step(x, y):
            opt.zero_grad(set_to_none=set_to_none)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        for i in range(STEPS):
            yield step(*batch(i)).item()
            yield model[2].weight.grad.numpy()
            if i % 4 == 0:
                opt.zero_grad(set_to_none=not set_to_none)

    both(scenario)


def test_an_input_written_in_place():
    def scenario(wrap):
        @wrap
        def f(x):
            y = x * 2
            x.add_(1.0)
            return (x * y).sum()

        x = batch(0)[0]
        for _ in range(STEPS):
            yield f(x).item()
            yield x.numpy().copy()

    both(scenario)


def test_a_view_of_a_parameter_written_in_place():
    def scenario(wrap):
        model = mlp()
        w = model[0].weight

        @wrap
        def f(x):
            with tc.no_grad():
                w[0].mul_(0.9)
                w[:, 1] = 0.5
                row = w.view(-1)[3:5]
                row += 1.0
            return model(x).sum()

        for i in range(STEPS):
            yield f(batch(i)[0]).item()
            yield weights(model)

    both(scenario)


def test_the_same_tensor_passed_twice():
    def scenario(wrap):
        @wrap
        def f(a, b):
            a.mul_(1.01)
            return (a * b).sum()

        for i in range(STEPS):
            x, other = batch(i)[0], batch(i + 1)[0]
            yield f(x, x).item()
            yield f(x, other).item()
            yield f(x, x[:]).item()

    both(scenario)


scale = 1.0


def test_a_closure_scalar_and_a_global_changed():
    global scale

    def scenario(wrap):
        global scale
        shift = 0.0

        @wrap
        def f(x):
            return x * scale + shift

        for i in range(STEPS):
            scale, shift = 1.0 + i % 3, float(i % 2)
            yield f(batch(i)[0]).numpy()

    both(scenario)


def test_dropout_draws_a_new_mask_each_call_and_the_eager_one_under_the_same_seed():
    def scenario(wrap):
        drop = nn.Dropout(0.5)
        f = wrap(lambda x: drop(x))
        x = tc.ones(64)
        seen = []
        for _ in range(STEPS):
            seen.append(f(x).numpy().copy())
            yield seen[-1]
        assert len({s.tobytes() for s in seen}) == STEPS

    both(scenario)


def test_the_dropout_rate_changes_without_a_retrace():
    drop = nn.Dropout(0.5)
    f = tc.compile(lambda x: drop(x).sum())
    kept = []
    for p in (0.1, 0.5, 0.9):
        drop.p = p
        kept.append((f(tc.ones(10_000)) * (1 - p)).item() / 10_000)
    np.testing.assert_allclose(kept, [0.9, 0.5, 0.1], atol=0.02)
    assert f.traces == 1


def test_batch_norm_running_statistics():
    def scenario(wrap):
        model = mlp(nn.BatchNorm1d(8))
        step = training(wrap, model, optim.SGD(model.parameters(), lr=0.1))
        for i in range(STEPS):
            yield step(*batch(i)).item()
            yield model[1].running_mean.numpy().copy()
            yield model[1].running_var.numpy().copy()
            yield model[1].num_batches_tracked.item()

    both(scenario)


def test_a_state_dict_loaded_between_calls():
    def scenario(wrap):
        model = mlp()
        opt = optim.Adam(model.parameters(), lr=0.05)
        step = training(wrap, model, opt)
        saved = {k: v.clone() for k, v in model.state_dict().items()}
        for i in range(STEPS):
            if i == 7:
                model.load_state_dict(saved)
            yield step(*batch(i)).item()

    both(scenario)


def test_an_optimiser_state_dict_loaded_between_calls():
    def scenario(wrap):
        model = mlp()
        opt = optim.Adam(model.parameters(), lr=0.05)
        step = training(wrap, model, opt)
        for i in range(STEPS):
            if i == 9:
                opt.load_state_dict(opt.state_dict())
            yield step(*batch(i)).item()

    both(scenario)


def test_tied_weights():
    def scenario(wrap):
        tc.manual_seed(0)
        first, second = nn.Linear(6, 6), nn.Linear(6, 6)
        second.weight = first.weight
        model = nn.Sequential(first, nn.Tanh(), second)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = training(wrap, model, opt)
        for i in range(STEPS):
            yield step(*batch(i)).item()
            yield first.weight.detach().numpy().copy()

    both(scenario)


def test_a_returned_tensor_that_aliases_an_input():
    def scenario(wrap):
        @wrap
        def f(x):
            x.mul_(0.5)
            return x, x[1:], x.view(-1)

        for i in range(STEPS):
            x = batch(i)[0]
            same, tail, flat = f(x)
            assert same is x
            tail.add_(1.0)
            flat[0] = 7.0
            yield x.numpy().copy()

    both(scenario)


def test_a_parameter_replaced_between_calls():
    def scenario(wrap):
        model = mlp()
        f = wrap(lambda x: model(x).sum())
        for i in range(STEPS):
            if i == 10:
                model[0].weight = nn.Parameter(tc.ones(8, 6))
            yield f(batch(i)[0]).item()

    both(scenario)


def test_requires_grad_flipped_between_calls():
    def scenario(wrap):
        model = mlp()
        opt = optim.SGD(model.parameters(), lr=0.1)
        step = training(wrap, model, opt)
        for i in range(STEPS):
            model[0].weight.requires_grad_(i % 4 < 2)
            yield step(*batch(i)).item()
            yield weights(model)

    both(scenario)


def test_a_compiled_zero_grad_clears_a_gradient_that_came_later():
    w = nn.Parameter(tc.ones(2))
    opt = optim.SGD([w], lr=0.1)

    @tc.compile
    def clear(x):
        opt.zero_grad()
        return x + 1

    clear(tc.ones(1))
    (w * 2).sum().backward()
    assert w.grad is not None
    clear(tc.ones(1))
    assert w.grad is None


class Scale:
    """A plain object whose attribute a compiled function reads."""

    factor = 2.0


def change_closure_module(x):
    model = nn.Linear(6, 3)

    def change():
        nonlocal model
        model = nn.Linear(6, 3)

    return lambda: model(x), change


def change_closure_tensor(x):
    w = tc.ones(6)

    def change():
        nonlocal w
        w = tc.full((6,), 2.0)

    return lambda: x * w, change


def change_object(x):
    scale = Scale()
    return lambda: x * scale.factor, lambda: setattr(scale, "factor", 3.0)


def change_dict(x):
    settings = {"inner": {"factor": 2.0}}
    return lambda: x * settings["inner"]["factor"], lambda: settings["inner"].update(factor=3.0)


def change_list(x):
    weights = [tc.ones(6)]
    return lambda: sum(x * w for w in weights), lambda: weights.append(tc.ones(6))


def change_list_element(x):
    weights = [tc.ones(1)]
    return lambda: x * weights[0], lambda: weights.__setitem__(0, tc.full((1,), 5.0))


def change_module_number(x):
    model = nn.LeakyReLU(0.1)
    return lambda: model(-x.abs()), lambda: setattr(model, "negative_slope", 0.5)


def change_module_list(x):
    model = nn.Sequential(nn.Linear(6, 3))
    return lambda: model(x), lambda: model.append(nn.ReLU())


def change_helper(x):
    def helper(v):
        return v * 2

    def change():
        nonlocal helper
        helper = tc.tanh

    return lambda: helper(x), change


@pytest.mark.parametrize(
    "case",
    [
        change_closure_module,
        change_closure_tensor,
        change_object,
        change_dict,
        change_list,
        change_list_element,
        change_module_number,
        change_module_list,
        change_helper,
    ],
    ids=lambda f: f.__name__,
)
def test_whatever_the_function_reads_around_itself_may_change(case):
    function, change = case(batch(0)[0])
    compiled = tc.compile(function)
    before = function().detach().numpy().copy()
    np.testing.assert_allclose(compiled().detach().numpy(), before, rtol=1e-5, atol=1e-6)
    compiled()
    assert compiled.traces == 1
    change()
    after = function().detach().numpy()
    assert after.shape != before.shape or not np.allclose(after, before)
    np.testing.assert_allclose(compiled().detach().numpy(), after, rtol=1e-5, atol=1e-6)


def test_an_attribute_of_self_changes():
    class Model:
        def __init__(self):
            self.factor = 2.0

        @tc.compile
        def apply(self, x):
            return x * self.factor

    model = Model()
    assert model.apply(tc.ones(1)).item() == 2.0
    model.factor = 7.0
    assert model.apply(tc.ones(1)).item() == 7.0


def test_a_function_that_retraces_at_every_call_keeps_few_graphs():
    seen = []

    @tc.compile
    def f(x):
        seen.append(1)
        return x * len(seen)

    for k in range(40):
        assert f(tc.ones(1)).item() == k + 1
    assert f.traces == 40
    assert sum(map(len, f._entries.values())) == 32
