"""What the generated op tests need: samples, a tape on arrays, and every op as PyTorch has it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tracecc_ir.op import Attrs, Expr, Op, Sample
from tracecc_ir.types import DType, TensorType, bool_, c128, f64, type_of_array

DOUBLES = (np.float64, np.complex128)
EXTREMES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 6e4, -6e4, 6e-5)


def operand_count(op: Op) -> int:
    parameters = inspect.signature(op.infer).parameters.values()
    return sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def samples_of(op: Op, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    """The op's own samples; elementwise ops without any get arrays drawn from their domain."""
    if op.samples is not None:
        yield from op.samples(rng, dtype)
        return
    count = operand_count(op)
    domain = op.domain if isinstance(op.domain[0], tuple) else (op.domain,) * count
    for shape in ((), (3, 0), (7,), (2, 5)):
        yield Sample(tuple(_drawn(rng, dtype, shape, *domain[i]) for i in range(count)))


def _drawn(
    rng: np.random.Generator, dtype: DType, shape: tuple, low: float, high: float
) -> np.ndarray:
    if dtype.is_complex:
        imaginary = rng.uniform(-1.0, 1.0, shape)
        return np.asarray(rng.uniform(low, high, shape) + 1j * imaginary).astype(dtype.numpy)
    if dtype.kind == "float":
        return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)
    if dtype is bool_:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    first = math.ceil(low) if dtype.is_signed else max(math.ceil(low), 0)
    return np.asarray(rng.integers(first, math.floor(high) + 1, shape)).astype(dtype.numpy)


def extreme_samples(op: Op, dtype: DType) -> Iterator[Sample]:
    """All pairs of special values, for elementwise ops of floats without attributes."""
    values = np.array(EXTREMES).astype(dtype.numpy)
    if operand_count(op) == 1:
        yield Sample((values,))
    else:
        yield Sample((values.repeat(len(values)), np.tile(values, len(values))))


class Value:
    """An array on a tape, compared by identity."""

    def __init__(self, array: np.ndarray):
        self.array = array


class Tape:
    """Runs references at once and differentiates what it ran, any number of times."""

    def __init__(self) -> None:
        self.steps: list[tuple[Op, list[Value], dict, tuple[Value, ...]]] = []

    def emit(self, op: Op, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
        bound = op.bind(attrs)
        op.result_types([self.type_of(v) for v in inputs], bound)
        outs = tuple(Value(a) for a in run(op, [v.array for v in inputs], bound))
        self.steps.append((op, list(inputs), bound, outs))
        return outs

    def type_of(self, value: Value) -> TensorType:
        return type_of_array(value.array)

    def gradients(
        self, outs: Sequence[Value], cotangents: Sequence[Value], wrt: Sequence[Value]
    ) -> list[Value]:
        """The gradient of each of ``wrt``, zeros where nothing depends on it."""
        found: dict[Value, Expr] = {}

        def accumulate(value: Value, g: Expr) -> None:
            found[value] = found[value] + g if value in found else g

        for out, cotangent in zip(outs, cotangents, strict=True):
            accumulate(out, Expr(cotangent, self))
        for op, inputs, attrs, results in reversed(self.steps.copy()):
            if not any(r in found for r in results):
                continue
            results_e, inputs_e = ([Expr(v, self) for v in vs] for vs in (results, inputs))
            gs = [
                found[r] if r in found else e.full(0)
                for r, e in zip(results, results_e, strict=True)
            ]
            wanted = [v.array.dtype in DOUBLES for v in inputs]
            gradients = op.gradients(wanted, gs, results_e, inputs_e, attrs)
            for v, g in zip(inputs, gradients, strict=True):
                if g is not None:
                    assert g.type == self.type_of(v), f"{op.name}: gradient {g.type} of {v.array}"
                    accumulate(v, g)
        return [found[v].value if v in found else Value(np.zeros_like(v.array)) for v in wrt]


def run(op: Op, arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    assert op.reference is not None
    result = op.reference(*arrays, **op.bind(attrs))
    return result if isinstance(result, tuple) else (result,)


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """The product of two arrays as vectors of real numbers: real and imaginary parts."""
    return float(np.vdot(x, y).real)


def slope(f: Callable[[float], float], h: float = 1e-4) -> float:
    """df/dt at 0 by fourth-order central differences."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def _symmetric(x: np.ndarray) -> np.ndarray:
    return x + x.swapaxes(-1, -2).conj()


# Ops that are defined on some arrays only: directions must stay among them.
DIRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cholesky": _symmetric,
    "eigh": _symmetric,
}


# Where results are defined up to a complex factor, which differences would see.
PHASES = {"eig": (f64, c128), "eigh": (c128,), "svd": (c128,)}

# Operands in which there is no derivative.
CONSTANT = {"igamma": (0,), "igammac": (0,), "zeta": (0,)}


def to_torch(array: np.ndarray) -> Any:
    import torch

    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def from_torch(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().resolve_conj()
    if tensor.dtype is torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def torch_table() -> dict[str, Callable[..., Any]]:
    """Each op as PyTorch has it: ``table[name](*tensors, **attrs)``; absent if it has none."""
    import torch
    import torch.nn.functional as F

    def front(x: Any, axes: tuple) -> tuple[Any, tuple]:
        order = axes + tuple(i for i in range(x.ndim) if i not in axes)
        return x.permute(order), tuple(np.argsort(order).tolist())

    def in_double(f: Callable) -> Callable:
        """For what PyTorch has for floats only, or sums in half precision for halves."""

        def converted(*xs: Any, **attrs: Any) -> Any:
            return f(*(x.double() for x in xs), **attrs).to(xs[0].dtype)

        return converted

    def broadcast(x: Any, shape: tuple, axes: tuple) -> Any:
        return x.reshape([n if i in axes else 1 for i, n in enumerate(shape)]).expand(shape)

    def pad(x: Any, low: tuple, high: tuple, interior: tuple, value: float) -> Any:
        span = [
            (n - 1) * (gap + 1) + 1 if n else 0 for n, gap in zip(x.shape, interior, strict=True)
        ]
        y = torch.full([sum(t) for t in zip(low, span, high, strict=True)], value, dtype=x.dtype)
        steps = zip(low, span, interior, strict=True)
        index: tuple = tuple(slice(p, p + n, gap + 1) for p, n, gap in steps)
        y[(*index, ...)] = x
        return y

    def over(f: Callable) -> Callable:
        """A reduction that PyTorch has over one axis, over several."""

        def reduce(x: Any, axes: tuple) -> Any:
            for axis in sorted(axes, reverse=True):
                x = f(x, axis)
            return x

        return reduce

    def along(f: Callable) -> Callable:
        def cumulative(x: Any, axis: int, reverse: bool) -> Any:
            return f(x.flip(axis), axis).flip(axis) if reverse else f(x, axis)

        return cumulative

    def scatter(x: Any, *operands: Any, axes: tuple, mode: str) -> Any:
        *indices, updates = operands
        moved, back = front(x, axes)
        if mode in ("set", "add"):
            return moved.index_put(tuple(indices), updates, accumulate=mode == "add").permute(back)
        sizes = [x.shape[a] for a in axes]
        linear = torch.zeros_like(indices[0])
        for index, n in zip(indices, sizes, strict=True):
            linear = linear * n + index % n
        rest = moved.shape[len(axes) :]
        flat = moved.reshape(math.prod(sizes), *rest)
        how = {"mul": "prod", "max": "amax", "min": "amin"}[mode]
        done = flat.index_reduce(0, linear.reshape(-1), updates.reshape(linear.numel(), *rest), how)
        return done.reshape(moved.shape).permute(back)

    def scatter_along(x: Any, index: Any, updates: Any, axis: int, mode: str) -> Any:
        index = index % x.shape[axis]
        if mode == "set":
            return x.scatter(axis, index, updates)
        how = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[mode]
        return x.scatter_reduce(axis, index, updates, how)

    def window(starts: tuple, x: Any, sizes: tuple) -> tuple:
        firsts = [
            min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)
        ]
        return (*(slice(f, f + k) for f, k in zip(firsts, sizes, strict=True)), ...)

    def dynamic_update(x: Any, update: Any, *starts: Any) -> Any:
        y = x.clone()
        y[window(starts, x, update.shape)] = update
        return y

    def dot_general(x: Any, y: Any, contract: tuple, batch: tuple) -> Any:
        xs = [chr(97 + i) for i in range(x.ndim)]
        ys = [chr(65 + i) for i in range(y.ndim)]
        for i, j in zip(contract[0] + batch[0], contract[1] + batch[1], strict=True):
            ys[j] = xs[i]
        free = [c for c in xs if c not in ys] + [c for c in ys if c not in xs]
        out = "".join([xs[i] for i in batch[0]] + free)
        return torch.einsum(f"{''.join(xs)},{''.join(ys)}->{out}", x, y)

    def padded(x: Any, padding: tuple, value: float = 0) -> Any:
        return F.pad(x, [p for pair in reversed(padding) for p in pair], value=value)

    def conv(x: Any, w: Any, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> Any:
        f = getattr(F, f"conv{x.ndim - 2}d")
        return f(padded(x, padding), w, None, stride, 0, dilation, groups)

    def conv_input_grad(g: Any, w: Any, x_spatial: tuple, groups: int, **attrs: Any) -> Any:
        x = torch.zeros([g.shape[0], w.shape[1] * groups, *x_spatial], dtype=g.dtype)
        return torch.func.vjp(lambda a: conv(a, w, groups=groups, **attrs), x)[1](g)[0]

    def conv_weight_grad(x: Any, g: Any, w_spatial: tuple, groups: int, **attrs: Any) -> Any:
        w = torch.zeros([g.shape[1], x.shape[1] // groups, *w_spatial], dtype=g.dtype)
        return torch.func.vjp(lambda a: conv(x, a, groups=groups, **attrs), w)[1](g)[0]

    def window_sum(x: Any, window: tuple, padding: tuple, **attrs: Any) -> Any:
        rank = len(window)
        lead, spatial = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
        flat = x.reshape(math.prod(lead), 1, *spatial)
        ones = torch.ones([1, 1, *window], dtype=x.dtype)
        y = conv(flat, ones, padding=padding, groups=1, **attrs)
        return y.reshape(*lead, *y.shape[2:])

    def window_sum_grad(g: Any, x_spatial: tuple, window: tuple, **attrs: Any) -> Any:
        x = torch.zeros([*g.shape[: g.ndim - len(window)], *x_spatial], dtype=g.dtype)
        return torch.func.vjp(lambda a: window_sum(a, window, **attrs), x)[1](g)[0]

    def window_max(x: Any, window: tuple, stride: tuple, padding: tuple, dilation: tuple) -> Any:
        rank = len(window)
        lead, spatial = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
        flat = padded(x.reshape(math.prod(lead), 1, *spatial), padding, -math.inf)
        y = getattr(F, f"max_pool{rank}d")(flat, window, stride, 0, dilation)
        return y.reshape(*lead, *y.shape[2:])

    def triangular_solve(a: Any, b: Any, lower: bool, transpose: bool, unit: bool) -> Any:
        a = a.mT if transpose else a
        return torch.linalg.solve_triangular(a, b, upper=lower == transpose, unitriangular=unit)

    def signed(theirs: Any, ours: np.ndarray, axis: int) -> Any:
        """Vectors that are defined up to a sign or phase, with that which NumPy's LAPACK gives."""
        products = (theirs.resolve_conj().numpy().conj() * ours).sum(axis, keepdims=True)
        return theirs * torch.from_numpy(np.sign(products))

    def eigh(x: Any, lower: bool) -> tuple:
        w, v = torch.linalg.eigh(x, "L" if lower else "U")
        return w, signed(v, np.linalg.eigh(x.numpy(), "L" if lower else "U")[1], -2)

    def svd(x: Any, full: bool) -> tuple:
        u, s, v = torch.linalg.svd(x, full)
        ours = np.linalg.svd(x.numpy(), full)
        return signed(u, ours[0], -2), s, signed(v, ours[2], -1)

    def polynomial(x: Any, n: Any, family: str) -> Any:
        name, kind = family.rsplit("_", 1)
        return getattr(torch.special, f"{name}_polynomial_{kind}")(x, n)

    def cofactor(x: Any) -> Any:
        ones = torch.ones(x.shape[:-2], dtype=x.dtype)
        return torch.func.vjp(torch.linalg.det, x)[1](ones)[0].conj()

    def lu(x: Any) -> tuple:
        packed, pivots = torch.linalg.lu_factor(x)
        return packed, pivots, lu_order(pivots, x.shape[-2])

    def lu_order(pivots: Any, size: int) -> Any:
        unit = torch.zeros((*pivots.shape[:-1], size, pivots.shape[-1]))
        if not unit.numel():
            return torch.arange(size).expand(*pivots.shape[:-1], size)
        return torch.lu_unpack(unit, pivots, unpack_data=False)[0].argmax(-2)

    same = {
        "add sub mul remainder fmod pow maximum minimum atan2 neg abs square reciprocal "
        "floor ceil trunc round exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin "
        "acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc erfinv lgamma digamma isnan "
        "isfinite eq ne lt le gt ge real imag complex conj view_as_real"
    }
    table: dict[str, Callable[..., Any]] = {
        name: getattr(torch, name) for names in same for name in names.split()
    }
    in_special = "i0 i0e i1 i1e bessel_j0 bessel_j1 bessel_y0 bessel_y1 erfcx ndtri zeta"
    table |= {name: getattr(torch.special, name) for name in in_special.split()}
    table |= {
        "div": torch.true_divide,
        "floor_div": torch.floor_divide,
        "trunc_div": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        "polygamma": lambda x, n: torch.polygamma(n, x),
        "bit_and": torch.bitwise_and,
        "bit_or": torch.bitwise_or,
        "bit_xor": torch.bitwise_xor,
        "bit_not": torch.bitwise_not,
        "shift_left": torch.bitwise_left_shift,
        "shift_right": torch.bitwise_right_shift,
        "select": torch.where,
        "fft": lambda x, axes, inverse: (
            torch.fft.ifftn(x, dim=axes, norm="forward") if inverse else torch.fft.fftn(x, dim=axes)
        ),
        "rfft": lambda x, axis: torch.fft.rfft(x, dim=axis),
        "irfft": lambda x, axis, size: torch.fft.irfft(x, size, axis, "forward"),
        "view_as_complex": lambda x: torch.complex(x[..., 0], x[..., 1]),
        "sign": lambda x: torch.sgn(x) if x.is_complex() else torch.sign(x),
        "cast": lambda x, dtype: x.to(getattr(torch, dtype.public)),
        "stop_gradient": lambda x: x,
        "constant": lambda value, shape, dtype: torch.full(
            shape, value, dtype=getattr(torch, dtype.public)
        ),
        "reshape": lambda x, shape: x.reshape(shape),
        "permute": lambda x, axes: x.permute(axes),
        "broadcast": broadcast,
        "slice": lambda x, starts, limits, strides: x[(*map(slice, starts, limits, strides), ...)],
        "pad": pad,
        "flip": lambda x, axes: x.flip(axes),
        "concat": lambda *xs, axis: torch.cat(xs, axis),
        "reduce_sum": lambda x, axes: over(lambda a, d: a.sum(d, dtype=x.dtype))(x, axes),
        "reduce_prod": lambda x, axes: over(lambda a, d: a.prod(d, dtype=x.dtype))(x, axes),
        "reduce_max": lambda x, axes: x.amax(axes) if axes else x,
        "reduce_min": lambda x, axes: x.amin(axes) if axes else x,
        "argmax": lambda x, axis: x.argmax(axis),
        "argmin": lambda x, axis: x.argmin(axis),
        "cumsum": along(lambda x, d: x.cumsum(d, dtype=x.dtype)),
        "cumprod": along(lambda x, d: x.cumprod(d, dtype=x.dtype)),
        "cummax": along(lambda x, d: x.cummax(d).values),
        "cummin": along(lambda x, d: x.cummin(d).values),
        "sort": lambda x, axis, descending: tuple(
            torch.sort(x, dim=axis, descending=descending, stable=True)
        ),
        "gather": lambda x, *indices, axes: front(x, axes)[0][indices],
        "scatter": scatter,
        "gather_along": lambda x, index, axis: x.gather(axis, index % x.shape[axis]),
        "scatter_along": scatter_along,
        "dynamic_slice": lambda x, *starts, sizes: x[window(starts, x, sizes)],
        "dynamic_update": dynamic_update,
        "dot_general": dot_general,
        "conv": in_double(conv),
        "conv_input_grad": in_double(conv_input_grad),
        "conv_weight_grad": in_double(conv_weight_grad),
        "window_max": in_double(window_max),
        "window_sum": in_double(window_sum),
        "window_sum_grad": in_double(window_sum_grad),
        "cholesky": lambda x, check: torch.linalg.cholesky(x),
        "triangular_solve": triangular_solve,
        "solve": lambda a, b, check: torch.linalg.solve(a, b),
        "lu": lu,
        "lu_order": lu_order,
        "det": torch.linalg.det,
        "slogdet": lambda x: tuple(torch.linalg.slogdet(x)),
        "cofactor": cofactor,
        "matrix_exp": torch.linalg.matrix_exp,
        "pinv": lambda x, atol, rtol: torch.linalg.pinv(x, atol=atol, rtol=rtol),
        "eigh": eigh,
        "svd": svd,
        "qr": lambda x, complete: torch.linalg.qr(x, "complete" if complete else "reduced"),
        "igamma": torch.special.gammainc,
        "igammac": torch.special.gammaincc,
        "k0": torch.special.modified_bessel_k0,
        "k1": torch.special.modified_bessel_k1,
        "k0e": torch.special.scaled_modified_bessel_k0,
        "k1e": torch.special.scaled_modified_bessel_k1,
        "airy": torch.special.airy_ai,
        "polynomial": polynomial,
        "nextafter": torch.nextafter,
        "gcd": torch.gcd,
        "householder_qr": lambda x: tuple(torch.geqrf(x)),
    }
    return table
