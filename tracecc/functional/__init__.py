"""Every function of tensors, one file per family; `tracecc` re-exports all of them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tracecc.arguments import checked
from tracecc.casts import autocasting
from tracecc.functional import (
    activation,
    calculus,
    complex,
    copies,
    creation,
    extra,
    factor,
    indexing,
    joining,
    linalg,
    logic,
    pointwise,
    random,
    reductions,
    shape,
    solving,
    sorting,
    spectrogram,
    strided,
    subscript,
)

PUBLIC: dict[ModuleType, str] = {
    activation: "log_softmax softmax",
    complex: """adjoint angle complex conj imag is_conj isreal polar real resolve_conj resolve_neg
        sgn view_as_complex view_as_real""",
    creation: """arange as_tensor asarray empty empty_like eye from_dlpack from_numpy frombuffer
        full full_like get_default_dtype linspace logspace meshgrid ones ones_like scalar_tensor
        set_default_dtype tensor tril_indices triu_indices zeros zeros_like detach""",
    pointwise: """abs absolute acos acosh add addcdiv addcmul arccos arccosh arcsin arcsinh arctan
        arctan2 arctanh asin asinh atan atan2 atanh ceil clamp clamp_max clamp_min clip
        clone cos cosh deg2rad digamma div divide erf erfc erfinv exp exp2 expm1 fill fix
        floor floor_divide fmax fmin fmod frac hypot lerp lgamma log log10 log1p log2
        logaddexp logit masked_fill maximum minimum mul multiply nan_to_num neg negative
        positive pow rad2deg reciprocal relu remainder round rsqrt rsub sigmoid sign sin
        sinc sinh sqrt square sub subtract tan tanh true_divide trunc where xlogy""",
    logic: """allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
        bitwise_xor eq equal ge greater greater_equal gt isclose isfinite isinf isnan
        isneginf isposinf le less less_equal logical_and logical_not logical_or logical_xor
        lt ne not_equal signbit""",
    reductions: """all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod
        cumsum diff dist logcumsumexp logsumexp max mean min nanmean nansum norm prod renorm std
        std_mean sum var var_mean""",
    shape: """as_strided broadcast_tensors broadcast_to chunk diagonal dsplit flatten
        hsplit moveaxis movedim narrow permute ravel reshape select split split_with_sizes
        squeeze swapaxes swapdims t tensor_split transpose unbind unflatten unsqueeze vsplit""",
    joining: """atleast_1d atleast_2d atleast_3d cat column_stack concat concatenate dstack flip
        fliplr flipud hstack roll rot90 row_stack stack tile vstack""",
    indexing: """cartesian_prod diag diag_embed gather index_add index_copy index_fill index_select
        scatter scatter_add scatter_reduce take take_along_dim tril triu""",
    sorting: """argsort argwhere bincount bucketize histc isin kthvalue masked_scatter masked_select
        median msort nanmedian nonzero repeat_interleave searchsorted sort topk unique""",
    spectrogram: "istft stft",
    strided: "empty_permuted empty_strided",
    subscript: "index_put",
    linalg: """addbmm addmm addmv addr baddbmm bmm cdist chain_matmul cross dot einsum ger
        inner kron matmul mm mv outer tensordot trace vdot""",
    factor: "cholesky cholesky_inverse cholesky_solve geqrf lu_unpack ormqr",
    solving: """det logdet matrix_exp matrix_power nuclear_norm pinverse slogdet
        triangular_solve""",
    calculus: """corrcoef cov cumulative_trapezoid gradient histogram histogramdd mode nanquantile
        quantile trapezoid trapz""",
    copies: """alias_copy as_strided_copy as_strided_scatter block_diag combinations diagflat
        diagonal_copy diagonal_scatter expand_copy index_reduce narrow_copy nonzero_static
        permute_copy select_copy select_scatter slice_scatter split_copy split_with_sizes_copy
        squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unique_consecutive unravel_index
        unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze_copy view_copy""",
    extra: """broadcast_shapes copysign float_power frexp gcd heaviside i0 igamma igammac lcm ldexp
         nextafter logaddexp2 mvlgamma polygamma""",
    random: """bernoulli multinomial normal poisson rand rand_like randint randint_like randn
        randn_like randperm""",
}


def _public(module: ModuleType, name: str) -> Any:
    """A function as users call it; those that take other libraries' arrays say so themselves."""
    function = autocasting(name, getattr(module, name))
    return function if name.startswith("from") else checked(name, function)


FUNCTIONS: dict[str, Any] = {
    name: _public(module, name) for module, names in PUBLIC.items() for name in names.split()
}

# Older functions of PyTorch's, and names for what is the same.
FUNCTIONS |= {
    name: checked(name, autocasting(name, function))
    for name, function in dict[str, Any](
        {
            "conj_physical": complex.conj,
            "inverse": solving.inv,
            "lu": factor.packed_lu,
            "lu_solve": factor.old_lu_solve,
            "orgqr": factor.householder_product,
            "put": indexing.put,
            "qr": factor.old_qr,
            "svd": factor.old_svd,
        }
    ).items()
}


def __getattr__(name: str) -> Any:
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise AttributeError(f"module 'tracecc.functional' has no attribute {name!r}") from None
