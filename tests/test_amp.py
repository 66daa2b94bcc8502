"""Mixed precision beside PyTorch's: dtypes of every region, numbers, the scaler's decisions."""

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")


def kinds(library, name, **options):
    F, nn = library.nn.functional, library.nn
    x, w = library.tensor(X), library.tensor(X)
    image = library.tensor(X.reshape(1, 1, 4, 4))
    with library.autocast("cpu", getattr(library, name), **options):
        y = x @ w
        found = [
            y, library.mm(x, w), F.linear(x, w, w[0]), nn.Linear(4, 2)(x), F.conv2d(image, image),
            y + 1, y + x, y.relu(), F.softmax(y, -1), F.mse_loss(y, x),
            F.cross_entropy(y, library.tensor([0, 1, 2, 3])), library.cat([y, x]),
            x.double() @ w.double(), x + w, F.scaled_dot_product_attention(*[image] * 3),
        ]  # fmt: skip
        with library.autocast("cpu", enabled=False):
            found.append(x @ w)
    found.append(x @ w)
    return [str(t.dtype).split(".")[-1] for t in found], found[0]


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_regions_give_torchs_dtypes(name):
    mine, a = kinds(tc, name)
    theirs, b = kinds(torch, name)
    assert mine == theirs
    np.testing.assert_allclose(a.float().numpy(), b.float().numpy(), rtol=1e-2, atol=1e-2)
    assert set(kinds(tc, name, enabled=False)[0]) == {"float32", "float64"}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_training_in_a_region_follows_torch(mode):
    losses = []
    for library in (tc, torch):
        model = library.nn.Sequential(
            library.nn.Linear(4, 8), library.nn.ReLU(), library.nn.Linear(8, 1)
        )
        with library.no_grad():
            for i, p in enumerate(model.parameters()):
                values = np.random.default_rng(i).standard_normal(tuple(p.shape)) * 0.3
                p.copy_(library.tensor(values.astype("float32")))
        opt = library.optim.SGD(model.parameters(), lr=0.1)
        x = library.tensor(X)

        def step(library=library, model=model, opt=opt, x=x):
            opt.zero_grad()
            with library.autocast("cpu"):
                loss = library.nn.functional.mse_loss(model(x), x[:, :1])
            loss.backward()
            opt.step()
            return loss

        run = tc.compile(step) if mode == "compiled" and library is tc else step
        losses.append([run().item() for _ in range(10)])
        assert all(p.grad.dtype is library.float32 for p in model.parameters())
    np.testing.assert_allclose(losses[0], losses[1], rtol=5e-2)


def test_a_region_around_a_compiled_call_retraces_once():
    double = tc.compile(lambda a: a @ a)
    x = tc.tensor(X)
    for _ in range(2):
        assert double(x).dtype is tc.float32
        with tc.autocast("cpu"):
            assert double(x).dtype is tc.bfloat16
    assert double.traces == 2


def test_the_scaler_decides_like_torchs():
    runs = []
    for library in (tc, torch):
        p = library.nn.Parameter(library.ones(2))
        opt = library.optim.SGD([p], lr=0.1)
        scaler = library.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        seen = []
        for factor in (1.0, 2.0, float("inf"), 1.0, 1.0, 1.0):
            opt.zero_grad()
            scaler.scale((p * factor).sum()).backward()
            if factor == 2.0:
                scaler.unscale_(opt)
                library.nn.utils.clip_grad_norm_([p], 1.0)
            scaler.step(opt)
            scaler.update()
            seen += [scaler.get_scale(), *p.tolist()]
        runs.append((seen, scaler.state_dict()))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-6)
    assert runs[0][1] == runs[1][1]
    scaler, opt = tc.amp.GradScaler(), tc.optim.SGD([tc.nn.Parameter(tc.ones(1))])
    scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(opt)
