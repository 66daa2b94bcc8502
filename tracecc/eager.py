"""Eager evaluation: small work by the NumPy references, heavy work by compiled kernels.

A kernel is a graph of one op, or of one op's derivative, that went through the passes and the
backend. It is kept per attributes, shapes and memory layouts of its operands.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tracecc.backends import Executable, get_backend
from tracecc_ir.graph import Builder, Graph, Value
from tracecc_ir.interpret import Program
from tracecc_ir.interpret import evaluate as reference
from tracecc_ir.op import NO_GRADIENT, OPS, Attrs, Op
from tracecc_ir.passes import pipeline
from tracecc_ir.passes.dce import dce
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.types import TensorType, from_numpy_dtype, type_of_array

Arrays = Sequence[np.ndarray]

# Work, in additions of one element by NumPy, from which a kernel pays for its call.
HEAVY = 1 << 17
LARGEST_SMALL = 1 << 14  # elements; above, the ops of a rule may be heavy one by one
MOST_KERNELS = 512
MOST_PROGRAMS = 4096
MOST_ARENA = 256 << 20  # bytes of temporaries that kept kernels may hold

# Work per element of the largest operand, where the reference is slow beside one addition. Below
# the measured ratio from 16 on: small work shall not wait for a compiler in a fresh process.
_WEIGHTS: dict[str, int] = {
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"), 1),
    **dict.fromkeys(("argmax", "argmin"), 1),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), 8),
    **dict.fromkeys(("scatter", "scatter_along"), 16),
    **dict.fromkeys(("gather_along", "dynamic_update"), 4),
    "sort": 32,
    **dict.fromkeys(("conv", "conv_input_grad", "conv_weight_grad"), 64),
    **dict.fromkeys(("window_max", "window_sum", "window_sum_grad"), 16),
    **dict.fromkeys(("relu", "leaky_relu", "clamp"), 2),
    **dict.fromkeys(("elu", "silu", "softplus", "logsigmoid"), 8),
    "gelu": 64,
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp", "cross_entropy"), 8),
    **dict.fromkeys(("var", "layer_norm", "batch_norm"), 16),
    "lstm_cell": 16,
}
_POLYNOMIALS = ("erf", "erfc", "erfinv", "lgamma", "digamma", "polygamma")
_FREE = ("stop_gradient",)


def _elementwise_weight(op: Op) -> int:
    if op.name in _POLYNOMIALS:  # the references evaluate them term by term
        return 64
    return 1 if op.cost < 10 and op.name != "select" else 4


_WEIGHTS |= {
    op.name: _elementwise_weight(op)
    for op in OPS.values()
    if op.kind == "elementwise" and op.name not in _FREE
}


def _products(arrays: Arrays, attrs: Attrs) -> int:
    """Multiplications of a dot_general, which BLAS does eight times as fast as additions."""
    x, y = arrays
    shared = 1
    for axis in attrs["contract"][0] + attrs["batch"][0]:
        shared *= x.shape[axis]
    return x.size * y.size // max(1, shared) // 8


def _attention_work(arrays: Arrays, attrs: Attrs) -> int:
    q, k = arrays[:2]
    return q.size // max(1, q.shape[-1]) * k.shape[-2] * 8


def _drawn(arrays: Arrays, attrs: Attrs) -> int:
    return 16 * math.prod(attrs["shape"])


def _padded(arrays: Arrays, attrs: Attrs) -> int:
    (x,) = arrays
    return math.prod(map(sum, zip(x.shape, attrs["low"], attrs["high"], strict=True)))


def _gathered(arrays: Arrays, attrs: Attrs) -> int:
    x, index = arrays[:2]
    rest = math.prod(n for i, n in enumerate(x.shape) if i not in attrs["axes"])
    return 2 * index.size * rest


_WORK: dict[str, Callable[[Arrays, Attrs], int]] = {
    "dot_general": _products,
    "attention": _attention_work,
    "attention_grad": lambda arrays, attrs: 2 * _attention_work(arrays[1:], attrs),
    "call": lambda arrays, attrs: HEAVY,  # a region, which has no other fast way
    "gather": _gathered,
    "pad": _padded,
    **dict.fromkeys(("philox", "uniform", "normal"), _drawn),
}

# Elementwise through and through: results keep the memory layout of permuted operands.
_POINTWISE = {op.name for op in OPS.values() if op.kind == "elementwise"}
_POINTWISE |= {"relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "logsigmoid", "clamp"}

# Ops whose derivative is worth a kernel of its own: the others' is at most one op.
_JOINT = {
    name
    for name in (*_WEIGHTS, *_WORK)
    if OPS[name].kind in ("composite", "contraction", "window") or name in ("mul", "div", "pow")
}
_JOINT |= {"call", "gather", "gather_along", "maximum", "minimum", "select", "sqrt", "rsqrt", "erf"}
_JOINT |= {n for n in _POINTWISE if OPS[n].kind == "elementwise" and OPS[n].cost >= 10}
_JOINT = {n for n in _JOINT if OPS[n].vjp is not NO_GRADIENT}


def heavy(op: Op, arrays: Arrays, attrs: Attrs) -> bool:
    """Whether the work is worth a kernel; complex numbers have none."""
    weight = _WEIGHTS.get(op.name)
    if weight is not None:
        large = max([a.size for a in arrays]) >= HEAVY // weight
    else:
        work = _WORK.get(op.name)
        large = work is not None and work(arrays, attrs) >= HEAVY
    return large and all(a.dtype.kind != "c" for a in arrays)


def evaluate(op: Op, arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Runs one op on arrays of types that its rule accepts.

    Results may be views of the operands and may be read-only, as those of the reference.
    """
    if heavy(op, arrays, attrs):
        return _evaluate_heavy(op, arrays, attrs)
    if op.name == "reshape" and arrays[0].size >= HEAVY and not _is_plain(arrays[0]):
        view = arrays[0].view()
        try:
            view.shape = attrs["shape"]
        except AttributeError:  # it takes a copy
            return _evaluate_heavy(op, arrays, attrs)
        return (view,)
    if op.reference is None and op.kind == "composite":
        program = _program("", op, arrays, attrs)
        if program is not None:
            return tuple(program[0](arrays))
    return reference(op, arrays, attrs)


def _is_plain(a: np.ndarray) -> bool:
    """Whether NumPy copies it as fast as a kernel, or there is no kernel."""
    return a.flags.c_contiguous or a.dtype.kind == "c"


def contiguous(a: np.ndarray) -> np.ndarray:
    """A copy in memory of its own."""
    if a.size < HEAVY or _is_plain(a) or 0 in a.strides:
        return np.array(a, order="C")
    return _evaluate_heavy(OPS["reshape"], [a], {"shape": a.shape})[0]


def _evaluate_heavy(op: Op, arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    order = None
    if op.name in _POINTWISE:
        order = _order(arrays)
        if order is not None:
            arrays = [a.transpose(order) for a in arrays]
    kernel, dense = _prepared("", op, arrays, attrs)
    try:
        made = kernel.executable(dense)
    except IndexError:
        return reference(op, arrays, attrs)  # raises it in the words of the reference
    if order is not None:
        back = tuple(np.argsort(order))
        made = [a.transpose(back) for a in made]
    return tuple(made)


def _order(arrays: Arrays) -> tuple[int, ...] | None:
    """The order of dimensions in memory, if an operand is permuted: the results keep it."""
    for a in arrays:
        if not a.flags.c_contiguous and 0 not in a.strides:
            order = sorted(range(a.ndim), key=lambda i: -a.strides[i])
            return tuple(order) if order != list(range(a.ndim)) else None
    return None


# Kernels.


class Layout(NamedTuple):
    """How an operand lies in contiguous memory: a slice of it, permuted, then repeated.

    Attributes:
        shape: of the memory.
        starts: of the slice in it; None if it is all of it.
        axes: of the permutation.
        repeated: the operand's dimensions of stride 0.
    """

    shape: tuple[int, ...]
    starts: tuple[int, ...] | None
    axes: tuple[int, ...]
    repeated: tuple[int, ...]


class Kernel(NamedTuple):
    """A compiled op.

    Attributes:
        executable: of its graph.
        used: which of the operands it reads.
        found: of a derivative, the operands that it gives a gradient of; of others not used.
        arena: bytes of its temporaries.
    """

    executable: Executable
    used: tuple[int, ...]
    found: tuple[int, ...]
    arena: int


_kernels: OrderedDict[Any, Kernel] = OrderedDict()
_lock = threading.Lock()


def clear() -> None:
    """Forgets every kernel and program."""
    with _lock:
        _kernels.clear()
        _programs.clear()


def _compact(a: np.ndarray) -> tuple[np.ndarray, Layout | None]:
    """The contiguous memory behind an array, and how the array lies in it (None: as it is)."""
    if a.flags.c_contiguous:
        return a, None
    strides, shape = a.strides, a.shape
    repeated = tuple(i for i in range(a.ndim) if strides[i] == 0 and shape[i] != 1)
    if repeated:
        at = (0 if i in repeated else slice(None) for i in range(a.ndim))
        a = a[(*at, ...)]
        strides = a.strides
    order = sorted(range(a.ndim), key=lambda i: -strides[i])
    axes = tuple(order.index(i) for i in range(a.ndim))
    dense = a.transpose(order)
    if dense.flags.c_contiguous:
        return dense, Layout(dense.shape, None, axes, repeated)
    whole = _around(dense)
    if whole is not None:
        return whole[0], Layout(whole[0].shape, whole[1], axes, repeated)
    dense = np.ascontiguousarray(a)
    axes = tuple(range(a.ndim))
    return dense, Layout(a.shape, None, axes, repeated) if repeated else None


def _around(a: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """The contiguous array that ``a`` is a plain slice of, in ``a``'s rank, and where it starts."""
    base, size = a.base, a.itemsize
    if not (isinstance(base, np.ndarray) and base.flags.c_contiguous and base.dtype == a.dtype):
        return None
    steps = [s // size for s in a.strides]
    if steps[-1] != 1 or base.size > 8 * a.size:
        return None
    outer = [base.size, *steps]
    shape = [n // max(1, s) for n, s in zip(outer, steps, strict=False)]
    offset = (a.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // size
    starts = []
    for n, step, extent, total in zip(a.shape, steps, shape, outer, strict=False):
        start, offset = divmod(offset, step) if step > 0 else (-1, 0)
        if start < 0 or start + n > extent or extent * step != total:
            return None
        starts.append(start)
    return base.reshape(shape), tuple(starts)


def _attributes(attrs: Attrs) -> tuple:
    """Attributes as a key; floats by their text, which tells -0.0 from 0 and NaN is equal to."""
    return tuple(repr(a) if type(a) is float else a for a in attrs.values())


def _prepared(
    kind: Any, op: Op, arrays: Sequence[np.ndarray | None], attrs: Attrs
) -> tuple[Kernel, list[np.ndarray]]:
    """The kernel for these operands, and the memory to call it on."""
    dense: list[np.ndarray] = []
    parts: list[Any] = []
    for a in arrays:
        if a is None:
            parts.append(None)
            continue
        compact, layout = _compact(np.asarray(a))
        dense.append(compact)
        parts.append((a.dtype, a.shape, layout))
    key = (kind, op.name, _attributes(attrs), tuple(parts))
    kernel = _kernels.get(key)
    if kernel is None:
        kernel = _add(key, op, attrs, kind)
    if len(kernel.used) != len(dense):
        dense = [dense[i] for i in kernel.used]
    return kernel, dense


def _add(key: Any, op: Op, attrs: Attrs, kind: Any) -> Kernel:
    with _lock:
        kernel = _kernels.get(key)
        if kernel is not None:
            return kernel
        kernel = _kernels[key] = _compile(op, attrs, key[3], kind)
        held = sum(k.arena for k in _kernels.values())
        while len(_kernels) > 1 and (len(_kernels) > MOST_KERNELS or held > MOST_ARENA):
            held -= _kernels.popitem(last=False)[1].arena
        return kernel


def _graph(op: Op, attrs: Attrs, parts: Sequence[Any], kind: Any) -> tuple[Graph, tuple[int, ...]]:
    """One op, or with a ``kind`` its derivative, on operands of these types and layouts.

    Returns:
        The graph and, for a derivative, the operands whose gradients it returns.
    """
    b = Builder(op.name)
    operands = [None if p is None else _operand(b, *p) for p in parts]
    if not kind:
        b.graph.outputs = list(b.emit(op, [v for v in operands if v is not None], attrs))
        return b.graph, ()
    gradients = _gradients(b, op, attrs, operands, kind)
    b.graph.outputs = list(gradients.values())
    return b.graph, tuple(gradients)


def _compile(op: Op, attrs: Attrs, parts: Sequence[Any], kind: Any) -> Kernel:
    backend = get_backend("cpu")
    graph, found = _graph(op, attrs, parts, kind)
    graph = pipeline.run(graph, target=backend)[-1][1]
    read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)
    used = tuple(i for i, v in enumerate(graph.inputs) if v in read)
    graph.inputs = [graph.inputs[i] for i in used]
    executable: Any = backend.compile_graph(graph)
    return Kernel(executable, used, found, executable.program.arena_bytes)


def _operand(b: Builder, dtype: np.dtype, shape: tuple[int, ...], layout: Layout | None) -> Value:
    """An input in its memory's own shape, and the movement that makes it the operand."""
    element = from_numpy_dtype(dtype)
    if layout is None:
        return b.input(TensorType(element, shape))
    kept = tuple(i for i in range(len(shape)) if i not in layout.repeated)
    x = b.expr(b.input(TensorType(element, layout.shape)))
    if layout.starts is not None:
        inner = [0] * len(kept)
        for i, axis in zip(kept, layout.axes, strict=True):
            inner[axis] = shape[i]
        limits = tuple(s + n for s, n in zip(layout.starts, inner, strict=True))
        ones = (1,) * len(inner)
        x = OPS["slice"](x, starts=layout.starts, limits=limits, strides=ones)
    if layout.axes != tuple(range(len(kept))):
        x = OPS["permute"](x, axes=layout.axes)
    if layout.repeated:
        x = OPS["broadcast"](x, shape=shape, axes=kept)
    value: Value = x.value
    return value


# Programs: the same ops that a rule or decomposition would run, found once.

_programs: dict[Any, tuple[Program, tuple[int, ...]] | None] = {}


def _program(
    kind: Any, op: Op, arrays: Sequence[np.ndarray | None], attrs: Attrs
) -> tuple[Program, tuple[int, ...]] | None:
    """Small work's program; None for large arrays and for what runs the first time."""
    if any(a is not None and a.size > LARGEST_SMALL for a in arrays):
        return None
    parts = tuple(None if a is None else (a.dtype, a.shape, None) for a in arrays)
    key = (kind, op.name, _attributes(attrs), parts)
    known = _programs.get(key)
    if known is None and key not in _programs:
        if len(_programs) >= MOST_PROGRAMS:
            _programs.clear()
        _programs[key] = None
    elif known is None:
        graph, found = _graph(op, attrs, parts, kind)
        known = _programs[key] = Program(dce(decompose(graph))), found
    return known


# Derivatives.


class ArrayEmitter:
    """Runs op rules on arrays, each op by kernel or reference."""

    def emit(self, op: Op, inputs: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
        return evaluate(op, inputs, attrs)

    def type_of(self, value: np.ndarray) -> TensorType:
        return type_of_array(value)


emitter = ArrayEmitter()


def derivative(
    op: Op,
    attrs: Attrs,
    wanted: Sequence[bool],
    memory: Sequence[np.ndarray | None],
    counts: tuple[int, int],
) -> tuple[Callable[[], list[np.ndarray]], tuple[int, ...], tuple[int, ...], bool] | None:
    """The derivative of one op: as one kernel if it is heavy, as one program if that is known.

    Args:
        op: what is differentiated.
        attrs: its attributes.
        wanted: which operands' gradients are asked for.
        memory: operands, results and cotangents; a cotangent of None is zeros.
        counts: how many operands and how many results there are.

    Returns:
        What computes the gradients, the positions in ``memory`` that it reads, the operands that
        the gradients belong to, and whether their memory is their own; None if the rule has to be
        run on arrays.
    """
    kind = (tuple(i for i, w in enumerate(wanted) if w), counts)
    operands = cast(Arrays, memory[: counts[0]])
    if op.name in _JOINT and heavy(op, operands, attrs):
        kernel, dense = _prepared(kind, op, memory, attrs)
        return lambda: kernel.executable(dense), kernel.used, kernel.found, True
    known = _program(kind, op, memory, attrs)
    if known is None:
        return None
    program, found = known
    arrays = [a for a in memory if a is not None]
    return lambda: program(arrays), program.used, found, False


def _gradients(
    b: Builder, op: Op, attrs: Attrs, operands: Sequence[Value | None], kind: Any
) -> dict[int, Value]:
    """The gradient of each wanted operand that has one."""
    wrt, (inputs, results) = kind
    xs = [b.expr(v) for v in operands[:inputs] if v is not None]
    ys = [b.expr(v) for v in operands[inputs : inputs + results] if v is not None]
    gs = [
        y.full(0.0) if v is None else b.expr(v)
        for y, v in zip(ys, operands[inputs + results :], strict=True)
    ]
    wanted = [i in wrt for i in range(inputs)]
    found = op.gradients(wanted, gs, ys, xs, attrs)
    return {i: f.value for i, f in enumerate(found) if f is not None}
