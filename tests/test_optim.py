"""Optimizers and schedules: PyTorch's numbers for 20 steps, eager and compiled; state dicts."""

import copy

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tiny work; a spinning pool would starve the other library

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
    ("ASGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("ASGD", {"lr": 0.1, "t0": 5.0, "lambd": 0.1}),
    ("Adafactor", {"lr": 0.05}),
    ("Adafactor", {"lr": 0.5, "weight_decay": 0.1, "d": 1.5, "beta2_decay": -0.5}),
    ("LBFGS", {"lr": 0.1, "max_iter": 4}),
    ("LBFGS", {"line_search_fn": "strong_wolfe", "max_iter": 4}),
    ("LBFGS", {"line_search_fn": "strong_wolfe", "max_iter": 6, "history_size": 3}),
]
IDS = [f"{name}-{'-'.join(k for k in options)}" for name, options in CASES]


def weights(seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (4,), (3, 4), (3,), ()]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def batch(step, dtype="float32"):
    rng = np.random.default_rng(step + 100)
    return rng.standard_normal((6, 3)).astype(dtype), rng.integers(0, 3, 6)


def precision(name):
    """LBFGS's decisions magnify rounding, so it is compared in float64."""
    return "float64" if name == "LBFGS" else "float32"


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
    dtype = precision(name)
    mine = [nn.Parameter(tc.from_numpy(w)) for w in weights(dtype=dtype)]
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in weights(dtype=dtype)]
    ours = getattr(optim, name)(mine, **options)
    other = getattr(torch.optim, name)(theirs, **options)

    def compiled(function):
        return tc.compile(function) if mode == "compiled" else function

    if name == "LBFGS":  # chooses its steps by numbers, so that its closure is what compiles
        mine_step, traced = stepper(tc, mine, ours, compiled)
    else:
        mine_step = traced = compiled(stepper(tc, mine, ours)[0])
    their_step, _ = stepper(torch, theirs, other)
    for i in range(STEPS):
        x, y = batch(0 if name == "LBFGS" else i, dtype)
        a = mine_step(tc.from_numpy(x), tc.from_numpy(y))
        b = their_step(torch.from_numpy(x), torch.from_numpy(y))
        close([a], [b])
    close(mine, theirs)
    assert mode == "eager" or traced.traces == 1


def stepper(library, params, opt, compiled=lambda f: f):
    """A training step of these parameters, and what it calls to compute gradients."""

    @compiled
    def gradients(x, y):
        opt.zero_grad()
        loss = model_loss(library, params, x, y)
        loss.backward()
        return loss

    def step(x, y):
        if isinstance(opt, (optim.LBFGS, torch.optim.LBFGS)):
            return opt.step(lambda: gradients(x, y))
        loss = gradients(x, y)
        opt.step()
        return loss

    return step, gradients


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


def as_theirs(value, library=torch):
    """The same nested value with the other library's tensors."""
    if isinstance(value, (tc.Tensor, torch.Tensor)):
        made = value.detach().numpy().copy()
        return torch.tensor(made) if library is torch else tc.tensor(made)
    if isinstance(value, dict):
        return {k: as_theirs(v, library) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_theirs(v, library) for v in value)
    return value


@pytest.mark.parametrize("into", ["tracecc", "torch"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_state_dicts_load_into_the_other_library(name, options, into):
    dtype = precision(name)
    libraries = {"tracecc": tc, "torch": torch}
    source = libraries["torch" if into == "tracecc" else "tracecc"]
    params = {k: [lib.nn.Parameter(lib.tensor(w)) for w in weights(dtype=dtype)] for k, lib in
              (("from", source), ("into", libraries[into]))}  # fmt: skip
    one = getattr(source.optim, name)(params["from"], **options)
    other = getattr(libraries[into].optim, name)(params["into"], **options)
    steps = (
        stepper(source, params["from"], one)[0],
        stepper(libraries[into], params["into"], other)[0],
    )
    for i in range(3):
        steps[0](*(source.from_numpy(v) for v in batch(i, dtype)))
    for p, q in zip(params["from"], params["into"], strict=True):
        q.data = as_theirs(p, libraries[into])
    other.load_state_dict(as_theirs(one.state_dict(), libraries[into]))
    for i in range(3):
        for lib, step in zip((source, libraries[into]), steps, strict=True):
            step(*(lib.from_numpy(v) for v in batch(i, dtype)))
    close(params["from"], params["into"])


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muon_follows_torchs_within_its_bfloat16_products(adjust, mode):
    shapes = [(4, 3), (3, 5)]
    start = [
        np.random.default_rng(i).standard_normal(s).astype("float32") for i, s in enumerate(shapes)
    ]
    results = []
    for library in (tc, torch):
        params = [library.nn.Parameter(library.tensor(w)) for w in start]
        opt = library.optim.Muon(params, lr=0.02, adjust_lr_fn=adjust)

        def step(library=library, params=params, opt=opt):
            opt.zero_grad()
            loss = library.tanh(params[0] @ params[1]).square().sum()
            loss.backward()
            opt.step()
            return loss

        run = tc.compile(step) if mode == "compiled" and library is tc else step
        results.append([run().item() for _ in range(STEPS)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-2)


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
