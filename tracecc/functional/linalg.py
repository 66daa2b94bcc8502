"""Products of matrices, all as `dot_general` without needless copies, and einsum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.functional.complex import conj
from tracecc.functional.core import (
    broadcast_shapes,
    check_tensor,
    emit,
    expanded,
    is_number,
    permuted,
    reshaped,
    to_dtype,
    wrap_dim,
)
from tracecc.functional.pointwise import add, clone, mul, sub
from tracecc.functional.reductions import sum as _sum
from tracecc.functional.reductions import vector_norm
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import bool_

Ints = tuple[int, ...]


def dot_general(
    x: Tensor, y: Tensor, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints] = ((), ())
) -> Tensor:
    return emit(ops.dot_general, x, y, contract=contract, batch=batch)


def _check_dtypes(name: str, x: Tensor, y: Tensor) -> None:
    check_tensor(name, x)
    check_tensor(name, y, "other")
    if x.dtype is not y.dtype:
        raise RuntimeError(
            f"{name}: expected both operands to have the same dtype, but got: "
            f"{x.dtype.public} != {y.dtype.public}"
        )
    if x.dtype is bool_:
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'")


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; vectors are rows on the left and columns on the right, batches broadcast.

    >>> import tracecc as tc
    >>> tc.matmul(tc.ones(2, 3), tc.ones(3))
    tensor([3., 3.])
    """
    x, y = input, other
    _check_dtypes("matmul", x, y)
    if x.ndim == 0 or y.ndim == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {x.ndim}D and {y.ndim}D"
        )
    inner = (x.ndim - 1, max(y.ndim - 2, 0))
    if x._type.shape[inner[0]] != y._type.shape[inner[1]]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({_product(x)} and {_product(y)})"
        )
    if y.ndim <= 2:  # the free dimensions of x and those of y, as they are
        return dot_general(x, y, ((inner[0],), (inner[1],)))
    if x.ndim == 1:  # [batch, n]
        return dot_general(y, x, ((inner[1],), (0,)))
    lead = broadcast_shapes(x._type.shape[:-2], y._type.shape[:-2])
    x = expanded(x, (*lead, *x._type.shape[-2:]))
    y = expanded(y, (*lead, *y._type.shape[-2:]))
    k = len(lead)
    both = (tuple(range(k)), tuple(range(k)))
    return dot_general(x, y, ((k + 1,), (k,)), both)


def _product(x: Tensor) -> str:
    return "x".join(map(str, x._type.shape))


def _check_ndim(name: str, what: str, x: Tensor, ndim: int) -> None:
    if x.ndim != ndim:
        raise RuntimeError(f"{name}: {what} must be {ndim}D, given {x.ndim}D")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _check_ndim("mm", "input", input, 2)
    _check_ndim("mm", "mat2", mat2, 2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    _check_ndim("bmm", "batch1", input, 3)
    _check_ndim("bmm", "batch2", mat2, 3)
    if input._type.shape[0] != mat2._type.shape[0]:
        raise RuntimeError(
            f"bmm: expected batches of one size, given {input._type.shape[0]} and "
            f"{mat2._type.shape[0]}"
        )
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    _check_ndim("mv", "input", input, 2)
    _check_ndim("mv", "vec", vec, 1)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input._type.shape != tensor._type.shape:
        raise RuntimeError(
            "inconsistent tensor size, expected tensor and src to have the same number of "
            f"elements, but got {input._type.size} and {tensor._type.size} elements respectively"
        )
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors, the first of them conjugated."""
    return dot(conj(input), other)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimensions."""
    if input.ndim == 0 or other.ndim == 0:
        return mul(input, other)
    _check_dtypes("inner", input, other)
    return dot_general(input, other, ((input.ndim - 1,), (other.ndim - 1,)))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors."""
    _check_ndim("outer", "self", input, 1)
    _check_ndim("outer", "vec2", vec2, 1)
    return mul(reshaped(input, (input._type.size, 1)), vec2)


ger = outer


def _plus(name: str, input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * product; a beta of 0 ignores even NaN."""
    if not product.dtype.is_inexact:
        alpha, beta = int(alpha), int(beta)
    if not (is_number(alpha) and alpha == 1):
        product = to_dtype(mul(product, alpha), product.dtype)
    if is_number(beta) and beta == 0:
        return product
    scaled = input if is_number(beta) and beta == 1 else mul(input, beta)
    return add(expanded(to_dtype(scaled, product.dtype), product._type.shape), product)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * mat1 @ mat2``."""
    return _plus("addmm", input, mm(mat1, mat2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * mat @ vec``."""
    return _plus("addmv", input, mv(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``."""
    return _plus("addr", input, outer(vec1, vec2), beta, alpha)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * batch1 @ batch2``."""
    return _plus("baddbmm", input, bmm(batch1, batch2), beta, alpha)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * sum over the batch of batch1 @ batch2``."""
    _check_ndim("addbmm", "batch1", batch1, 3)
    product = dot_general(batch1, batch2, ((0, 2), (0, 1)))
    return _plus("addbmm", input, product, beta, alpha)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices from left to right."""
    product = matrices[0]
    for m in matrices[1:]:
        product = mm(product, m)
    return product


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    from tracecc.functional.shape import diagonal

    _check_ndim("trace", "input", input, 2)
    return _sum(diagonal(input))


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Contracts the last ``dims`` dimensions of a with the first of b, or the pairs given."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims >= 0 and at most the ranks, but got {dims}")
        left = list(range(a.ndim - dims, a.ndim))
        right = list(range(dims))
    else:
        left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    xs = tuple(wrap_dim(d, a.ndim) for d in left)
    ys = tuple(wrap_dim(d, b.ndim) for d in right)
    if len(xs) != len(ys):
        raise RuntimeError("both dimension lists should have same length")
    a, b = _without_ones(a, b, xs, ys)
    for i, j in zip(xs, ys, strict=True):
        if a._type.shape[i] != b._type.shape[j]:
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a._type.shape[i]} in "
                f"dim {i} and second has size {b._type.shape[j]} in dim {j}"
            )
    _check_dtypes("tensordot", a, b)
    return dot_general(a, b, (xs, ys))


def _without_ones(a: Tensor, b: Tensor, xs: Ints, ys: Ints) -> tuple[Tensor, Tensor]:
    """Contracted dimensions of size 1 against others: the others are summed first."""
    for i, j in zip(xs, ys, strict=True):
        m, n = a._type.shape[i], b._type.shape[j]
        if m == 1 and n != 1:
            b = _sum(b, j, True)
        elif n == 1 and m != 1:
            a = _sum(a, i, True)
    return a, b


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """All p-norm distances between rows of x1 and rows of x2."""
    if x1.ndim < 2 or x2.ndim < 2:
        raise RuntimeError("cdist only supports at least 2D tensors")
    if x1._type.shape[-1] != x2._type.shape[-1]:
        raise RuntimeError("X1 and X2 must have the same number of columns.")
    a, b = x1._type.shape, x2._type.shape
    left = reshaped(x1, (*a[:-1], 1, a[-1]))
    right = reshaped(x2, (*b[:-2], 1, *b[-2:]))
    return vector_norm(sub(left, right), p, -1)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    n = max(input.ndim, other.ndim)
    a = (1,) * (n - input.ndim) + tuple(input._type.shape)
    b = (1,) * (n - other.ndim) + tuple(other._type.shape)
    x = reshaped(input, [s for size in a for s in (size, 1)])
    y = reshaped(other, [s for size in b for s in (1, size)])
    return reshaped(mul(x, y), [m * k for m, k in zip(a, b, strict=True)])


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product of vectors of three elements along ``dim`` (the first such by default)."""
    from tracecc.functional.joining import roll

    shape = broadcast_shapes(input._type.shape, other._type.shape)
    axis = shape.index(3) if dim is None else wrap_dim(dim, len(shape))
    if shape[axis] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {axis} must have length 3, given {shape[axis]}"
        )
    x, y = expanded(input, shape), expanded(other, shape)
    first = mul(roll(x, -1, axis), roll(y, -2, axis))
    return sub(first, mul(roll(x, -2, axis), roll(y, -1, axis)))


# Einstein summation.


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by labelled dimensions, contracted pairwise from left to right.

    >>> import tracecc as tc
    >>> tc.einsum("ij,jk->ik", tc.ones(2, 3), tc.ones(3, 2))
    tensor([[3., 3.],
            [3., 3.]])
    """
    xs: list[Tensor] = list(
        operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    )
    inputs, output = _labels(equation, xs)
    terms = [_single(x, labels) for x, labels in zip(xs, inputs, strict=True)]
    sizes = _sizes(equation, terms)
    while len(terms) > 1:
        (x, a), (y, b), *rest = terms
        needed = set(output).union(*(labels for _, labels in rest))
        terms = [_contract(x, a, y, b, needed, sizes), *rest]
    x, labels = terms[0]
    gone = [i for i, label in enumerate(labels) if label not in output]
    if gone:
        x, labels = _sum(x, gone), [label for label in labels if label in output]
    shape = tuple(sizes[label] for label in labels)
    result = permuted(expanded(x, shape), [labels.index(label) for label in output])
    return clone(result) if any(result is t for t in xs) else result


def _labels(equation: str, xs: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """Labels of every operand and of the result; an ellipsis becomes labels "0", "1", ..."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(xs):
        raise RuntimeError(
            f"einsum(): {'more' if len(parts) < len(xs) else 'fewer'} operands were provided than "
            f"specified in the equation: {len(xs)} for {equation!r}"
        )
    inputs: list[list[str]] = []
    widest = 0
    for part, x in zip(parts, xs, strict=True):
        before, dots, after = part.partition("...")
        named = len(before) + len(after)
        extra = x.ndim - named
        if extra < 0 or (extra and not dots):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match the "
                f"number of dimensions ({x.ndim}) for operand {len(inputs)}"
            )
        widest = max(widest, extra)
        inputs.append([*before, *(f"-{extra - i}" for i in range(extra)), *after])
        for label in (*before, *after):
            if not label.isalpha():
                raise RuntimeError(
                    f"einsum(): subscripts must be letters, given {label!r} in {equation!r}"
                )
    ellipsis = [f"-{widest - i}" for i in range(widest)]
    if not arrow:
        every = "".join(parts)
        once = sorted(c for c in set(every) if c.isalpha() and every.count(c) == 1)
        return inputs, [*ellipsis, *once]
    before, dots, after = right.partition("...")
    output = [*before, *(ellipsis if dots else []), *after]
    known = set().union(*inputs)
    for label in output:
        if label not in known or output.count(label) > 1:
            raise RuntimeError(
                f"einsum(): output subscript {label} must appear once, and in some operand: "
                f"{equation!r}"
            )
    return inputs, output


def _single(x: Tensor, labels: list[str]) -> tuple[Tensor, list[str]]:
    """An operand with each label once: repeated ones become diagonals."""
    from tracecc.functional.shape import diagonal

    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = diagonal(x, 0, i, j)
            labels = [c for k, c in enumerate(labels) if k not in (i, j)] + [label]
    return x, labels


def _sizes(equation: str, terms: Sequence[tuple[Tensor, list[str]]]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for x, labels in terms:
        for label, n in zip(labels, x._type.shape, strict=True):
            known = sizes.get(label, 1)
            if n != known and n != 1 and known != 1:
                raise RuntimeError(
                    f"einsum(): subscript {label} has size {n} for one operand of {equation!r} "
                    f"and size {known} for another"
                )
            sizes[label] = known if n == 1 else n
    return sizes


def _contract(
    x: Tensor, a: list[str], y: Tensor, b: list[str], needed: set[str], sizes: dict[str, Any]
) -> tuple[Tensor, list[str]]:
    """One pairwise product: labels that nobody needs any more are summed."""
    x, a = _drop(x, a, needed | set(b))
    y, b = _drop(y, b, needed | set(a))
    # A dimension of size 1 on one side only broadcasts: it counts as absent there.
    for label in set(a) & set(b):
        m, n = x._type.shape[a.index(label)], y._type.shape[b.index(label)]
        if m != n:
            x, a = _squeezed(x, a, label) if m == 1 else (x, a)
            y, b = _squeezed(y, b, label) if n == 1 else (y, b)
    x, a = _drop(x, a, needed | set(b))
    y, b = _drop(y, b, needed | set(a))
    shared = [label for label in a if label in b]
    kept = [label for label in shared if label in needed]
    summed = [label for label in shared if label not in needed]

    def pair(labels: list[str]) -> tuple[Ints, Ints]:
        return tuple(a.index(c) for c in labels), tuple(b.index(c) for c in labels)

    _check_dtypes("einsum", x, y)
    product = dot_general(x, y, pair(summed), pair(kept))
    free = [c for c in a if c not in shared] + [c for c in b if c not in shared]
    return product, kept + free


def _drop(x: Tensor, labels: list[str], needed: set[str]) -> tuple[Tensor, list[str]]:
    gone = [i for i, label in enumerate(labels) if label not in needed]
    if not gone:
        return x, labels
    return _sum(x, gone), [label for label in labels if label in needed]


def _squeezed(x: Tensor, labels: list[str], label: str) -> tuple[Tensor, list[str]]:
    i = labels.index(label)
    shape = x._type.shape
    return reshaped(x, (*shape[:i], *shape[i + 1 :])), labels[:i] + labels[i + 1 :]
