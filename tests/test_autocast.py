"""Autocast regions: the dtype of every function's result beside PyTorch's; casts that are kept."""

import warnings

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")

R = np.random.default_rng(0)
MATRIX = (R.standard_normal((4, 4)) * 0.3 + 2 * np.eye(4)).astype("f4")
VECTOR, CUBE = R.standard_normal(4).astype("f4"), R.standard_normal((2, 4, 4)).astype("f4")

# In a region: y, v, b, s are float32 (matrix, vector, batch, positive definite); x, h, hs, hv, h4,
# h5, p are of the region's dtype (matrix, positive definite, batch, vector, image, volume, shares).
OPERATIONS = """
L.matmul(y, y) | x @ y | y.matmul(y) | y.T @ y | L.mm(y, y) | L.mv(y, v) | L.dot(v, v)
L.bmm(b, b) | L.addmm(y, y, y) | L.addmv(v, y, v) | L.addr(y, v, v) | L.baddbmm(b, b, b)
L.addbmm(y, b, b) | L.outer(v, v) | L.inner(v, v) | L.inner(y, y) | L.kron(y, y)
L.einsum("ij,jk->ik", y, y) | L.einsum("bij,bjk", b, b) | L.einsum("i,i->", v, v)
L.einsum("ij->ji", y) | L.einsum("ij,ij->ij", y, y) | L.tensordot(y, y, 1)
L.chain_matmul(y, y, y) | L.linalg.multi_dot([y, y, y]) | L.linalg.vecdot(y, y)
L.linalg.matrix_power(y, 2) | L.matrix_exp(y) | F.linear(y, y, v) | nn.Linear(4, 4)(x)
nn.Bilinear(4, 4, 2)(y, y) | F.conv1d(b, b) | F.conv2d(i4, i4[:1]) | F.conv3d(h5, h5)
F.conv_transpose1d(b, b.transpose(0, 1)) | F.conv_transpose2d(i4, i4[:1]) | F.prelu(y, v[:1])
F.prelu(x, v[:1]) | F.scaled_dot_product_attention(b, b, b) | nn.MultiheadAttention(4, 2)(b, b, b)
nn.LSTM(4, 4)(b)[0] | nn.LSTM(4, 4)(b)[1] | nn.GRU(4, 4)(b)[0] | nn.RNN(4, 4)(b)[0]
nn.LSTMCell(4, 4)(y) | nn.GRUCell(4, 4)(y) | nn.RNNCell(4, 4)(y)
nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)(b) | y.double() @ y.double()
nn.LayerNorm(4)(x) | nn.LayerNorm(4)(y) | nn.GroupNorm(1, 1)(h4) | nn.BatchNorm2d(1)(h4)
nn.BatchNorm2d(1).eval()(h4) | nn.InstanceNorm2d(1)(h4) | nn.RMSNorm(4)(x) | nn.RMSNorm(4)(y)
F.normalize(x) | F.local_response_norm(h4, 2) | F.local_response_norm(hs, 2)
F.softmax(x, -1) | F.log_softmax(x, -1) | x.softmax(-1) | F.gelu(x) | F.silu(x) | L.tanh(x)
L.exp(x) | x**2 | 2.0**x | L.pow(x, y) | L.sum(x) | L.mean(x) | L.var(x) | L.norm(x) | x.norm()
L.prod(x) | x.prod() | L.prod(x, 1) | L.trace(x) | x.trace() | L.cumsum(x, 0) | L.logsumexp(x, 0)
L.cumprod(x, 0) | L.dist(x, x) | L.cdist(x, y) | F.cosine_similarity(x, y) | L.quantile(x, 0.5)
L.nanquantile(x, 0.5) | F.mse_loss(x, x) | F.mse_loss(x, y) | F.l1_loss(x, y)
F.smooth_l1_loss(x, x) | F.huber_loss(x, x) | F.binary_cross_entropy(p, p) | F.kl_div(x, p)
F.binary_cross_entropy_with_logits(x, p) | F.cross_entropy(x, t) | F.nll_loss(x, t)
F.soft_margin_loss(x, L.sign(y)) | F.hinge_embedding_loss(x, L.sign(y)) | F.poisson_nll_loss(x, y)
F.multi_margin_loss(x, t) | F.margin_ranking_loss(hv, hv, L.ones(4))
F.cosine_embedding_loss(x, x, L.ones(4)) | F.triplet_margin_loss(x, x, x)
F.multilabel_soft_margin_loss(x, p) | F.gaussian_nll_loss(x, y, L.abs(y) + 1)
F.avg_pool1d(hs, 2) | F.avg_pool2d(h4, 2) | F.avg_pool3d(h5, 2) | F.max_pool2d(h4, 2)
F.max_pool3d(h5, 2) | F.adaptive_avg_pool2d(h4, 2) | F.adaptive_avg_pool3d(h5, 2)
F.adaptive_max_pool2d(h4, 2) | F.adaptive_max_pool3d(h5, 2)
F.max_unpool2d(*F.max_pool2d(h4, 2, return_indices=True), 2)
F.pad(hs, (1, 1)) | F.pad(hs, (1, 1), mode="reflect") | F.pad(h4, (1,) * 4, mode="reflect")
F.pad(h5, (1,) * 6, mode="reflect") | F.pad(h5, (1,) * 6, mode="replicate")
F.pad(h4, (1,) * 4, mode="circular") | F.interpolate(h4, scale_factor=2) | F.dropout(x)
F.grid_sample(h4, L.zeros(2, 2, 2, 2), align_corners=False) | F.unfold(h4, 2)
L.cat([x, y]) | L.stack([y, x]) | L.hstack([x, y]) | L.index_copy(y, 0, t, x)
L.index_copy(x, 0, t, y) | L.index_copy(x, 0, t, x) | L.where(x > 0, x, y) | x + y | x * y
L.addcmul(x, x, y) | L.maximum(x, y) | L.atan2(x, y) | L.lerp(x, x, 0.5)
L.linalg.inv(h) | L.linalg.det(s) | L.linalg.cholesky(h) | L.linalg.eigvalsh(h) | L.linalg.qr(h)
L.linalg.svd(h) | L.linalg.matrix_rank(h) | L.linalg.solve(h, x) | L.linalg.norm(h)
L.linalg.eigvals(h) | L.inverse(h) | L.pinverse(h) | L.cholesky(h) | L.geqrf(h)
L.triangular_solve(x, h) | L.cholesky_solve(x, h) | L.fft.fft(x) | L.fft.rfft(x)
L.sort(x) | L.topk(x, 2) | L.var_mean(x) | L.nanmean(x) | L.logaddexp(x, y)
"""


def names_of(L, dtype):
    def low(a):
        return L.tensor(a).to(dtype)

    y, b = L.tensor(MATRIX), L.tensor(CUBE)
    s = y @ y.T + 4 * L.eye(4)
    return {
        "L": L, "F": L.nn.functional, "nn": L.nn, "y": y, "b": b, "v": L.tensor(VECTOR), "s": s,
        "t": L.tensor([0, 1, 2, 3]), "i4": b.reshape(2, 1, 4, 4), "x": low(MATRIX),
        "hs": low(CUBE), "h4": low(CUBE.reshape(2, 1, 4, 4)), "h": s.to(dtype),
        "h5": low(np.concatenate([CUBE, CUBE]).reshape(1, 1, 4, 4, 4)), "hv": low(VECTOR),
        "p": low(np.abs(MATRIX) / 8),
    }  # fmt: skip


def kinds(result):
    if isinstance(result, tuple):
        return tuple(map(kinds, result))
    return str(result.dtype).split(".")[-1] if result is not None else None


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_every_function_gives_torchs_dtype(half):
    differ, count = {}, 0
    libraries = {L: names_of(L, getattr(L, half)) for L in (tc, torch)}
    for text in OPERATIONS.replace("\n", " | ").strip(" |").split(" | "):
        found = []
        for L, names in libraries.items():
            try:
                with warnings.catch_warnings(), L.autocast("cpu", getattr(L, half)):
                    warnings.simplefilter("ignore")
                    found.append(kinds(eval(text, dict(names))))
            except RuntimeError as error:
                if L is tc:
                    raise AssertionError(text) from error
                found.append(None)  # PyTorch has no kernel: there is nothing to compare
        count += 1
        if found[1] is not None and found[0] != found[1]:
            differ[text] = found
    assert differ == {}
    assert count > 150


def test_casts_of_parameters_are_kept_until_the_outermost_region_ends():
    w, x = tc.nn.Parameter(tc.tensor(MATRIX)), tc.tensor(MATRIX)

    def cast_of(y):
        return next(to[0] for to in y.grad_fn.edges if to is not None)

    with tc.autocast("cpu"):
        first, second = x @ w, x @ w
        with tc.autocast("cpu", enabled=False):
            assert (x @ w).dtype is tc.float32
            with tc.autocast("cpu"):
                inner = x @ w
        assert cast_of(first) is cast_of(second) is cast_of(inner)
        with tc.no_grad():
            w.mul_(2)
        changed = x @ w
        assert cast_of(changed) is not cast_of(first)
        with tc.autocast("cpu", cache_enabled=False):
            assert cast_of(x @ w) is not cast_of(changed)
        assert cast_of(x @ w) is cast_of(changed)
        tc.clear_autocast_cache()
        assert cast_of(x @ w) is not cast_of(changed)
    with tc.autocast("cpu"):
        assert cast_of(x @ w) is not cast_of(changed)
    before, after = (t.detach().float().numpy() for t in (first, changed))
    np.testing.assert_allclose(after, 2 * before, rtol=1e-2)
    (first + second).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.tile(2 * MATRIX.sum(0)[:, None], 4), rtol=2e-2)


def test_what_was_cast_without_gradients_is_cast_again_with_them():
    w, x = tc.nn.Parameter(tc.tensor(MATRIX)), tc.tensor(MATRIX)
    with tc.autocast("cpu"):
        with tc.no_grad():
            assert not (x @ w).requires_grad
        assert (x @ w).requires_grad


def test_a_dtype_that_is_not_short_warns_and_casts_nothing():
    with pytest.warns(UserWarning, match="casts nothing"), tc.autocast("cpu", tc.float64):
        assert (tc.ones(2, 2) @ tc.ones(2, 2)).dtype is tc.float32


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_compile_in_a_region(kind):
    layer = getattr(tc.nn, kind)(4, 4)
    x = tc.tensor(CUBE)

    @tc.compile
    def loss(x):
        with tc.autocast("cpu"):
            return layer(x)[0].float().square().sum()

    def eager(x):
        with tc.autocast("cpu"):
            return layer(x)[0].float().square().sum()

    results = []
    for function in (loss, eager):
        layer.zero_grad()
        value = function(x)
        value.backward()
        results.append([value.item(), *(p.grad.numpy().copy() for p in layer.parameters())])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=5e-2, atol=5e-2)


def test_normalisation_of_short_floats_keeps_their_dtype_and_computes_in_float32():
    x = R.standard_normal((3, 8, 5)).astype("f4")
    results = []
    for L in (tc, torch):
        half = L.tensor(x).to(L.bfloat16).requires_grad_()
        w = L.tensor(VECTOR[[0, 1, 2, 3, 0]], requires_grad=True)
        F = L.nn.functional
        ys = [
            F.layer_norm(half, (5,), w, w),
            F.rms_norm(half, (5,), w),
            F.group_norm(half.transpose(1, 2), 1, w, w),
            F.batch_norm(half.transpose(1, 2), w.detach(), w.detach().abs() + 1, w, w),
        ]
        assert all(y.dtype is L.bfloat16 for y in ys)
        sum(y.float().square().sum() for y in ys).backward()
        assert half.grad.dtype is L.bfloat16
        assert w.grad.dtype is L.float32
        results.append([y.detach().float().numpy() for y in ys] + [w.grad.numpy()])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1.6e-2, atol=1.6e-2)


def small_cnn(nn):
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 24, 1), nn.GELU(), nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 10),
    )  # fmt: skip


@pytest.mark.parametrize("features", ["", "-avx512bf16"])
def test_a_compiled_network_trains_in_a_region_as_torch_does(features, monkeypatch):
    monkeypatch.setenv("TRACECC_CPU_FEATURES", features)
    numbers = np.random.default_rng(3)
    x = numbers.standard_normal((10, 3, 8, 8)).astype("f4")
    start, losses = None, []
    for L in (torch, tc):
        model = small_cnn(L.nn)
        start = start or {k: v.numpy().copy() for k, v in model.state_dict().items()}
        model.load_state_dict({k: L.from_numpy(v.copy()) for k, v in start.items()})
        opt = L.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        images, labels = L.from_numpy(x), L.arange(10)

        def step(L=L, model=model, opt=opt, images=images, labels=labels):
            opt.zero_grad()
            with L.autocast("cpu"):
                loss = L.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            opt.step()
            return loss

        run = step if L is torch else tc.compile(step)
        losses.append([float(run().detach()) for _ in range(12)])
    np.testing.assert_allclose(losses[1][:4], losses[0][:4], rtol=3e-2, atol=3e-2)
    assert losses[1][-1] < 0.3 * losses[1][0]
