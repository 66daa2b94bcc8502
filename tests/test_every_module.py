"""No module, optimizer or schedule of PyTorch's is left out: all train beside PyTorch's own.

Most modules train one by one in test_nn_training.py. The others train here, a family at a time: one
step moves the inputs and parameters of all members, and each member's loss is compared.
"""

import numpy as np
import pytest
import test_nn_training as others
import test_optim
import test_optim_schedules
from test_nn_training import CUBE, IMAGE, LINE, TIME, draw, first

import tracecc as tc

torch = pytest.importorskip("torch")

STEPS = 20
LABELS = np.array([1, 0, 3, 2])
SIGNS = np.array([1.0, -1.0, -1.0, 1.0], "float32")
D, H, W = np.ogrid[:5, :7, :6]
PLACES = {  # where MaxUnpool puts its inputs: the first corner of each window of two
    1: np.broadcast_to(2 * np.arange(9), LINE).copy(),
    2: np.broadcast_to(24 * H[0] + 2 * W[0], IMAGE).copy(),
    3: np.broadcast_to(192 * D + 24 * H[:, :4] + 2 * W, CUBE).copy(),
}

ACTIVATIONS = {
    "CELU": (0.7,), "ELU": (0.8,), "GELU": ("tanh",), "Hardshrink": (0.3,), "Hardsigmoid": (),
    "Hardswish": (), "Hardtanh": (-0.5, 0.6), "Identity": (), "LeakyReLU": (0.1,),
    "LogSigmoid": (), "LogSoftmax": (1,), "Mish": (), "ReLU": (), "ReLU6": (), "SELU": (),
    "SiLU": (), "Sigmoid": (), "Softmax": (-1,), "Softmin": (1,), "Softplus": (2.0, 1.0),
    "Softshrink": (0.2,), "Softsign": (), "Tanh": (), "Tanhshrink": (), "Threshold": (0.1, 0.5),
    "RReLU": (0.2, 0.2), "Dropout": (0.0,), "AlphaDropout": (0.0,), "FeatureAlphaDropout": (0.0,),
    "Flatten": (1,), "Unflatten": (1, (2, 2)), "PixelShuffle": (2,), "Dropout1d": (0.0,),
}  # fmt: skip

FAMILIES = {
    "activations": [
        (n, args, [IMAGE if n == "PixelShuffle" else LINE]) for n, args in ACTIVATIONS.items()
    ],
    "one dimension": [
        ("AdaptiveAvgPool1d", (4,), [LINE]), ("AvgPool1d", (2, 3), [LINE]),
        ("MaxPool1d", (3, 2), [LINE]), ("CircularPad1d", (2,), [LINE]),
        ("ConstantPad1d", (1, 0.5), [LINE]), ("ReplicationPad1d", ((1, 2),), [LINE]),
        ("ZeroPad1d", (2,), [LINE]), ("MaxUnpool1d", (2,), [LINE, PLACES[1]]),
        ("LazyInstanceNorm1d", (), [LINE]), ("SyncBatchNorm", (4,), [LINE]),
    ],
    "two dimensions": [
        ("Softmax2d", (), [IMAGE]), ("Dropout2d", (0.0,), [IMAGE]),
        ("AdaptiveMaxPool2d", ((3, 4),), [IMAGE]), ("CircularPad2d", ((1, 2, 0, 1),), [IMAGE]),
        ("ConstantPad2d", (1, 0.5), [IMAGE]), ("ReflectionPad2d", (2,), [IMAGE]),
        ("ReplicationPad2d", (2,), [IMAGE]), ("ZeroPad2d", ((1, 0, 2, 1),), [IMAGE]),
        ("MaxUnpool2d", (2,), [IMAGE, PLACES[2]]), ("LazyInstanceNorm2d", (), [IMAGE]),
        ("FractionalMaxPool2d", (2,), [IMAGE]),
    ],
    "three dimensions": [
        ("AdaptiveAvgPool3d", (2,), [CUBE]), ("AdaptiveMaxPool3d", (2,), [CUBE]),
        ("AvgPool3d", (2,), [CUBE]), ("MaxPool3d", (2, 1), [CUBE]), ("Dropout3d", (0.0,), [CUBE]),
        ("ConstantPad3d", (1, 0.5), [CUBE]), ("ReflectionPad3d", (1,), [CUBE]),
        ("ReplicationPad3d", (1,), [CUBE]), ("ZeroPad3d", (1,), [CUBE]),
        ("MaxUnpool3d", (2,), [CUBE, PLACES[3]]), ("LazyInstanceNorm3d", (), [CUBE]),
        ("FractionalMaxPool3d", (2,), [CUBE]),
    ],
    "losses": [
        (n, (), [(4, 6), draw(4, 6, seed=1)])
        for n in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "PoissonNLLLoss")
    ] + [
        ("BCEWithLogitsLoss", (), [(4, 6), np.abs(draw(4, 6, seed=1)) % 1]),
        ("BCELoss", (), ["sigmoid", (4, 6), np.abs(draw(4, 6, seed=1)) % 1]),
        ("KLDivLoss", (), ["log_softmax", (4, 6), np.abs(draw(4, 6, seed=1)) % 1]),
        ("NLLLoss", (), ["log_softmax", (4, 6), LABELS]),
        ("CrossEntropyLoss", (), [(4, 6), LABELS]), ("MultiMarginLoss", (), [(4, 6), LABELS]),
        ("MultiLabelMarginLoss", (), [(4, 6), np.array([[1, 0, -1, 2, 3, 4]] * 4)]),
        ("MultiLabelSoftMarginLoss", (), [(4, 6), (draw(4, 6) > 0).astype("float32")]),
        ("SoftMarginLoss", (), [(4,), SIGNS]), ("HingeEmbeddingLoss", (), [(4,), SIGNS]),
        ("CosineEmbeddingLoss", (), [(4, 6), (4, 6), SIGNS]),
        ("MarginRankingLoss", (0.1,), [(4,), (4,), SIGNS]),
        ("GaussianNLLLoss", (), [(4, 6), draw(4, 6, seed=1), np.abs(draw(4, 6, seed=2)) + 0.1]),
        ("TripletMarginLoss", (), [(4, 6), (4, 6), (4, 6)]),
        ("TripletMarginWithDistanceLoss", (), [(4, 6), (4, 6), (4, 6)]),
        ("AdaptiveLogSoftmaxWithLoss", (6, 10, [4, 7]), [(4, 6), LABELS * 3]),
        ("CTCLoss", (), ["log_softmax", (6, 2, 5), np.array([[1, 2], [3, 4]]),
                         np.array([6, 5]), np.array([2, 1])]),
    ],
    "stacks": [("TransformerEncoder", (), [TIME]), ("TransformerDecoder", (), [TIME, TIME])],
}  # fmt: skip

ELSEWHERE = {
    "Embedding": others.test_embeddings_and_bags_train_like_torchs,
    "EmbeddingBag": others.test_embeddings_and_bags_train_like_torchs,
}
NOT_LAYERS = """Module Sequential ModuleList ModuleDict ParameterList ParameterDict Container
    RNNBase RNNCellBase"""
LEFT_OUT = {
    "CrossMapLRN2d": "deprecated: LocalResponseNorm",
    "NLLLoss2d": "deprecated: NLLLoss",
    "DataParallel": "several devices",
    "LinearCrossEntropyLoss": "new and experimental in 2.13; the function is there",
}


def build(library, name, args):
    nn = library.nn
    if name.startswith("Fractional"):
        rank = int(name[-2])
        samples = library.tensor(np.abs(draw(2, 4, rank, seed=5)) % 1)
        return getattr(nn, name)(*args, output_size=2, _random_samples=samples)
    if name in ("TransformerEncoder", "TransformerDecoder"):
        layer = getattr(nn, name + "Layer")(6, 2, 8, dropout=0.0)
        return getattr(nn, name)(layer, 2, norm=nn.LayerNorm(6))
    made = getattr(nn, name)(*args)
    return made.eval() if name == "SyncBatchNorm" else made


class Member:
    """One module with its inputs; shapes stand for inputs that are trained."""

    def __init__(self, library, name, args, inputs, seed):
        self.library, self.layer = library, build(library, name, args)
        self.before = inputs[0] if isinstance(inputs[0], str) else None
        given = inputs[1:] if self.before else inputs
        self.xs = []
        for i, x in enumerate(given):
            t = library.tensor(draw(*x, seed=seed + i) if isinstance(x, tuple) else x)
            self.xs.append(t.requires_grad_() if isinstance(x, tuple) else t)
        self.target = None
        y = self.output()
        if y.ndim:
            self.target = library.tensor(draw(*y.shape, seed=seed + 9))

    def output(self):
        x, *rest = self.xs
        if self.before:
            F = self.library.nn.functional
            x = F.log_softmax(x, -1) if self.before == "log_softmax" else self.library.sigmoid(x)
        return first(self.layer(x, *rest))

    def loss(self):
        y = self.output()
        return y if self.target is None else ((y - self.target) ** 2).mean()

    def trained(self):
        return [*self.layer.parameters(), *(x for x in self.xs if x.requires_grad)]


def run(library, members, mode):
    tensors = [t for m in members for t in m.trained()]
    opt = library.optim.SGD(tensors, lr=0.05, momentum=0.5)

    def step():
        opt.zero_grad()
        losses = library.stack([m.loss() for m in members])
        losses.sum().backward()
        opt.step()
        return losses

    step = tc.compile(step) if mode == "compiled" else step
    return np.stack([step().detach().numpy() for _ in range(STEPS)]), tensors


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_trains_like_torchs_and_loads_its_state(family, mode):
    members = [
        [Member(lib, n, args, inputs, i) for i, (n, args, inputs) in enumerate(FAMILIES[family])]
        for lib in (tc, torch)
    ]
    for (name, *_), mine, theirs in zip(FAMILIES[family], *members, strict=True):
        others.copy_weights(mine.layer, theirs.layer)
        back = {k: torch.tensor(v.numpy()) for k, v in mine.layer.state_dict().items()}
        theirs.layer.load_state_dict(back)
        assert repr(mine.layer) == repr(theirs.layer), name
    (a, p), (b, q) = run(tc, members[0], mode), run(torch, members[1], "eager")
    for i, (name, *_) in enumerate(FAMILIES[family]):
        np.testing.assert_allclose(a[:, i], b[:, i], rtol=2e-5, atol=1e-5, err_msg=name)
    for x, y in zip(p, q, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-4, atol=2e-5)


def subclasses(module, base):
    found = {n: getattr(module, n) for n in dir(module) if not n.startswith("_")}
    return {
        n for n, c in found.items() if isinstance(c, type) and issubclass(c, base) and c != base
    }


def test_every_module_of_torch_trains_in_some_test():
    covered = {case[0] for case in others.LAYERS + others.LAZY} | set(ELSEWHERE)
    covered |= {name for family in FAMILIES.values() for name, *_ in family}
    missing = subclasses(torch.nn, torch.nn.Module) - covered - set(LEFT_OUT)
    assert missing - set(NOT_LAYERS.split()) == set()


def test_every_optimizer_and_schedule_of_torch_is_compared():
    covered = {name for name, _ in test_optim.CASES} | {"Muon"}  # in a test of its own
    assert subclasses(torch.optim, torch.optim.Optimizer) - covered == {"SparseAdam"}
    schedules = torch.optim.lr_scheduler
    covered = {name for name, _ in test_optim_schedules.SCHEDULES}
    own_tests = {"SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"}
    assert subclasses(schedules, schedules.LRScheduler) - covered - own_tests == set()
