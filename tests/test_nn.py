"""Layers and losses beside PyTorch's, values and gradients from the same weights; Module itself."""

import copy
import pickle

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def close(a, b, tolerance=3e-5):
    a, b = (t.detach().numpy() if hasattr(t, "detach") else np.asarray(t) for t in (a, b))
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def leaves(result):
    if isinstance(result, (tuple, list)):
        return [t for r in result for t in leaves(r)]
    return [] if result is None else [result]


def beside(mine, theirs, *inputs):
    """Compares results and the gradients of every floating point input; returns nothing."""
    a = [tc.from_numpy(np.array(x)) for x in inputs]
    b = [torch.from_numpy(np.array(x)) for x in inputs]
    for t in a + b:
        if t.is_floating_point():
            t.requires_grad_()
    first, second = leaves(mine(*a)), leaves(theirs(*b))
    assert len(first) == len(second)
    for x, y in zip(first, second, strict=True):
        close(x, y)
    roots = [
        (x, y, draw(*y.shape, seed=9))
        for x, y in zip(first, second, strict=True)
        if y.requires_grad
    ]
    if roots:
        sum((x * tc.from_numpy(np.array(g))).sum() for x, _, g in roots).backward()
        sum((y * torch.from_numpy(np.array(g))).sum() for _, y, g in roots).backward()
        for x, y in zip(a, b, strict=True):
            assert (x.grad is None) == (y.grad is None)
            if y.grad is not None:
                close(x.grad, y.grad, 1e-4)


def same_weights(name, *args, **kwargs):
    """The layer of this name in both libraries, with equal weights."""
    mine, theirs = (getattr(n, name)(*args, **kwargs) for n in (nn, torch.nn))
    state = theirs.state_dict()
    assert list(mine.state_dict()) == list(state)
    mine.load_state_dict({k: tc.from_numpy(v.numpy().copy()) for k, v in state.items()})
    return mine, theirs


def compare_layer(mine, theirs, *inputs):
    beside(mine, theirs, *inputs)
    for (name, p), (_, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            close(p.grad, q.grad, 1e-4)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        close(p, q)


IMAGE, LINE, CUBE = (2, 4, 7, 6), (2, 4, 9), (2, 4, 5, 4, 6)
LAYERS = [
    ("Linear", (4, 3), {}, (5, 2, 4)),
    ("Linear", (4, 3), {"bias": False}, (4,)),
    ("Identity", (), {}, (3,)),
    ("Flatten", (), {}, IMAGE),
    ("Unflatten", (1, (2, 2)), {}, IMAGE),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, LINE),
    ("Conv2d", (4, 6, 3), {"padding": "same", "dilation": 2}, IMAGE),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "groups": 2, "bias": False}, IMAGE),
    ("Conv2d", (4, 4, 3), {"padding": 1, "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 4, 3), {"padding": (1, 2), "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 6, 3), {}, (4, 7, 6)),
    ("Conv3d", (4, 2, 2), {"padding": 1}, CUBE),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, LINE),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "groups": 2}, IMAGE),
    ("ConvTranspose3d", (4, 2, 2), {"dilation": 2}, CUBE),
    ("BatchNorm1d", (4,), {}, LINE),
    ("BatchNorm1d", (4,), {"momentum": None}, (6, 4)),
    ("BatchNorm2d", (4,), {"eps": 1e-3, "momentum": 0.3}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False, "track_running_stats": False}, IMAGE),
    ("BatchNorm3d", (4,), {}, CUBE),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, IMAGE),
    ("LayerNorm", ((6,),), {}, IMAGE),
    ("LayerNorm", ((7, 6),), {"bias": False}, IMAGE),
    ("RMSNorm", (6,), {}, IMAGE),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, IMAGE),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, LINE),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", (3,), {"stride": 2, "ceil_mode": True, "return_indices": True}, IMAGE),
    ("MaxPool3d", (2,), {"dilation": 2, "stride": 1}, CUBE),
    ("AvgPool1d", (3,), {"stride": 2, "ceil_mode": True}, LINE),
    ("AvgPool2d", (3,), {"padding": 1, "count_include_pad": False}, IMAGE),
    ("AvgPool2d", (3,), {"padding": 1, "ceil_mode": True, "stride": 2}, IMAGE),
    ("AvgPool3d", (2,), {"divisor_override": 3}, CUBE),
    ("AdaptiveAvgPool1d", (4,), {}, LINE),
    ("AdaptiveAvgPool2d", ((3, None),), {}, IMAGE),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("AdaptiveAvgPool3d", (2,), {}, CUBE),
    ("AdaptiveMaxPool1d", (3,), {}, LINE),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, IMAGE),
    ("RNN", (4, 5, 2), {"nonlinearity": "relu"}, (6, 3, 4)),
    ("LSTM", (4, 5), {"batch_first": True}, (3, 6, 4)),
    ("LSTM", (4, 5, 2), {"bidirectional": True}, (6, 3, 4)),
    ("LSTM", (4, 5), {"bias": False}, (6, 4)),
    ("GRU", (4, 5, 2), {"bidirectional": True, "batch_first": True}, (3, 6, 4)),
    ("RNNCell", (4, 5), {}, (3, 4)),
    ("LSTMCell", (4, 5), {}, (3, 4)),
    ("GRUCell", (4, 5), {}, (3, 4)),
    ("PReLU", (4,), {}, IMAGE),
    ("ReflectionPad2d", ((1, 2, 3, 1),), {}, IMAGE),
    ("ReplicationPad2d", (2,), {}, IMAGE),
    ("ConstantPad1d", ((1, 2), 3.5), {}, LINE),
    ("ZeroPad2d", ((1, -1, 0, 2),), {}, IMAGE),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", (), {"size": (5, 9), "mode": "bilinear"}, IMAGE),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, IMAGE),
    ("PixelShuffle", (2,), {}, IMAGE),
    ("Softmax", (1,), {}, IMAGE),
    ("LogSoftmax", (-1,), {}, IMAGE),
    ("Softmin", (1,), {}, IMAGE),
    ("TransformerEncoderLayer", (6, 2, 8), {"dropout": 0.0}, (5, 3, 6)),
]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shape"), LAYERS, ids=[f"{i}-{c[0]}" for i, c in enumerate(LAYERS)]
)
def test_layer_equals_torchs_in_training_and_evaluation(name, args, kwargs, shape):
    mine, theirs = same_weights(name, *args, **kwargs)
    compare_layer(mine, theirs, draw(*shape))
    compare_layer(mine, theirs, draw(*shape, seed=1))
    mine.eval(), theirs.eval()
    compare_layer(mine, theirs, draw(*shape, seed=2))


PRINTED = [c for c in LAYERS if c[0] not in ("TransformerEncoderLayer", "PixelShuffle")]


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), PRINTED)
def test_layers_print_like_torchs(name, args, kwargs, shape):
    assert repr(getattr(nn, name)(*args, **kwargs)) == repr(
        getattr(torch.nn, name)(*args, **kwargs)
    )


ACTIVATIONS = [
    "ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus",
    "Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Tanhshrink", "Softshrink", "Hardshrink",
    "Hardtanh", "Hardsigmoid", "Hardswish", "GLU",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_torchs_at_every_scale(name):
    x = np.concatenate([draw(50), 5 * draw(20, seed=1), 60 * draw(10, seed=2)])
    beside(getattr(nn, name)(), getattr(torch.nn, name)(), x)
    assert repr(getattr(nn, name)()) == repr(getattr(torch.nn, name)())


def test_gelu_by_tanh_threshold_and_random_slopes():
    x = draw(40)
    beside(nn.GELU("tanh"), torch.nn.GELU("tanh"), x)
    beside(nn.Threshold(0.1, 20.0), torch.nn.Threshold(0.1, 20.0), x)
    beside(nn.RReLU().eval(), torch.nn.RReLU().eval(), x)


def probabilities(*shape):
    x = np.exp(draw(*shape, seed=5))
    return (x / x.sum(1, keepdims=True)).astype("float32")


SIGNS = np.sign(draw(6, seed=3)).astype("float32")
CLASSES = np.array([0, 2, -100, 1, 3, 2])
LOSSES = [
    ("CrossEntropyLoss", {}, (draw(6, 4), CLASSES)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, (draw(6, 4), CLASSES)),
    ("CrossEntropyLoss", {"ignore_index": 2, "reduction": "sum"}, (draw(6, 4), CLASSES.clip(0))),
    ("CrossEntropyLoss", {"weight": draw(4) ** 2}, (draw(6, 4), CLASSES)),
    ("CrossEntropyLoss", {"weight": draw(4) ** 2, "label_smoothing": 0.2}, (draw(6, 4), CLASSES)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "reduction": "none"}, (draw(6, 4), CLASSES)),
    ("CrossEntropyLoss", {}, (draw(6, 4), probabilities(6, 4))),
    ("CrossEntropyLoss", {"label_smoothing": 0.3}, (draw(6, 4), probabilities(6, 4))),
    ("CrossEntropyLoss", {}, (draw(2, 4, 3), np.array([[0, 1, 3], [2, 2, 1]]))),
    ("CrossEntropyLoss", {}, (draw(4), np.array(2))),
    ("NLLLoss", {}, (draw(6, 4), CLASSES)),
    ("NLLLoss", {"weight": draw(4) ** 2}, (draw(6, 4), CLASSES)),
    ("MSELoss", {}, (draw(6), draw(6, seed=1))),
    ("MSELoss", {"reduction": "none"}, (draw(6), draw(6, seed=1))),
    ("L1Loss", {"reduction": "sum"}, (draw(6), draw(6, seed=1))),
    ("SmoothL1Loss", {"beta": 0.5}, (draw(6), draw(6, seed=1))),
    ("HuberLoss", {"delta": 0.7}, (draw(6), draw(6, seed=1))),
    ("BCELoss", {}, (probabilities(6, 4), probabilities(6, 4))),
    ("BCEWithLogitsLoss", {}, (5 * draw(6, 4), probabilities(6, 4))),
    ("BCEWithLogitsLoss", {"pos_weight": draw(4) ** 2}, (draw(6, 4), probabilities(6, 4))),
    ("KLDivLoss", {"reduction": "batchmean"}, (draw(6, 4), probabilities(6, 4))),
    ("KLDivLoss", {"log_target": True}, (draw(6, 4), draw(6, 4, seed=1))),
    ("PoissonNLLLoss", {"full": True}, (draw(6), 3 * probabilities(6, 1)[:, 0])),
    ("GaussianNLLLoss", {}, (draw(6), draw(6, seed=1), draw(6, seed=2) ** 2)),
    ("HingeEmbeddingLoss", {}, (draw(6), SIGNS)),
    ("SoftMarginLoss", {}, (draw(6), SIGNS)),
    ("MarginRankingLoss", {"margin": 0.3}, (draw(6), draw(6, seed=1), SIGNS)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, (draw(6, 4), draw(6, 4, seed=1), SIGNS)),
    ("TripletMarginLoss", {"swap": True}, (draw(6, 4), draw(6, 4, seed=1), draw(6, 4, seed=2))),
    ("MultiMarginLoss", {}, (draw(6, 4), CLASSES.clip(0))),
    ("MultiLabelSoftMarginLoss", {}, (draw(6, 4), probabilities(6, 4).round())),
]
NO_TARGET_GRADIENT = ("BCE", "HingeEmbedding", "SoftMargin", "MarginRanking", "CosineEmbedding")


@pytest.mark.parametrize(
    ("name", "options", "inputs"), LOSSES, ids=[f"{i}-{c[0]}" for i, c in enumerate(LOSSES)]
)
def test_loss_equals_torchs(name, options, inputs):
    def made(library, convert):
        given = {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return getattr(library, name)(**given)

    mine, theirs = made(nn, tc.from_numpy), made(torch.nn, torch.from_numpy)
    if name.startswith(NO_TARGET_GRADIENT) or name.startswith("MultiLabel"):
        target = inputs[-1]
        beside(
            lambda *a: mine(*a, tc.from_numpy(target)),
            lambda *a: theirs(*a, torch.from_numpy(target)),
            *inputs[:-1],
        )
    else:
        beside(mine, theirs, *inputs)


def test_embedding_equals_torchs_and_its_padding_gets_no_gradient():
    mine, theirs = same_weights("Embedding", 7, 3, padding_idx=2)
    compare_layer(mine, theirs, np.array([[0, 2, 6], [2, 2, 1]]))
    assert mine.weight.grad[2].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torchs_with_and_without_masks(causal):
    q, k, v = (draw(2, 3, 5, 4, seed=i) for i in range(3))
    for scale in (None, 0.3):
        beside(
            lambda *a, s=scale: F.scaled_dot_product_attention(*a, is_causal=causal, scale=s),
            lambda *a, s=scale: TF.scaled_dot_product_attention(*a, is_causal=causal, scale=s),
            q, k, v,
        )  # fmt: skip
    mask = draw(5, 5, seed=4) > -0.5
    for m in (mask, mask.astype("float32")):
        beside(
            lambda *a, m=m: F.scaled_dot_product_attention(*a, attn_mask=tc.from_numpy(m)),
            lambda *a, m=m: TF.scaled_dot_product_attention(*a, attn_mask=torch.from_numpy(m)),
            q, k, v,
        )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"kdim": 5, "vdim": 7}])
def test_multihead_attention_equals_torchs(options):
    mine, theirs = same_weights("MultiheadAttention", 6, 2, **options)
    q = draw(4, 3, 6)
    k, v = draw(4, 3, options.get("kdim", 6), seed=1), draw(4, 3, options.get("vdim", 6), seed=2)
    compare_layer(mine, theirs, q, k, v)


def test_two_layer_recurrent_networks_take_and_return_states():
    mine, theirs = same_weights("LSTM", 4, 5, 2)
    beside(
        lambda x, h, c: mine(x, (h, c)),
        lambda x, h, c: theirs(x, (h, c)),
        draw(6, 3, 4), draw(2, 3, 5, seed=1), draw(2, 3, 5, seed=2),
    )  # fmt: skip


def test_dropout_keeps_the_mean_and_the_scale():
    tc.manual_seed(0)
    y = nn.Dropout(0.25)(tc.ones(20_000))
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(y.mean().item() - 1) < 0.02
    channels = nn.Dropout2d(0.5)(tc.ones(50, 8, 3, 3)).numpy().reshape(400, 9)
    assert (channels == channels[:, :1]).all()
    assert nn.Dropout(0.5).eval()(tc.ones(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("uniform_", {"a": -1.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 2.0}),
        ("trunc_normal_", {"std": 1.5}),
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ],
)
def test_initialisation_has_torchs_distribution(name, kwargs):
    tc.manual_seed(0)
    mine = getattr(nn.init, name)(tc.empty(80, 50, 3), **kwargs).numpy()
    theirs = getattr(torch.nn.init, name)(torch.empty(80, 50, 3), **kwargs).numpy()
    levels = np.linspace(0.02, 0.98, 13)
    spread = theirs.std()
    np.testing.assert_allclose(
        np.quantile(mine, levels) / spread, np.quantile(theirs, levels) / spread, atol=0.1
    )


def test_orthogonal_rows_are_orthonormal():
    w = nn.init.orthogonal_(tc.empty(4, 7)).numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.tied = self.first
        self.blocks = nn.ModuleList([nn.BatchNorm1d(4), nn.Dropout(0.1)])
        self.table = nn.ModuleDict({"a": nn.Linear(4, 2)})
        self.scale = nn.Parameter(tc.ones(1))
        self.register_buffer("hidden", tc.zeros(2), persistent=False)

    def forward(self, x):
        return self.table["a"](self.blocks[1](self.blocks[0](self.first(x)))) * self.scale


def test_walking_names_everything_once_in_torchs_order():
    net = Net()
    names = [n for n, _ in net.named_parameters()]
    assert names == [
        "scale", "first.weight", "first.bias", "blocks.0.weight", "blocks.0.bias",
        "table.a.weight", "table.a.bias",
    ]  # fmt: skip
    assert [n for n, _ in net.named_modules()] == [
        "", "first", "blocks", "blocks.0", "blocks.1", "table", "table.a",
    ]  # fmt: skip
    assert "hidden" in dict(net.named_buffers())
    assert "hidden" not in net.state_dict()
    assert net.get_submodule("table.a") is net.table["a"]
    assert net.get_parameter("first.weight") is net.first.weight


def test_load_state_dict_is_strict_and_says_what_is_wrong():
    net, other = Net(), Net()
    state = net.state_dict()
    assert str(other.load_state_dict(state)) == "<All keys matched successfully>"
    close(other.first.weight, net.first.weight)
    missing = {k: v for k, v in state.items() if k != "scale"}
    with pytest.raises(RuntimeError, match=r"Missing key.*scale"):
        other.load_state_dict(missing)
    assert other.load_state_dict({**missing, "odd": tc.ones(1)}, strict=False) == (
        ["scale"],
        ["odd"],
    )
    with pytest.raises(RuntimeError, match=r"size mismatch.*\(2,\).*\(1,\)"):
        other.load_state_dict({**state, "scale": tc.ones(2)})


def test_assignment_rules():
    net = Net()
    with pytest.raises(TypeError, match="cannot assign int as parameter 'scale'"):
        net.scale = 3
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("scale", tc.ones(1))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = net.absent
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    net.first = nn.Identity()
    assert isinstance(net.first, nn.Identity)
    del net.first
    assert "first" not in dict(net.named_children())

    class Early(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(tc.ones(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__"):
        Early()


def test_hooks_on_every_module_run_before_its_own_and_retrace():
    module = nn.modules.module
    seen = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    model[1].register_forward_hook(lambda m, args, out: seen.append("own"))
    run = tc.compile(lambda x: model(x).sum())
    x = tc.ones(1, 2, requires_grad=True)
    plain = run(x).item()
    assert seen == ["own"]
    handles = [
        module.register_module_forward_pre_hook(lambda m, args: seen.append("before")),
        module.register_module_forward_hook(lambda m, args, out: out + isinstance(m, nn.Tanh)),
        module.register_module_full_backward_hook(lambda m, gi, go: seen.append(type(m).__name__)),
    ]
    seen.clear()
    assert run(x).item() == pytest.approx(plain + 2)
    assert seen[:4] == ["before", "before", "before", "own"]
    seen.clear()
    model(x).sum().backward()
    assert seen == ["before", "before", "before", "own", "Tanh", "Linear", "Sequential"]
    for h in handles:
        h.remove()
    assert run(x).item() == pytest.approx(plain)


def test_forward_and_backward_hooks_see_and_change_values():
    layer, seen = nn.Linear(2, 2, bias=False), []
    with tc.no_grad():
        layer.weight.copy_(tc.eye(2))
    pre = layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    post = layer.register_forward_hook(lambda m, args, out: out + 1)
    back = layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi[0], go[0])))
    x = tc.ones(1, 2, requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[3.0, 3.0]]
    (y * 5).sum().backward()
    assert seen[0][0].tolist() == [[5.0, 5.0]]
    assert seen[0][1].tolist() == [[5.0, 5.0]]
    assert x.grad.tolist() == [[10.0, 10.0]]
    for handle in (pre, post, back):
        handle.remove()
    assert layer(x).tolist() == [[1.0, 1.0]]


def test_modes_casts_and_freezing_reach_every_module():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    net.train()
    assert net.blocks[0].training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.double()
    assert net.first.weight.dtype is tc.float64
    assert net.blocks[0].num_batches_tracked.dtype is tc.int64
    assert net.to(tc.float32).first.weight.dtype is tc.float32
    counted = []
    net.apply(lambda m: counted.append(type(m).__name__))
    assert counted[-1] == "Net"
    assert len(counted) == 7


def test_modules_are_copied_and_pickled():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.first is twin.tied
        assert twin.first.weight is not net.first.weight
        close(twin.first.weight, net.first.weight)


def test_containers_behave_like_lists_and_dicts():
    seq = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert [type(m).__name__ for m in seq[:2]] == ["Linear", "ReLU"]
    seq.append(nn.Tanh())
    del seq[1]
    assert [n for n, _ in seq.named_children()] == ["0", "1", "2"]
    items = nn.ModuleList([nn.Identity()])
    items.insert(0, nn.ReLU())
    items += [nn.Tanh()]
    assert [type(m).__name__ for m in items] == ["ReLU", "Identity", "Tanh"]
    params = nn.ParameterList([tc.ones(2), nn.Parameter(tc.zeros(1))])
    assert [n for n, _ in params.named_parameters()] == ["0", "1"]


def test_vectors_of_parameters_round_trip():
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(vector.detach(), other.parameters())
    close(other.weight, net.weight)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(3, 2)(tc.ones(2, 4)), RuntimeError, "last dimension is 3"),
        (lambda: nn.Conv2d(3, 2, 1)(tc.ones(1, 4, 5, 5)), RuntimeError, "3 channels"),
        (lambda: nn.BatchNorm2d(3)(tc.ones(2, 3)), ValueError, "expected 4D"),
        (lambda: nn.BatchNorm1d(3)(tc.ones(1, 3)), ValueError, "more than 1 value"),
        (lambda: nn.Embedding(3, 2)(tc.ones(2)), RuntimeError, "integer indices"),
        (lambda: nn.Dropout(1.5), ValueError, "between 0 and 1"),
        (lambda: F.mse_loss(tc.ones(2), tc.ones(2), reduction="odd"), ValueError, "odd"),
        (lambda: nn.LSTM(3, 2)(tc.ones(4, 1, 5)), RuntimeError, "last is 3"),
        (lambda: F.cross_entropy(tc.ones(2, 3), tc.ones(3).long()), ValueError, "shape"),
    ],
)
def test_wrong_inputs_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
