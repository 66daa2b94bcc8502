"""Optimizers and schedules: PyTorch's numbers for 20 steps, eager and compiled; state dicts."""

import copy

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim

torch = pytest.importorskip("torch")

STEPS = 20
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("RMSprop", {"lr": 0.02}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.7, "centered": True, "weight_decay": 0.01}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"lr": 1.0, "weight_decay": 0.01}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.01}),
    ("NAdam", {"lr": 0.02, "weight_decay": 0.01}),
    ("NAdam", {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.01}),
    ("Rprop", {"lr": 0.02}),
]
IDS = [f"{name}-{'-'.join(k for k in options)}" for name, options in CASES]


def weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (4,), (3, 4), (3,), ()]
    return [rng.standard_normal(s).astype("float32") for s in shapes]


def batch(step):
    rng = np.random.default_rng(step + 100)
    return rng.standard_normal((6, 3)).astype("float32"), rng.integers(0, 3, 6)


def model_loss(library, w, x, y):
    hidden = library.tanh(x @ w[0].T + w[1])
    logits = (hidden @ w[2].T + w[3]) * (1 + w[4])
    return library.nn.functional.cross_entropy(logits, y)


def close(mine, theirs, tolerance=2e-5):
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(
            a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_twenty_steps_equal_torchs(name, options, mode):
    mine = [nn.Parameter(tc.from_numpy(w.copy())) for w in weights()]
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in weights()]
    ours = getattr(optim, name)(mine, **options)
    other = getattr(torch.optim, name)(theirs, **options)

    def train(x, y):
        ours.zero_grad()
        loss = model_loss(tc, mine, x, y)
        loss.backward()
        ours.step()
        return loss

    step = tc.compile(train) if mode == "compiled" else train
    for i in range(STEPS):
        x, y = batch(i)
        a = step(tc.from_numpy(x), tc.from_numpy(y))
        other.zero_grad()
        b = model_loss(torch, theirs, torch.from_numpy(x), torch.from_numpy(y))
        b.backward()
        other.step()
        close([a], [b])
    close(mine, theirs)
    assert mode == "eager" or step.traces == 1


def stepped(make, steps=3):
    params = [nn.Parameter(tc.from_numpy(w.copy())) for w in weights()]
    opt = make(params)
    for i in range(steps):
        one_step(params, opt, i)
    return params, opt


def one_step(params, opt, i):
    x, y = batch(i)
    opt.zero_grad()
    model_loss(tc, params, tc.from_numpy(x), tc.from_numpy(y)).backward()
    opt.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad", "NAdam"])
def test_a_state_dict_continues_the_run(name):
    options = {"momentum": 0.9} if name == "SGD" else {}

    def make(params):
        return getattr(optim, name)(params, lr=0.01, **options)

    params, opt = stepped(make)
    saved = copy.deepcopy(opt.state_dict())
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    twin = make(twins)
    twin.load_state_dict(saved)
    for i in range(3, 8):
        one_step(params, opt, i)
        one_step(twins, twin, i)
    for a, b in zip(params, twins, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_the_state_dict_has_torchs_layout():
    _, opt = stepped(lambda p: optim.Adam(p, lr=0.01))
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in weights()]
    other = torch.optim.Adam(theirs, lr=0.01)
    for p in theirs:
        p.grad = torch.ones_like(p)
    other.step()
    mine, reference = opt.state_dict(), other.state_dict()
    assert mine.keys() == reference.keys()
    assert mine["state"].keys() == reference["state"].keys()
    assert mine["state"][0].keys() == reference["state"][0].keys()
    assert mine["param_groups"][0].keys() == reference["param_groups"][0].keys()


def test_groups_have_options_of_their_own():
    a, b = nn.Parameter(tc.ones(2)), nn.Parameter(tc.ones(2))
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.1)
    (a.sum() + b.sum()).backward()
    opt.step()
    np.testing.assert_allclose(a.detach().numpy(), 0.9)
    np.testing.assert_allclose(b.detach().numpy(), 0.0)
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [a]})


def test_parameters_without_gradient_are_left_alone():
    a, b = nn.Parameter(tc.ones(2)), nn.Parameter(tc.ones(2))
    opt = optim.Adam([a, b], lr=0.1)
    a.sum().backward()
    opt.step()
    assert b.tolist() == [1.0, 1.0]
    assert b not in opt.state


def test_zero_grad_clears_or_zeroes():
    p = nn.Parameter(tc.ones(2))
    opt = optim.SGD([p], lr=0.1)
    p.sum().backward()
    held = p.grad
    opt.zero_grad(set_to_none=False)
    assert p.grad is held
    assert held.tolist() == [0.0, 0.0]
    opt.zero_grad()
    assert p.grad is None


def test_a_closure_is_called_with_gradients_on():
    p = nn.Parameter(tc.ones(()))
    opt = optim.SGD([p], lr=0.5)

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 1.0
    assert p.item() == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD([nn.Parameter(tc.ones(1))], lr=-1.0), "learning rate"),
        (lambda: optim.Adam([nn.Parameter(tc.ones(1))], betas=(1.0, 0.9)), "beta"),
        (lambda: optim.Adam([]), "empty parameter list"),
        (lambda: optim.SGD([tc.ones(1, requires_grad=True) * 2], lr=0.1), "non-leaf"),
        (lambda: optim.SGD([nn.Parameter(tc.ones(1))], lr=0.1, nesterov=True), "Nesterov"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("LambdaLR", {"lr_lambda": lambda e: 0.95**e}),
    ("MultiplicativeLR", {"lr_lambda": lambda e: 0.95}),
    ("LinearLR", {"total_iters": 4}),
    ("ConstantLR", {"total_iters": 4}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15, "anneal_strategy": "linear"}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_equal_torchs(name, options):
    mine = optim.SGD([nn.Parameter(tc.ones(1))], lr=0.4, momentum=0.9)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.4, momentum=0.9)
    ours = getattr(optim.lr_scheduler, name)(mine, **options)
    other = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    theirs.step()
    for _ in range(14):
        a, b = mine.param_groups[0], theirs.param_groups[0]
        np.testing.assert_allclose([a["lr"], a["momentum"]], [b["lr"], b["momentum"]], rtol=1e-9)
        ours.step()
        other.step()


def test_sequential_schedules_equal_torchs():
    rates = []
    for library, one in ((tc, tc.ones(1)), (torch, torch.ones(1))):
        opt = library.optim.SGD([library.nn.Parameter(one)], lr=0.4)
        schedules = library.optim.lr_scheduler
        warm = schedules.LinearLR(opt, 0.1, total_iters=3)
        fall = schedules.ExponentialLR(opt, 0.8)
        both = schedules.SequentialLR(opt, [warm, fall], [3])
        opt.step()
        rates.append([])
        for _ in range(8):
            rates[-1].append(opt.param_groups[0]["lr"])
            both.step()
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-9)


def test_reduce_on_plateau_equals_torchs():
    metrics = [1.0, 0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    rates = []
    for library, one in ((tc, tc.ones(1)), (torch, torch.ones(1))):
        opt = library.optim.SGD([library.nn.Parameter(one)], lr=0.4)
        plateau = library.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1, cooldown=1)
        rates.append([])
        for metric in metrics:
            plateau.step(metric)
            rates[-1].append(opt.param_groups[0]["lr"])
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
def test_gradient_clipping_equals_torchs(norm_type):
    mine = [nn.Parameter(tc.from_numpy(w)) for w in weights()]
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in weights()]
    for p, q, g in zip(mine, theirs, weights(1), strict=True):
        p.grad, q.grad = tc.from_numpy(g.copy()), torch.tensor(g)
    a = nn.utils.clip_grad_norm_(mine, 0.7, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
    close([a], [b])
    close([p.grad for p in mine], [q.grad for q in theirs])


def test_training_a_module_lowers_its_loss():
    tc.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3))
    opt = optim.AdamW(model.parameters(), lr=0.05)
    x, y = (tc.from_numpy(v) for v in batch(0))
    losses = []
    for _ in range(40):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
