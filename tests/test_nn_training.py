"""Every layer trains like PyTorch's: 20 steps from the same weights, eager and compiled."""

import numpy as np
import pytest

import tracecc as tc
from tracecc import nn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tiny work; a spinning pool would starve the other library

STEPS = 20


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def copy_weights(mine, theirs):
    state = {k: tc.tensor(v.numpy().copy()) for k, v in theirs.state_dict().items()}
    assert list(mine.state_dict()) == list(state)
    mine.load_state_dict(state)


def first(result):
    """The tensor to train on: a layer's first result."""
    while isinstance(result, tuple):
        result = result[0]
    return result


def trained(library, layer, inputs, mode="eager"):
    """The losses of 20 steps; what to learn is a fixed drawing of the output's shape."""
    params = list(layer.parameters())
    xs = [library.tensor(x) for x in inputs]
    for x in xs:
        if x.is_floating_point():
            x.requires_grad_()
    opt = library.optim.SGD([*params, *(x for x in xs if x.requires_grad)], lr=0.05, momentum=0.5)
    target = library.tensor(draw(*first(layer(*xs)).shape, seed=7))

    def step():
        opt.zero_grad()
        y = first(layer(*xs))
        loss = ((y - target) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    run = tc.compile(step) if mode == "compiled" else step
    losses = [run().item() for _ in range(STEPS)]
    if mode == "compiled":
        assert run.traces <= 2  # the first steps give parameters their gradients
    return losses, params


def compare(mine, theirs, inputs, mode):
    a, p = trained(tc, mine, inputs, mode)
    b, q = trained(torch, theirs, inputs)
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    for x, y in zip(p, q, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-4, atol=2e-5)


IMAGE, LINE, CUBE, TIME = (2, 4, 7, 6), (2, 4, 9), (2, 4, 5, 4, 6), (5, 3, 6)
LAYERS = [
    ("Linear", (9, 3), {}, [LINE]),
    ("Bilinear", (9, 6, 3), {}, [(4, 9), (4, 6)]),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, [LINE]),
    ("Conv2d", (4, 6, 3), {"groups": 2}, [IMAGE]),
    ("Conv3d", (4, 2, 2), {"padding": 1}, [CUBE]),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, [LINE]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "groups": 2}, [IMAGE]),
    ("ConvTranspose3d", (4, 2, 2), {"dilation": 2}, [CUBE]),
    ("BatchNorm1d", (4,), {}, [LINE]),
    ("BatchNorm2d", (4,), {}, [IMAGE]),
    ("BatchNorm3d", (4,), {}, [CUBE]),
    ("InstanceNorm1d", (4,), {"affine": True}, [LINE]),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, [IMAGE]),
    ("InstanceNorm3d", (4,), {}, [CUBE]),
    ("LayerNorm", ((7, 6),), {}, [IMAGE]),
    ("GroupNorm", (2, 4), {}, [IMAGE]),
    ("RMSNorm", (6,), {}, [IMAGE]),
    ("LocalResponseNorm", (3,), {}, [IMAGE]),
    ("MaxPool2d", (2,), {}, [IMAGE]),
    ("AvgPool2d", (3,), {"padding": 1}, [IMAGE]),
    ("LPPool1d", (4, 2), {}, [LINE]),
    ("LPPool2d", (2, 2), {}, [IMAGE]),
    ("LPPool3d", (2, 2), {}, [CUBE]),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, [IMAGE]),
    ("AdaptiveMaxPool1d", (3,), {}, [LINE]),
    ("Unfold", ((2, 3),), {"padding": 1}, [IMAGE]),
    ("Fold", ((4, 5), (2, 2)), {}, [(2, 8, 12)]),
    ("ChannelShuffle", (2,), {}, [IMAGE]),
    ("PixelUnshuffle", (2,), {}, [(1, 2, 4, 6)]),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, [IMAGE]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, [IMAGE]),
    ("Upsample", (), {"scale_factor": 2, "mode": "trilinear"}, [CUBE]),
    ("CircularPad3d", (1,), {}, [CUBE]),
    ("ReflectionPad1d", (2,), {}, [LINE]),
    ("RNN", (6, 5, 2), {"bidirectional": True}, [TIME]),
    ("LSTM", (6, 5, 2), {"bidirectional": True}, [TIME]),
    ("LSTM", (6, 5, 2), {"bidirectional": True, "proj_size": 3}, [TIME]),
    ("GRU", (6, 5, 2), {"batch_first": True}, [TIME]),
    ("RNNCell", (6, 5), {"nonlinearity": "relu"}, [(3, 6)]),
    ("LSTMCell", (6, 5), {}, [(3, 6)]),
    ("GRUCell", (6, 5), {}, [(3, 6)]),
    ("MultiheadAttention", (6, 2), {}, [TIME] * 3),
    ("MultiheadAttention", (6, 2), {"add_bias_kv": True, "add_zero_attn": True}, [TIME] * 3),
    ("TransformerEncoderLayer", (6, 2, 8), {"dropout": 0.0, "norm_first": True}, [TIME]),
    ("TransformerDecoderLayer", (6, 2, 8), {"dropout": 0.0, "activation": "gelu"}, [TIME] * 2),
    ("Transformer", (6, 2, 1, 2, 8), {"dropout": 0.0, "batch_first": True}, [TIME] * 2),
    ("PReLU", (4,), {}, [IMAGE]),
    ("GLU", (1,), {}, [IMAGE]),
    ("CosineSimilarity", (), {}, [(4, 6), (4, 6)]),
    ("PairwiseDistance", (), {"p": 3.0}, [(4, 6), (4, 6)]),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shapes"), LAYERS, ids=[f"{i}-{c[0]}" for i, c in enumerate(LAYERS)]
)
def test_twenty_steps_equal_torchs(name, args, kwargs, shapes, mode):
    mine, theirs = (getattr(library, name)(*args, **kwargs) for library in (nn, torch.nn))
    copy_weights(mine, theirs)
    assert repr(mine) == repr(theirs)
    compare(mine, theirs, [draw(*s, seed=i) for i, s in enumerate(shapes)], mode)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_embeddings_and_bags_train_like_torchs(mode):
    index = np.array([[0, 2, 2], [3, 1, 0]])
    for name, kwargs in [
        ("Embedding", {"padding_idx": 2}),
        ("Embedding", {"scale_grad_by_freq": True}),
        ("EmbeddingBag", {}),
        ("EmbeddingBag", {"mode": "sum", "padding_idx": 1}),
        ("EmbeddingBag", {"mode": "max"}),
    ]:
        mine, theirs = (getattr(library, name)(4, 3, **kwargs) for library in (nn, torch.nn))
        copy_weights(mine, theirs)
        assert repr(mine) == repr(theirs)
        compare(mine, theirs, [index], mode)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_unpooling_puts_maxima_back_like_torchs(dim):
    x = draw(2, 3, *(6, 4, 8)[:dim])
    results = []
    for library in (tc, torch):
        n, t = library.nn, library.tensor(x).requires_grad_()
        y, index = getattr(n, f"MaxPool{dim}d")(2, return_indices=True)(t)
        z = getattr(n, f"MaxUnpool{dim}d")(2)(y, index)
        (z * z).sum().backward()
        results.append((z.detach().numpy(), t.grad.numpy()))
    np.testing.assert_array_equal(results[0], results[1])


def run_packed(library, kind, x, lengths, sort, state, mode="eager", hx=False):
    layer = getattr(library.nn, kind)(3, 4, 2, bidirectional=True)
    layer.load_state_dict({k: library.tensor(v) for k, v in state.items()})
    rnn = library.nn.utils.rnn
    t = library.tensor(x).requires_grad_()
    given = None
    if hx:
        h = library.tensor(draw(4, x.shape[1], 4, seed=3))
        given = (h, h * 0.5) if kind == "LSTM" else h

    def step():
        packed = rnn.pack_padded_sequence(t, lengths, enforce_sorted=not sort)
        y, last = layer(packed, given)
        out, _ = rnn.pad_packed_sequence(y)
        h = last[1] if kind == "LSTM" else last
        loss = (out**2).sum() + (h**3).sum()
        loss.backward()
        return loss, out, h

    loss, out, h = (tc.compile(step) if mode == "compiled" else step)()
    grads = [p.grad.numpy() for p in layer.parameters()] + [t.grad.numpy()]
    return [loss.detach().numpy(), out.detach().numpy(), h.detach().numpy(), *grads]


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_sequences_equal_torchs(kind, mode):
    x = draw(5, 3, 3)
    state = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True).state_dict()
    state = {k: v.numpy() for k, v in state.items()}
    for lengths, sort in (([5, 4, 2], False), ([2, 5, 3], True)):
        mine = run_packed(tc, kind, x, lengths, sort, state, mode, hx=sort)
        theirs = run_packed(torch, kind, x, lengths, sort, state, hx=sort)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_packing_and_padding_equal_torchs():
    parts = [draw(n, 2, seed=n) for n in (2, 4, 1)]
    found = []
    for library in (tc, torch):
        rnn = library.nn.utils.rnn
        tensors = [library.tensor(p) for p in parts]
        packed = rnn.pack_sequence(tensors, enforce_sorted=False)
        padded, lengths = rnn.pad_packed_sequence(packed, True, -1.0, total_length=5)
        left = rnn.pad_sequence(tensors, padding_value=2.0, padding_side="left")
        found.append([*packed, padded, lengths, left, *rnn.unpack_sequence(packed)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(RuntimeError, match="enforce_sorted"):
        tc.nn.utils.rnn.pack_padded_sequence(tc.zeros(3, 2, 1), [2, 3])


LAZY = [
    ("LazyLinear", (3,), (4, 6)), ("LazyConv1d", (3, 2), LINE), ("LazyConv2d", (3, 2), IMAGE),
    ("LazyConv3d", (3, 2), CUBE), ("LazyConvTranspose1d", (3, 2), LINE),
    ("LazyConvTranspose2d", (3, 2), IMAGE), ("LazyConvTranspose3d", (3, 2), CUBE),
    ("LazyBatchNorm1d", (), LINE), ("LazyBatchNorm2d", (), IMAGE), ("LazyBatchNorm3d", (), CUBE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "shape"), LAZY)
def test_lazy_layers_learn_their_size_like_torchs(name, args, shape):
    mine, theirs = (getattr(library, name)(*args) for library in (nn, torch.nn))
    assert repr(mine) == repr(theirs)
    held = list(mine.parameters())
    x = draw(*shape)
    theirs(torch.tensor(x))
    mine(tc.tensor(x))
    assert type(mine).__name__ == type(theirs).__name__ == name.removeprefix("Lazy")
    assert [id(p) for p in mine.parameters()] == [id(p) for p in held]
    assert repr(mine) == repr(theirs)
    copy_weights(mine, theirs)
    compare(mine, theirs, [x], "eager")
    fresh = getattr(nn, name)(*args)
    fresh.load_state_dict(mine.state_dict())
    for p, q in zip(fresh.parameters(), mine.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "new_weight", "new_spectral"])
def test_reparametrised_weights_train_like_torchs(kind, mode):
    made = []
    for library in (nn, torch.nn):
        u = library.utils
        make = {
            "weight_norm": u.weight_norm,
            "spectral_norm": u.spectral_norm,
            "new_weight": u.parametrizations.weight_norm,
            "new_spectral": u.parametrizations.spectral_norm,
        }[kind]
        made.append(make(library.Conv2d(4, 3, 2)))
    copy_weights(*made)
    compare(*made, [draw(*IMAGE)], mode)


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize(("shape", "trivial"), [((4, 4), True), ((3, 5), True), ((5, 3), False)])
def test_orthogonal_weights_train_like_torchs(orthogonal_map, shape, trivial):
    made = [library.Linear(*shape) for library in (nn, torch.nn)]
    copy_weights(*made)
    for layer, library in zip(made, (nn, torch.nn), strict=True):
        library.utils.parametrizations.orthogonal(
            layer, orthogonal_map=orthogonal_map, use_trivialization=trivial
        )
    mine, theirs = made
    np.testing.assert_allclose(
        mine.weight.detach().numpy(), theirs.weight.detach().numpy(), atol=2e-6
    )
    copy_weights(mine, theirs)
    compare(mine, theirs, [draw(6, shape[0])], "eager")
    w = mine.weight.detach().numpy()  # [out, in]
    product = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-5)


def test_parametrizations_chain_assign_and_leave():
    class Symmetric(nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).T

        def right_inverse(self, a):
            return a.triu()

    layer = nn.Linear(3, 3)
    p = nn.utils.parametrize
    p.register_parametrization(layer, "weight", Symmetric())
    assert p.is_parametrized(layer, "weight")
    w = layer.weight.detach().numpy()
    np.testing.assert_array_equal(w, w.T)
    assert repr(layer).startswith("ParametrizedLinear(")
    layer.weight = tc.ones(3, 3)
    assert layer.weight.tolist() == [[1.0] * 3] * 3
    layer(tc.ones(1, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad.shape == (3, 3)
    p.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert sorted(n for n, _ in layer.named_parameters()) == ["bias", "weight"]
    old = nn.utils.weight_norm(nn.Linear(3, 2))
    before = old.weight.detach().numpy()
    nn.utils.remove_weight_norm(old)
    np.testing.assert_array_equal(old.weight.detach().numpy(), before)


def test_new_losses_equal_torchs():
    x, labels = draw(3, 4), np.array([[0, 2, -1, 1], [3, -1, 0, 0], [1, 0, 2, 3]])
    points = [draw(3, 4, seed=i) for i in range(3)]
    steps = draw(6, 2, 4, seed=5)
    for make in (
        lambda n, t: n.MultiLabelMarginLoss()(t(x), t(labels)),
        lambda n, t: n.TripletMarginWithDistanceLoss(swap=True)(*map(t, points)),
        lambda n, t: n.CTCLoss()(
            t(steps).log_softmax(2), t(np.array([[1, 2, 2], [3, 1, 0]])), (6, 5), (3, 2)
        ),
    ):
        a, b = make(nn, tc.tensor).item(), make(torch.nn, torch.tensor).item()
        assert a == pytest.approx(b, rel=1e-5)


def test_adaptive_softmax_equals_torchs():
    x, target = draw(6, 8), np.array([0, 3, 9, 5, 2, 7])
    mine, theirs = (n.AdaptiveLogSoftmaxWithLoss(8, 10, [3, 6], 2.0) for n in (nn, torch.nn))
    copy_weights(mine, theirs)
    a, b = mine(tc.tensor(x), tc.tensor(target)), theirs(torch.tensor(x), torch.tensor(target))
    a.loss.backward()
    b.loss.backward()
    pairs = [(a.output, b.output), (a.loss, b.loss)]
    pairs += [(mine.log_prob(tc.tensor(x)), theirs.log_prob(torch.tensor(x)))]
    pairs += [(p.grad, q.grad) for p, q in zip(mine.parameters(), theirs.parameters(), strict=True)]
    for p, q in pairs:
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert mine.predict(tc.tensor(x)).tolist() == theirs.predict(torch.tensor(x)).tolist()


def test_modules_are_replaced_and_cast_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    model.set_submodule("1.0", nn.Tanh())
    assert isinstance(model[1][0], nn.Tanh)
    assert model.type(tc.float64)[0].weight.dtype is tc.float64
    assert model.to_empty(device="cpu")[0].weight.shape == (2, 2)
