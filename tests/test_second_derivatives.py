"""Every differentiable op of the table, through the public function that reaches it.

First and second derivatives in float64 against finite differences. A new op needs a case here.
"""

import inspect

import numpy as np
import pytest

import tracecc as tc
from tracecc.autograd import grad, gradcheck, gradgradcheck
from tracecc.utils.checkpoint import checkpoint
from tracecc_ir.graph import Graph
from tracecc_ir.op import OPS

nn, F, linalg, special = tc.nn, tc.nn.functional, tc.linalg, tc.special


def draw(*shape, low=-1.0, high=1.0, seed=0):
    return tc.tensor(np.random.default_rng(seed).uniform(low, high, shape), requires_grad=True)


def apart(*shape):
    """Different numbers no two of which are close, and none close to zero."""
    order = np.random.default_rng(1).permutation(int(np.prod(shape)))
    return tc.tensor((order * 0.37 - 0.9).reshape(shape), requires_grad=True)


def positive(n=3):
    a = draw(n, n).detach()
    return (a @ a.mT + n * tc.eye(n, dtype=tc.float64)).requires_grad_()


def symmetric(f):
    """``f`` of the symmetric part, so that differences stay where it is defined."""
    return lambda a: f((a + a.mT) / 2)


def steady(z):
    """An eigenvector or singular vector without its arbitrary sign."""
    return z.abs().square()


def lstm(x, w, u):
    names = {"weight_ih_l0": w, "weight_hh_l0": u}
    return tc.func.functional_call(nn.LSTM(2, 2, bias=False), names, (x,))[0]


def overwritten(x):
    y = x * 1
    y[1:] = x[:2] ** 2
    return y**2


LONG = tc.tensor([[0, 2, 1], [1, 0, 0]])
SPATIAL = ((2, 2, 5), (4, 1, 3))

# What is called otherwise than its op: (function, inputs).
CASES = {
    "attention": (F.scaled_dot_product_attention, [draw(1, 2, 3, 2, seed=i) for i in range(3)]),
    "attention_grad": (
        F.scaled_dot_product_attention,
        [draw(1, 1, 2, 2, seed=i) for i in range(3)],
    ),
    "barrier": (
        tc.compile(tc.func.grad(lambda x: checkpoint(lambda t: t.sin().exp().sum(), x))),
        [draw(2)],
    ),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        [draw(4, 2), draw(2), draw(2)],
    ),
    "broadcast": (lambda x: x.expand(2, 3) * x, [draw(3)]),
    "call": (tc.compile(lambda x: x.sin().exp()), [draw(3)]),
    "cast": (lambda x: x.to(tc.complex128).to(tc.float64) ** 2, [draw(3)]),
    "cholesky": (symmetric(linalg.cholesky), [positive()]),
    "cofactor": (linalg.det, [draw(3, 3)]),
    "complex": (lambda x, y: tc.complex(x, y) ** 2, [draw(3), draw(3)]),
    "concat": (lambda x, y: tc.cat([x, y], 1) ** 2, [draw(2, 2), draw(2, 1)]),
    "cond": (
        tc.compile(lambda x: tc.cond(x.sum() > 9, tc.sin, lambda v: v**3, (x,))),
        [draw(3)],
    ),
    "conj": (lambda x: tc.view_as_complex(x).conj() ** 2, [draw(3, 2)]),
    "conv": (lambda x, w: F.conv1d(x, w, groups=2, padding=1), [draw(*s) for s in SPATIAL]),
    "conv_input_grad": (
        lambda x, w: F.conv_transpose1d(x, w, stride=2),
        [draw(1, 2, 3), draw(2, 2, 3)],
    ),
    "conv_weight_grad": (F.conv1d, [draw(1, 2, 4), draw(2, 2, 3)]),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, tc.tensor([2, 0]), label_smoothing=0.1),
        [draw(2, 3)],
    ),
    "cummax": (lambda x: tc.cummax(x, 1)[0] ** 2, [apart(2, 4)]),
    "cummin": (lambda x: tc.cummin(x, 1)[0] ** 2, [apart(2, 4)]),
    "cumprod": (lambda x: tc.cumprod(x, 1), [apart(2, 4)]),
    "cumsum": (lambda x: tc.cumsum(x, 1) ** 2, [draw(2, 4)]),
    "dot_general": (tc.matmul, [draw(2, 3), draw(3, 2)]),
    "dynamic_slice": (
        tc.compile(
            lambda x: tc.scan(lambda c, i: (c + 1, x.narrow(0, c, 2) ** 2), tc.tensor(0), x[:2])[1]
        ),
        [draw(4)],
    ),
    "dynamic_update": (tc.compile(overwritten), [draw(3)]),
    "eig": (lambda a: linalg.eigvals(a).abs(), [positive()]),
    "eigh": (symmetric(lambda a: [linalg.eigh(a)[0], steady(linalg.eigh(a)[1])]), [positive()]),
    "fft": (lambda x: tc.view_as_real(tc.fft.fft(tc.view_as_complex(x))), [draw(3, 2)]),
    "flip": (lambda x: tc.flip(x, (0,)) * x, [draw(3)]),
    "floor_div": (lambda x: x * tc.floor_divide(x, 0.7), [apart(4)]),
    "fmod": (tc.fmod, [apart(4), draw(4, low=5.0, high=6.0)]),
    "gather": (lambda x: x[LONG] ** 2, [draw(3)]),
    "gather_along": (lambda x: tc.gather(x, 1, LONG) ** 2, [draw(2, 3)]),
    "igamma": (
        lambda x: special.gammainc(tc.tensor([0.7, 2.0]).double(), x),
        [draw(2, low=0.5, high=2.0)],
    ),
    "igammac": (
        lambda x: special.gammaincc(tc.tensor([0.7, 2.0]).double(), x),
        [draw(2, low=0.5, high=2.0)],
    ),
    "imag": (lambda x: (tc.view_as_complex(x) ** 2).imag, [draw(3, 2)]),
    "irfft": (lambda x: tc.fft.irfft(tc.view_as_complex(x), 4), [draw(3, 2)]),
    "k0": (special.modified_bessel_k0, [draw(3, low=0.5, high=2.0)]),
    "k0e": (special.scaled_modified_bessel_k0, [draw(3, low=0.5, high=2.0)]),
    "k1": (special.modified_bessel_k1, [draw(3, low=0.5, high=2.0)]),
    "k1e": (special.scaled_modified_bessel_k1, [draw(3, low=0.5, high=2.0)]),
    "bessel_y0": (special.bessel_y0, [draw(3, low=0.5, high=2.0)]),
    "bessel_y1": (special.bessel_y1, [draw(3, low=0.5, high=2.0)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (3,), w, b), [draw(2, 3), draw(3), draw(3)]),
    "log_softmax": (lambda x: F.log_softmax(x, 1), [draw(2, 3)]),
    "lstm_cell": (lstm, [draw(1, 1, 2), draw(8, 2), draw(8, 2)]),
    "lu": (lambda a: linalg.lu(a)[1:], [positive()]),
    "maximum": (tc.maximum, [apart(4), draw(4)]),
    "mean": (lambda x: tc.mean(x, 1) ** 2, [draw(2, 3)]),
    "minimum": (tc.minimum, [apart(4), draw(4)]),
    "ndtri": (special.ndtri, [draw(3, low=0.2, high=0.8)]),
    "pad": (lambda x: F.pad(x, (1, 2)) ** 2, [draw(2, 3)]),
    "permute": (lambda x: x.permute(1, 0) * x, [draw(2, 2)]),
    "pinv": (linalg.pinv, [draw(3, 2)]),
    "polygamma": (lambda x: special.polygamma(1, x), [draw(3, low=0.5, high=3.0)]),
    "pow": (tc.pow, [draw(3, low=0.5, high=2.0), draw(3)]),
    "qr": (linalg.qr, [positive()]),
    "real": (lambda x: (tc.view_as_complex(x) ** 2).real, [draw(3, 2)]),
    "reduce_max": (lambda x: tc.amax(x, 1) ** 2, [apart(2, 4)]),
    "reduce_min": (lambda x: tc.amin(x, 1) ** 2, [apart(2, 4)]),
    "reduce_prod": (lambda x: tc.prod(x, 1), [apart(2, 4)]),
    "reduce_sum": (lambda x: tc.sum(x, 1) ** 2, [draw(2, 3)]),
    "remainder": (tc.remainder, [apart(4), draw(4, low=5.0, high=6.0)]),
    "reshape": (lambda x: x.reshape(2, 2) @ x.reshape(2, 2), [draw(4)]),
    "rfft": (lambda x: tc.view_as_real(tc.fft.rfft(x)) ** 2, [draw(4)]),
    "scan": (
        tc.compile(lambda x: tc.scan(lambda c, v: (c * v, c + v), x[0], x)[0]),
        [draw(3)],
    ),
    "scatter": (lambda x, y: x.index_put((LONG[0],), y) ** 2, [draw(3), draw(3)]),
    "scatter_along": (lambda x, y: x.scatter_add(1, LONG, y) ** 2, [draw(2, 3), draw(2, 3)]),
    "select": (lambda x, y: tc.where(x > 0, x * y, y), [apart(4), draw(4)]),
    "slice": (lambda x: x[1:3] * x[:2], [draw(3)]),
    "slogdet": (lambda a: linalg.slogdet(a)[1], [positive()]),
    "softmax": (lambda x: F.softmax(x, 1), [draw(2, 3)]),
    "solve": (linalg.solve, [positive(), draw(3, 2)]),
    "sort": (lambda x: tc.sort(x, 1)[0] ** 2, [apart(2, 4)]),
    "sub": (lambda x, y: (x - y) ** 2, [draw(3), draw(3, seed=1)]),
    "add": (lambda x, y: (x + y) ** 2, [draw(3), draw(3, seed=1)]),
    "svd": (
        lambda a: [
            f(z) for f, z in zip((steady, tc.exp, steady), linalg.svd(a, False), strict=True)
        ],
        [draw(3, 2)],
    ),
    "triangular_solve": (
        lambda a, b: linalg.solve_triangular(a, b, upper=False),
        [positive(), draw(3, 2)],
    ),
    "view_as_complex": (lambda x: tc.view_as_complex(x).abs(), [draw(3, 2)]),
    "view_as_real": (lambda x: tc.view_as_real(tc.exp(tc.view_as_complex(x))), [draw(3, 2)]),
    "window_max": (lambda x: F.max_pool1d(x, 2) ** 2, [apart(1, 2, 4)]),
    "window_sum": (lambda x: F.avg_pool1d(x, 2) ** 2, [draw(1, 2, 4)]),
    "window_sum_grad": (lambda x: F.avg_pool1d(x, 2) ** 2, [draw(1, 2, 4)]),
    "zeta": (
        lambda x: special.zeta(tc.tensor([3.0, 4.0]).double(), x),
        [draw(2, low=1.0, high=2.0)],
    ),
}
# Not reached: a loop of unknown length, what passes make or take away, and composites that the
# public functions of their names spell out.
EXCLUDED = {"while", "kernel", "vjp", "clamp", "logsumexp", "var"}
DIFFERENTIABLE = sorted(op.name for op in OPS.values() if op.differentiable)


def case(name):
    """The function and the inputs of an op; elementwise ones of one name need no entry."""
    if name in CASES:
        return CASES[name]
    function = next(getattr(m, name) for m in (tc, special, linalg, F) if hasattr(m, name))
    if OPS[name].kind == "linalg":
        return function, [positive()]
    domain = OPS[name].domain
    count = (
        len(inspect.signature(OPS[name].infer).parameters) if OPS[name].kind != "composite" else 1
    )
    domain = domain if isinstance(domain[0], tuple) else (domain,) * count
    return function, [draw(4, low=low, high=high, seed=i) for i, (low, high) in enumerate(domain)]


def recorded(outputs):
    """The ops on the tape behind tensors."""
    found, seen, pending = set(), set(), [t.grad_fn for t in outputs]
    while pending:
        node = pending.pop()
        if node is None or node in seen or not hasattr(node, "next_functions"):
            continue
        seen.add(node)
        if hasattr(node, "op"):
            found.add(node.op.name)
        pending.extend(n for n, _ in node.next_functions)
    return found


def ops_in(graph: Graph):
    """The ops of a graph and of the graphs in it."""
    inner = [ops_in(region) for node in graph.nodes for region in node.regions()]
    return {"call", *(node.op.name for node in graph.nodes)}.union(*inner)


def ops_of(function, inputs):
    """The ops that a function and its gradient use."""
    made = function(*inputs)
    outputs = [y for y in (made if isinstance(made, (tuple, list)) else [made]) if y.requires_grad]
    if isinstance(function, type(tc.compile(tc.sin))):
        return ops_in(function.ir("grad"))
    total = sum((y.abs() if y.is_complex() else y).sum() for y in outputs)
    gradients = grad(total, inputs, create_graph=True, allow_unused=True)
    return recorded(outputs) | recorded([g for g in gradients if g is not None])


@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if n not in EXCLUDED])
def test_derivatives_of_public_functions_to_second_order(name):
    function, inputs = case(name)
    assert name in ops_of(function, inputs)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_the_cases_are_ops_of_the_table():
    assert set(CASES) | EXCLUDED <= set(DIFFERENTIABLE)
