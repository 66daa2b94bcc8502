"""Every primitive against its own type rule, finite differences to second order, and PyTorch."""

import numpy as np
import pytest
from oracles import (
    CONSTANT,
    DIRECTIONS,
    DOUBLES,
    PHASES,
    Tape,
    Value,
    extreme_samples,
    from_torch,
    inner,
    operand_count,
    run,
    samples_of,
    slope,
    to_torch,
    torch_table,
)

import tracecc_ir.ops
from tracecc_ir.dims import Dim
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import OPS, Expr
from tracecc_ir.ops import special
from tracecc_ir.ops.random import philox4x32
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import (
    DTYPES,
    TensorType,
    bf16,
    c64,
    c128,
    f16,
    f32,
    f64,
    i32,
    i64,
    type_of_array,
)

PRIMITIVES = [op for op in OPS.values() if op.reference is not None]
DIFFERENTIABLE = [op for op in PRIMITIVES if op.differentiable]
# PyTorch's own error, where it is larger than ours.
THEIR_ERROR = {"polygamma": 1e-8, "bessel_j0": 1e-6, "bessel_j1": 1e-6}
THEIR_ERROR |= {"bessel_y0": 1e-6, "bessel_y1": 1e-6, "airy": 1e-6, "ndtri": 1e-9}
TOLERANCE = {f64: 1e-11, c128: 1e-11, f32: 2e-5, c64: 2e-5, f16: 2e-3, bf16: 1.6e-2}


def by_name(op):
    return op.name


def close(actual, expected, dtype, their_error=0.0):
    tolerance = max(TOLERANCE.get(dtype, 0), their_error)
    actual, expected = (np.asarray(a) for a in (actual, expected))
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    actual, expected = actual.astype(wide), expected.astype(wide)
    np.testing.assert_allclose(actual, expected, tolerance, tolerance, equal_nan=True)


def test_every_op_is_exported_and_documents_itself():
    for op in PRIMITIVES:
        assert getattr(tracecc_ir.ops, op.name) is op
        assert op.dtypes, op.name
        assert op.samples is not None or op.kind == "elementwise", op.name


@pytest.mark.parametrize("op", PRIMITIVES, ids=by_name)
def test_type_rule_says_what_the_reference_returns(op):
    rng = np.random.default_rng(0)
    for dtype in op.dtypes:
        for sample in samples_of(op, rng, dtype):
            attrs = op.bind(sample.attrs)
            expected = op.result_types([type_of_array(a) for a in sample.inputs], attrs)
            results = run(op, sample.inputs, attrs)
            assert all(isinstance(r, np.ndarray) for r in results)
            assert tuple(map(type_of_array, results)) == expected, sample


def float_operands(op, sample):
    fixed = CONSTANT.get(op.name, ())
    return [i for i, a in enumerate(sample.inputs) if a.dtype in DOUBLES and i not in fixed]


def precise(op):
    """The dtypes in which differences are precise, and results have no arbitrary phase."""
    allowed = [d for d in (f64, c128) if d in op.dtypes] or [op.dtypes[0]]
    return [d for d in allowed if d not in PHASES.get(op.name, ())]


@pytest.mark.parametrize(
    ("op", "dtype"), [(op, d) for op in DIFFERENTIABLE for d in precise(op)], ids=by_name
)
def test_gradients_match_finite_differences_to_second_order(op, dtype):
    rng = np.random.default_rng(1)
    restrict = DIRECTIONS.get(op.name, lambda x: x)

    def random_like(x):
        return draw(rng, type_of_array(x).dtype, *x.shape)

    for sample in samples_of(op, rng, dtype):
        wrt = float_operands(op, sample)
        outputs = run(op, sample.inputs, sample.attrs)
        live = [i for i, y in enumerate(outputs) if y.dtype in DOUBLES]
        if not wrt or not live:
            continue
        cotangents = [random_like(outputs[i]) for i in live]
        u = {i: restrict(random_like(sample.inputs[i])) for i in wrt}
        v = {i: restrict(random_like(sample.inputs[i])) for i in wrt}
        w = [random_like(c) for c in cotangents]

        def moved(t, sample=sample, u=u):
            return [np.asarray(a + t * u[i]) if i in u else a for i, a in enumerate(sample.inputs)]

        def first(t, moved=moved, sample=sample, live=live, cotangents=cotangents):
            ys = run(op, moved(t), sample.attrs)
            return sum(inner(ys[i], c) for i, c in zip(live, cotangents, strict=True))

        def gradients(inputs, cotangents, sample=sample, wrt=wrt, live=live):
            tape = Tape()
            xs, cs = ([Value(np.asarray(a)) for a in arrays] for arrays in (inputs, cotangents))
            outs = tape.emit(op, xs, sample.attrs)
            return tape, xs, cs, tape.gradients([outs[i] for i in live], cs, [xs[i] for i in wrt])

        def second(t, gradients=gradients, moved=moved, cotangents=cotangents, w=w, v=v, wrt=wrt):
            cs = [c + t * d for c, d in zip(cotangents, w, strict=True)]
            found = gradients(moved(t), cs)[3]
            return sum(inner(g.array, v[i]) for i, g in zip(wrt, found, strict=True))

        tape, xs, cs, found = gradients(sample.inputs, cotangents)
        analytic = sum(inner(g.array, u[i]) for i, g in zip(wrt, found, strict=True))
        np.testing.assert_allclose(analytic, slope(first), 1e-6, 1e-7, err_msg=str(sample.attrs))

        again = tape.gradients(
            found, [Value(np.asarray(v[i])) for i in wrt], [xs[i] for i in wrt] + cs
        )
        steps = [u[i] for i in wrt] + w
        analytic = sum(inner(g.array, d) for g, d in zip(again, steps, strict=True))
        np.testing.assert_allclose(analytic, slope(second), 1e-6, 1e-7, err_msg=str(sample.attrs))


@pytest.fixture(scope="module")
def torch_ops():
    pytest.importorskip("torch")
    return torch_table()


def torch_run(f, sample):
    """PyTorch's results, or None where it does not implement the op for this dtype."""
    try:
        result = f(*map(to_torch, sample.inputs), **sample.attrs)
    except (RuntimeError, NotImplementedError) as error:
        if any(f"not {what}" in str(error) for what in ("implemented", "supported", "support")):
            return None
        raise
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:index_reduce:UserWarning", "ignore:Casting complex:UserWarning")
@pytest.mark.parametrize("op", PRIMITIVES, ids=by_name)
def test_values_match_pytorch_over_dtypes_and_extreme_values(op, torch_ops):
    if op.name not in torch_ops:
        assert op.name in ("philox", "iota", "eig", "barrier")
        return
    rng = np.random.default_rng(2)
    compared = 0
    for dtype in op.dtypes:
        samples = list(samples_of(op, rng, dtype))
        if op.kind == "elementwise" and dtype.kind == "float" and not op.attr_names:
            samples += extreme_samples(op, dtype)
        for sample in samples:
            sample = type(sample)(sample.inputs, op.bind(sample.attrs))
            expected = torch_run(torch_ops[op.name], sample)
            if expected is not None:
                compared += 1
                for a, e in zip(run(op, sample.inputs, sample.attrs), expected, strict=False):
                    close(a, from_torch(e), dtype, THEIR_ERROR.get(op.name, 0.0))
    assert compared


ORDERED = (
    "reduce_sum reduce_prod reduce_max reduce_min argmax argmin cumsum cumprod cummax cummin sort"
)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*ORDERED.split(), "window_max"])
def test_nan_and_infinity_flow_as_in_pytorch(name, torch_ops):
    op = OPS[name]
    rng = np.random.default_rng(4)
    for dtype in (bf16, f32, f64):
        for sample in samples_of(op, rng, dtype):
            specials = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], sample.inputs[0].shape)
            x = np.where(rng.random(specials.shape) < 0.3, specials, sample.inputs[0])
            sample = type(sample)((x.astype(dtype.numpy),), op.bind(sample.attrs))
            expected = torch_run(torch_ops[name], sample)
            for a, e in zip(run(op, sample.inputs, sample.attrs), expected, strict=False):
                close(a, from_torch(e), dtype)


TIED = [
    "reduce_prod",
    "reduce_max",
    "reduce_min",
    "cumprod",
    "cummax",
    "cummin",
    "sort",
    "gather",
    "scatter",
    "scatter_along",
    "gather_along",
    "maximum",
    "minimum",
    "abs",
    "window_max",
    "pad",
    "slice",
    "concat",
]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:index_reduce:UserWarning")
@pytest.mark.parametrize("name", TIED)
def test_gradients_at_ties_and_zeros_match_pytorch(name, torch_ops):
    op = OPS[name]
    rng = np.random.default_rng(3)
    for sample in samples_of(op, rng, f64):
        wrt = float_operands(op, sample)
        inputs = [np.round(a) if i in wrt else a for i, a in enumerate(sample.inputs)]
        attrs = op.bind(sample.attrs)
        tensors = [to_torch(a) for a in inputs]
        for i in wrt:
            tensors[i].requires_grad_()
        expected = torch_ops[name](*tensors, **attrs)
        expected = expected[0] if isinstance(expected, tuple) else expected
        cotangent = rng.standard_normal(tuple(expected.shape))
        expected.backward(to_torch(cotangent))

        tape = Tape()
        xs = [Value(a) for a in inputs]
        found = tape.gradients(
            tape.emit(op, xs, attrs)[:1], [Value(cotangent)], [xs[i] for i in wrt]
        )
        for i, g in zip(wrt, found, strict=True):
            close(g.array, from_torch(tensors[i].grad), f64)


# Where we differ on purpose: PyTorch gives NaN or 0 at infinities, and no pole to trigamma.
GRADIENT_DIFFERS = ("floor_div", "remainder", "digamma")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elementwise_gradients_at_special_points_match_pytorch(torch_ops):
    points = np.array([-30, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 30, np.inf, -np.inf, np.nan])
    elementwise = [op for op in DIFFERENTIABLE if op.kind == "elementwise" and op.name in torch_ops]
    for op in elementwise:
        if op.attr_names or op.name in ("select", *GRADIENT_DIFFERS):
            continue
        inputs = [points]
        if operand_count(op) == 2:
            inputs = [points.repeat(len(points)), np.tile(points, len(points))]
        tensors = [to_torch(x).requires_grad_() for x in inputs]
        torch_ops[op.name](*tensors).sum().backward()
        tape = Tape()
        xs = [Value(x) for x in inputs]
        found = tape.gradients(tape.emit(op, xs, {}), [Value(np.ones_like(inputs[0]))], xs)
        for g, tensor in zip(found, tensors, strict=True):
            close(g.array, from_torch(tensor.grad), f64)


def test_philox_gives_the_published_known_answers():
    cases = (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    )
    for counter, key, answer in cases:
        words = philox4x32([np.array([c], np.uint64) for c in counter], key)
        assert tuple(int(w[0]) for w in words) == answer


def test_philox_counts_elements_low_and_positions_high():
    seed, position = np.array(0x299F31D0_A4093822), np.array(0x03707344_13198A2E)
    bits = run(OPS["philox"], (seed, position), {"shape": (3, 2)})[0].ravel()
    for i in range(6):
        counter = [np.array([c], np.uint64) for c in (i, 0, 0x13198A2E, 0x03707344)]
        word = philox4x32(counter, (0xA4093822, 0x299F31D0))[0]
        assert bits[i] == word.astype(np.uint32).view(np.int32)[0]


def test_halves_accumulate_in_single_precision():
    x = np.full(4096, 1.0, np.float16)
    tenth = np.full(1000, 0.1).astype(bf16.numpy)
    exact = np.float32(tenth[0]) * 1000
    assert run(OPS["reduce_sum"], (x,), {"axes": (0,)})[0] == 4096
    assert float(run(OPS["reduce_sum"], (tenth,), {"axes": (0,)})[0]) == pytest.approx(
        exact, rel=4e-3
    )
    assert float(run(OPS["cumsum"], (x,), {"axis": 0})[0][-1]) == 4096
    dot = {"contract": ((0,), (0,)), "batch": ((), ())}
    assert run(OPS["dot_general"], (x, x), dot)[0] == 4096


@pytest.mark.filterwarnings("error")
def test_overflow_is_quiet():
    x = np.full(4, 6e4, np.float16)
    dot = {"contract": ((0,), (0,)), "batch": ((), ())}
    assert run(OPS["dot_general"], (x, x), dot)[0] == np.inf
    assert run(OPS["reduce_sum"], (x,), {"axes": (0,)})[0] == np.inf
    assert run(OPS["cumsum"], (x,), {"axis": 0})[0][-1] == np.inf
    assert run(OPS["constant"], (), {"value": 1e300, "shape": (), "dtype": f32})[0] == np.inf
    index = np.zeros(2, np.int64)
    total = run(OPS["scatter"], (x, index, x[:2]), {"axes": (0,), "mode": "add"})[0]
    assert total.tolist() == [np.inf, 6e4, 6e4, 6e4]


def test_window_max_indices_point_at_the_maxima_and_never_at_padding():
    x = np.full((1, 3, 3), -np.inf)
    attrs = {"window": (2, 2), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    values, index = run(OPS["window_max"], (x,), attrs)
    assert (values == -np.inf).all()
    assert (index.min(), index.max()) == (0, 8)
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 7)).astype(np.float64)
    values, index = run(OPS["window_max"], (x,), attrs)
    assert (
        np.take_along_axis(x.reshape(2, -1), index.reshape(2, -1), 1) == values.reshape(2, -1)
    ).all()


def test_out_of_range_indices_are_refused():
    with pytest.raises(IndexError, match="index 5 is out of bounds for dimension 0 with size 5"):
        run(OPS["gather"], (np.zeros(5), np.array([1, 5])), {"axes": (0,)})
    with pytest.raises(IndexError, match="index -6 is out of bounds"):
        run(OPS["gather_along"], (np.zeros(5), np.array([-6])), {"axis": 0})


def test_erf_and_its_kin_are_accurate_to_double():
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-6, 6, 200), 10.0 ** rng.uniform(-12, 0, 50)])
    for f, exact, xs in (
        (special.erf, mpmath.erf, x),
        (special.erfc, mpmath.erfc, np.concatenate([x, rng.uniform(6, 26, 50)])),
        (special.erfinv, mpmath.erfinv, np.tanh(x / 2)),
        (special.digamma, mpmath.digamma, rng.uniform(-3, 1, 100)),
        (lambda a: special.polygamma(a, 1), lambda a: mpmath.psi(1, a), rng.uniform(-3, 9, 100)),
        (lambda a: special.polygamma(a, 2), lambda a: mpmath.psi(2, a), rng.uniform(-3, 9, 100)),
    ):
        expected = np.array([float(exact(mpmath.mpf(float(v)))) for v in xs])
        np.testing.assert_allclose(f(xs), expected, rtol=4e-15, atol=2e-15)


F = TensorType
B = Dim.symbol("b")


@pytest.mark.parametrize(
    ("name", "operands", "attrs", "message"),
    [
        ("reshape", [F(f32, (2, 3))], {"shape": (4,)}, "6 elements, the shape [4]"),
        ("permute", [F(f32, (2, 3))], {"axes": (0, 0)}, "axis twice: axes=(0, 0)"),
        ("permute", [F(f32, (2, 3))], {"axes": (0,)}, "needs 2 entries in axes"),
        ("broadcast", [F(f32, (2,))], {"shape": (3, 4), "axes": (0,)}, "axes of equal sizes"),
        (
            "slice",
            [F(f32, (5,))],
            {"starts": (2,), "limits": (9,), "strides": (1,)},
            "given 2:9:1 for size 5",
        ),
        (
            "pad",
            [F(f32, (5,))],
            {"low": (-1,), "high": (0,), "interior": (0,), "value": 0},
            "no negative amounts",
        ),
        ("concat", [F(f32, (2, 3)), F(f32, (3, 3))], {"axis": 1}, "f32[2, 3] and f32[3, 3]"),
        ("reduce_sum", [F(f32, (2, 3))], {"axes": (2,)}, "no axis 2; it has 2 dimensions"),
        ("reduce_max", [F(f32, (0, 3))], {"axes": (0,)}, "no elements to choose from"),
        ("reduce_sum", [F(DTYPES["bool"], (3,))], {"axes": (0,)}, "expected a dtype among u8"),
        ("argmax", [F(f32, ())], {"axis": 0}, "no axis 0"),
        ("gather", [F(f32, (3,)), F(f32, (2,))], {"axes": (0,)}, "needs i32 or i64 indices"),
        ("gather", [F(f32, (3,))], {"axes": (0,)}, "one index array for each of axes=(0,)"),
        (
            "scatter",
            [F(f32, (3,)), F(i64, (2,)), F(f32, (3,))],
            {"axes": (0,)},
            "needs updates f32[2], given f32[3]",
        ),
        (
            "scatter_along",
            [F(f32, (3,)), F(i32, (2,)), F(f32, (2,))],
            {"axis": 0, "mode": "mean"},
            "has no mode 'mean'; it has set, add, mul, max, min",
        ),
        ("dynamic_slice", [F(f32, (3,)), F(i64, ())], {"sizes": (4,)}, "cannot hold a window"),
        (
            "dot_general",
            [F(f32, (2, 3)), F(f32, (4, 5))],
            {"contract": ((1,), (0,)), "batch": ((), ())},
            "pairs of dimensions of equal size",
        ),
        (
            "dot_general",
            [F(f32, (2, 3)), F(f64, (3, 5))],
            {"contract": ((1,), (0,)), "batch": ((), ())},
            "operands of one dtype, given f32[2, 3] and f64[3, 5]",
        ),
        (
            "conv",
            [F(f32, (1, 3, 8)), F(f32, (4, 2, 3))],
            {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1},
            "groups=1",
        ),
        (
            "conv",
            [F(f32, (1, 2, 2)), F(f32, (4, 2, 3))],
            {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1},
            "given size 2 with padding (0, 0) for a window of 3",
        ),
        (
            "window_max",
            [F(f32, (8,))],
            {"window": (2,), "stride": (2,), "padding": ((2, 0),), "dilation": (1,)},
            "windows of padding alone",
        ),
        ("philox", [F(i32, ()), F(i64, ())], {"shape": (2,)}, "philox of i32[] is not defined"),
        ("cholesky", [F(f32, (2, 3))], {}, "square matrices"),
        ("triangular_solve", [F(f32, (3, 3)), F(f32, (2, 3))], {}, "as many rows"),
        ("iota", [], {"shape": (2,), "axis": 1, "dtype": i64}, "no axis 1"),
    ],
)
def test_type_rules_refuse_with_one_clear_sentence(name, operands, attrs, message):
    op = OPS[name]
    with pytest.raises(TypeRuleError) as caught:
        op.result_types(operands, op.bind(attrs))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_type_rules_and_gradients_accept_a_symbolic_batch():
    from tracecc_ir.graph import Builder

    one_d = {"stride": (2,), "padding": ((1, 1),), "dilation": (1,)}
    cases = [
        ("constant", [], {"value": B * 3, "shape": (B, 3), "dtype": f32}, (B, 3)),
        ("reshape", [(B, 3, 4)], {"shape": (B, 12)}, (B, 12)),
        ("reshape", [(B, 3, 4)], {"shape": (B * 3, 4)}, (B * 3, 4)),
        ("permute", [(B, 3)], {"axes": (1, 0)}, (3, B)),
        ("broadcast", [(3,)], {"shape": (B, 3), "axes": (1,)}, (B, 3)),
        (
            "slice",
            [(B, 8)],
            {"starts": (0, 1), "limits": (B, 7), "strides": (1, 2)},
            (B, 3),
        ),
        (
            "pad",
            [(B, 3)],
            {"low": (0, 1), "high": (0, 0), "interior": (0, 1), "value": 0},
            (B, 6),
        ),
        ("flip", [(B, 3)], {"axes": (0,)}, (B, 3)),
        ("concat", [(B, 3), (B, 2)], {"axis": 1}, (B, 5)),
        ("concat", [(B, 3), (2, 3)], {"axis": 0}, (B + 2, 3)),
        ("reduce_sum", [(B, 3)], {"axes": (0,)}, (3,)),
        ("reduce_prod", [(B, 3)], {"axes": (1,)}, (B,)),
        ("reduce_max", [(B, 3)], {"axes": (0, 1)}, ()),
        ("cumsum", [(B, 3)], {"axis": 0}, (B, 3)),
        ("cumprod", [(B, 3)], {"axis": 1}, (B, 3)),
        ("cummax", [(B, 3)], {"axis": 0}, (B, 3)),
        ("sort", [(B, 3)], {"axis": 1}, (B, 3)),
        (
            "dot_general",
            [(B, 2, 3), (B, 3, 4)],
            {"contract": ((2,), (1,)), "batch": ((0,), (0,))},
            (B, 2, 4),
        ),
        ("conv", [(B, 4, 8), (6, 2, 3)], {**one_d, "groups": 2}, (B, 6, 4)),
        ("window_max", [(B, 2, 8)], {**one_d, "window": (3,)}, (B, 2, 4)),
        ("window_sum", [(B, 2, 8)], {**one_d, "window": (3,)}, (B, 2, 4)),
        ("cholesky", [(B, 3, 3)], {}, (B, 3, 3)),
        ("triangular_solve", [(B, 3, 3), (B, 3, 2)], {}, (B, 3, 2)),
    ]
    for name, shapes, attrs, expected in cases:
        op, builder = OPS[name], Builder()
        xs = [builder.expr(builder.input(F(f32, shape))) for shape in shapes]
        anchor = builder.expr(builder.input(F(f32, ())))
        result = op(*xs, like=anchor, **attrs)
        outs = result if isinstance(result, tuple) else (result,)
        assert outs[0].shape == expected, name
        gs = [builder.expr(builder.input(out.type)) for out in outs]
        grads = op.gradients([True] * len(xs), gs, outs, xs, op.bind(attrs))
        assert [g.type for g in grads] == [x.type for x in xs], name


def test_gather_and_scatter_accept_a_symbolic_batch():
    from tracecc_ir.graph import Builder

    builder = Builder()
    table = builder.expr(builder.input(F(f32, (10, 4))))
    index = builder.expr(builder.input(F(i64, (B, 3))))
    rows = OPS["gather"](table, index, axes=(0,))
    assert rows.shape == (B, 3, 4)
    g: Expr = builder.expr(builder.input(rows.type))
    (dt, none) = OPS["gather"].gradients([True, False], [g], [rows], [table, index], {"axes": (0,)})
    assert dt.shape == (10, 4)
    assert none is None
