"""What autocast does to single functions: it casts their arguments, then calls them outside.

The lists are PyTorch's for the CPU. Where dtypes are mixed by plain promotion (cat, stack, add),
there is nothing to do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tracecc.pytree import flatten, unflatten
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc_ir.types import DType, bf16, f16, f32

F = TypeVar("F", bound=Callable[..., Any])

# Products run in the region's dtype; what loses too much by that runs in float32, and what needs
# one dtype runs in the widest of its operands'.
LOWER = """addbmm addmm baddbmm bmm chain_matmul conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d einsum inner linalg.matmul linalg.matrix_power
    linalg.multi_dot linalg.vecdot linear matmul matrix_power mm prelu scaled_dot_product_attention
    tensordot"""
FULL = """adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d binary_cross_entropy
    binary_cross_entropy_with_logits cdist cholesky cholesky_inverse cholesky_solve
    cosine_embedding_loss cross_entropy ctc_loss fft.fft fft.fft2 fft.fftn fft.hfft fft.hfft2
    fft.hfftn fft.ifft fft.ifft2 fft.ifftn fft.ihfft fft.ihfft2 fft.ihfftn fft.irfft fft.irfft2
    fft.irfftn fft.rfft fft.rfft2 fft.rfftn geqrf grid_sample hinge_embedding_loss huber_loss
    inverse kl_div l1_loss linalg.cholesky linalg.cholesky_ex linalg.cond linalg.eig linalg.eigh
    linalg.eigvals linalg.eigvalsh linalg.householder_product linalg.inv linalg.inv_ex linalg.lstsq
    linalg.matrix_rank linalg.qr linalg.solve linalg.svd linalg.svdvals linalg.tensorinv
    linalg.tensorsolve local_response_norm lu_solve margin_ranking_loss max_pool3d max_unpool1d
    max_unpool2d max_unpool3d mse_loss multi_margin_loss multilabel_margin_loss nanquantile nll_loss
    orgqr ormqr pad pinverse poisson_nll_loss polar prod qr quantile smooth_l1_loss soft_margin_loss
    stft svd trace triangular_solve triplet_margin_loss"""
WIDEST = "index_copy"


def _sums(equation: Any, *operands: Any) -> bool:
    """Whether einsum has a product that is summed."""
    if not isinstance(equation, str):
        return True
    terms, arrow, result = equation.partition("->")
    return "," in terms and (not arrow or not set(terms) - {",", " ", "."} <= set(result))


# Functions that are concerned only if their arguments say so.
_IF: dict[str, Callable[..., bool]] = {
    "einsum": _sums,
    "inner": lambda input, other: input.ndim > 1 or other.ndim > 1,
    "local_response_norm": lambda input, *_, **__: input.ndim > 3,
    "pad": lambda input, pad, mode="constant", value=None: (
        mode == "replicate" or (mode == "reflect" and len(pad) < 6)
    ),
}
_KINDS = {n: k for k, names in enumerate((LOWER, FULL, WIDEST)) for n in names.split()}


def _casts(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dtype in (f32, f16, bf16)


def cast(value: Any, dtype: DType) -> Any:
    """Every floating point tensor in ``value`` (but float64 ones) as ``dtype``."""
    leaves, structure = flatten(value)
    return unflatten(structure, iter([_as(t, dtype) if _casts(t) else t for t in leaves]))


def lowered(value: Any) -> Any:
    """``value`` with its tensors in the dtype of the present region, if there is one."""
    return value if thread.autocast is None else cast(value, thread.autocast)


def _as(t: Tensor, dtype: DType) -> Tensor:
    """``t`` as ``dtype``; what a parameter was cast to is kept until the outermost region ends."""
    kept = thread.casts
    if t.dtype is dtype or kept is None or not (t.requires_grad and t.is_leaf):
        return t.to(dtype)  # type: ignore[attr-defined]
    if thread.trace is not None:  # equal casts in a graph are one
        return t.to(dtype)  # type: ignore[attr-defined]
    key = id(t), dtype.name, thread.grad_enabled
    if key not in kept or kept[key][1] != t._version:
        kept[key] = t, t._version, t.to(dtype)  # type: ignore[attr-defined]
    return kept[key][2]


def autocasting(name: str, function: F) -> F:
    """``function`` as autocast regions call it; itself if they do not change it."""
    if name not in _KINDS:
        return function
    kind, concerned = _KINDS[name], _IF.get(name)

    @functools.wraps(function)
    def casting(*args: Any, **kwargs: Any) -> Any:
        region = thread.autocast
        if region is None or (concerned is not None and not concerned(*args, **kwargs)):
            return function(*args, **kwargs)
        dtype = (region, f32, None)[kind] or _widest((args, kwargs), region)
        args, kwargs = cast((args, kwargs), dtype)
        thread.autocast = None
        try:
            return function(*args, **kwargs)
        finally:
            thread.autocast = region

    return casting  # type: ignore[return-value]


def _widest(value: Any, region: DType) -> DType:
    dtypes = {t.dtype for t in flatten(value)[0] if _casts(t)}
    return region if dtypes <= {region} else f32


def wrap_all(namespace: dict[str, Any], names: Iterable[str], prefix: str = "") -> None:
    """Makes the functions of a module obey autocast regions."""
    for name in names:
        namespace[name] = autocasting(prefix + name, namespace[name])
