"""What autocast does to single functions: it casts their arguments, then calls them outside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tracecc.pytree import flatten, unflatten
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc_ir.types import DType, bf16, f16, f32

F = TypeVar("F", bound=Callable[..., Any])

# Products run in the region's dtype; what loses too much by that runs in float32.
LOWER = """addbmm addmm baddbmm bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d linear matmul mm mv scaled_dot_product_attention"""
FULL = """avg_pool3d binary_cross_entropy cdist cosine_embedding_loss cross_entropy ctc_loss
    grid_sample hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss
    multi_margin_loss multilabel_margin_loss nll_loss poisson_nll_loss prod smooth_l1_loss
    soft_margin_loss trace triplet_margin_loss quantile nanquantile"""
_LOWERS = {**dict.fromkeys(LOWER.split(), True), **dict.fromkeys(FULL.split(), False)}


def cast(value: Any, dtype: DType) -> Any:
    """Every floating point tensor in ``value`` (but float64 ones) as ``dtype``."""
    leaves, structure = flatten(value)
    made = [
        t.to(dtype)  # type: ignore[attr-defined]
        if isinstance(t, Tensor) and t.dtype in (f32, f16, bf16)
        else t
        for t in leaves
    ]
    return unflatten(structure, iter(made))


def autocasting(name: str, function: F) -> F:
    """``function`` as autocast regions call it; itself if they do not change it."""
    if name not in _LOWERS:
        return function
    lower = _LOWERS[name]

    @functools.wraps(function)
    def casting(*args: Any, **kwargs: Any) -> Any:
        region = thread.autocast
        if region is None:
            return function(*args, **kwargs)
        args, kwargs = cast((args, kwargs), region if lower else f32)
        thread.autocast = None
        try:
            return function(*args, **kwargs)
        finally:
            thread.autocast = region

    return casting  # type: ignore[return-value]


def wrap_all(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Makes the functions of a module obey autocast regions."""
    for name in names:
        namespace[name] = autocasting(name, namespace[name])
