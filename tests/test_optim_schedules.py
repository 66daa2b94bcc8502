"""Learning rate schedules and averaged models: PyTorch's numbers and state dicts."""

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn, optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Decay:
    """A callable object, whose attributes a state dict keeps."""

    def __init__(self):
        self.base = 0.95

    def __call__(self, epoch):
        return self.base**epoch


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4}),
    ("LambdaLR", {"lr_lambda": lambda e: 0.95**e}),
    ("LambdaLR", {"lr_lambda": Decay()}),
    ("MultiplicativeLR", {"lr_lambda": lambda e: 0.95}),
    ("LinearLR", {"total_iters": 4}),
    ("ConstantLR", {"total_iters": 4}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15, "anneal_strategy": "linear"}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "mode": "triangular2"}),
    (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9},
    ),
    (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "scale_fn": lambda x: 0.9**x},
    ),
    ("SWALR", {"swa_lr": 0.01, "anneal_epochs": 5}),
    ("SWALR", {"swa_lr": 0.01, "anneal_epochs": 4, "anneal_strategy": "linear"}),
]
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(SCHEDULES)]


def scheduled(library, name, options, optimizer="SGD"):
    settings = {"momentum": 0.9} if optimizer == "SGD" else {}
    param = library.nn.Parameter(library.ones(1))
    opt = getattr(library.optim, optimizer)([param], lr=0.4, **settings)
    home = library.optim.swa_utils if name == "SWALR" else library.optim.lr_scheduler
    return opt, getattr(home, name)(opt, **options)


def rates(opt):
    group = opt.param_groups[0]
    return [group["lr"], group["betas"][0] if "betas" in group else group["momentum"]]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=IDS)
def test_schedules_equal_torchs(name, options, optimizer):
    opt, ours = scheduled(tc, name, options, optimizer)
    other, theirs = scheduled(torch, name, options, optimizer)
    for _ in range(14):
        np.testing.assert_allclose(rates(opt), rates(other), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-9, atol=1e-12)
        ours.step()
        theirs.step()


@pytest.mark.parametrize("into", [tc, torch], ids=["tracecc", "torch"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=IDS)
def test_schedules_load_the_other_librarys_state(name, options, into):
    source = torch if into is tc else tc
    opt, ours = scheduled(source, name, options)
    for _ in range(5):
        ours.step()
    other, theirs = scheduled(into, name, options)
    theirs.load_state_dict(ours.state_dict())
    for mine, taken in zip(other.param_groups, opt.param_groups, strict=True):
        mine.update({k: v for k, v in taken.items() if k != "params"})
    for _ in range(8):
        ours.step()
        theirs.step()
        np.testing.assert_allclose(rates(opt), rates(other), rtol=1e-9, atol=1e-12)


def test_jumping_to_an_epoch_equals_torchs():
    for name, options in [
        ("StepLR", {"step_size": 3}),
        ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ]:
        opt, ours = scheduled(tc, name, options)
        other, theirs = scheduled(torch, name, options)
        for epoch in (4, 7, 1):
            ours.step(epoch)
            theirs.step(epoch)
            np.testing.assert_allclose(rates(opt), rates(other), rtol=1e-9)


def composed(library, kind):
    opt = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.4)
    s = library.optim.lr_scheduler
    if kind == "sequential":
        parts = [s.LinearLR(opt, 0.1, total_iters=3), s.ExponentialLR(opt, 0.8), s.StepLR(opt, 2)]
        return opt, s.SequentialLR(opt, parts, [3, 6])
    parts = [s.ConstantLR(opt, 0.1, total_iters=4), s.ExponentialLR(opt, 0.9)]
    parts += [s.CosineAnnealingLR(opt, 6, 0.01), s.PolynomialLR(opt, 9)]
    return opt, s.ChainedScheduler(parts)


@pytest.mark.parametrize("kind", ["sequential", "chained"])
def test_composed_schedules_equal_torchs_and_load_its_state(kind):
    opt, ours = composed(tc, kind)
    other, theirs = composed(torch, kind)
    for i in range(12):
        assert opt.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"], rel=1e-9)
        ours.step()
        theirs.step()
        if i == 3:
            opt, fresh = composed(tc, kind)
            fresh.load_state_dict(theirs.state_dict())
            opt.param_groups[0]["lr"] = other.param_groups[0]["lr"]
            ours = fresh


def test_reduce_on_plateau_equals_torchs_and_loads_its_state():
    metrics = [1.0, 0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    for options in ({}, {"mode": "max"}, {"threshold_mode": "abs", "min_lr": 0.01}):
        made = []
        for library in (tc, torch):
            opt = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.4)
            kind = library.optim.lr_scheduler.ReduceLROnPlateau
            made.append((opt, kind(opt, patience=1, cooldown=1, **options)))
        for i, metric in enumerate(metrics):
            for _, plateau in made:
                plateau.step(metric)
            a, b = (opt.param_groups[0]["lr"] for opt, _ in made)
            assert a == pytest.approx(b, rel=1e-12)
            if i == 5:
                made[0][1].load_state_dict(made[1][1].state_dict())


def test_a_schedule_never_retraces_a_compiled_step():
    w = nn.Parameter(tc.ones(3))
    opt = optim.SGD([w], lr=0.4, momentum=0.9)
    schedule = optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=10)

    @tc.compile
    def step():
        opt.zero_grad()
        (w * w).sum().backward()
        opt.step()

    reference = torch.nn.Parameter(torch.ones(3))
    other = torch.optim.SGD([reference], lr=0.4, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(other, 0.5, total_steps=10)
    for _ in range(9):
        step()
        schedule.step()
        other.zero_grad()
        (reference * reference).sum().backward()
        other.step()
        theirs.step()
    assert step.traces == 1
    np.testing.assert_allclose(w.detach().numpy(), reference.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["swa", "ema", "ema_multi", "buffers"])
def test_averaged_models_equal_torchs(kind):
    results = []
    state = None
    for library in (torch, tc):
        utils = library.optim.swa_utils
        model = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.BatchNorm1d(4))
        if state is None:
            state = {k: v.numpy().copy() for k, v in model.state_dict().items()}
        model.load_state_dict({k: library.tensor(v) for k, v in state.items()})
        options = {
            "swa": {},
            "ema": {"avg_fn": utils.get_ema_avg_fn(0.8)},
            "ema_multi": {"multi_avg_fn": utils.get_ema_multi_avg_fn(0.8)},
            "buffers": {"use_buffers": True, "avg_fn": utils.get_ema_avg_fn(0.5)},
        }[kind]
        averaged = utils.AveragedModel(model, **options)
        opt = library.optim.SGD(model.parameters(), lr=0.1)
        data = np.random.default_rng(0).standard_normal((5, 6, 3)).astype("float32")
        for x in data:
            opt.zero_grad()
            model(library.tensor(x)).square().mean().backward()
            opt.step()
            averaged.update_parameters(model)
        utils.update_bn([library.tensor(x) for x in data], averaged)
        results.append({k: v.numpy() for k, v in averaged.state_dict().items()})
    assert list(results[0]) == list(results[1])
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
