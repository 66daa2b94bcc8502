"""Attaches methods, operators and in-place forms to Tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracecc import printing
from tracecc.devices import CPU
from tracecc.functional import (
    FUNCTIONS,
    copies,
    creation,
    joining,
    random,
    shape,
    strided,
    subscript,
)
from tracecc.functional.core import is_number, to_dtype
from tracecc.functional.indexing import put, take
from tracecc.functional.subscript import write
from tracecc.lacking import OF_TENSORS, Lacking
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc.tensor_methods import (
    array_namespace,
    backward,
    contains,
    conversion,
    copy_,
    cpu,
    cuda,
    data_ptr,
    deepcopy,
    detach_,
    dlpack,
    dlpack_device,
    fill_,
    format_,
    index,
    is_nonzero,
    item,
    iterate,
    numpy,
    rebuild,
    reduce_ex,
    register_hook,
    register_post_accumulate_grad_hook,
    requires_grad_,
    reshaping,
    resize_,
    retain_grad,
    scalar,
    size,
    stride,
    to,
    to_device,
    tolist,
    type_,
    type_as,
    zero_,
)
from tracecc_ir.types import DTYPES

METHODS = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all allclose
    amax amin aminmax any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
    argsort argwhere as_strided asin asinh atan atan2 atanh baddbmm bincount bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_to
    ceil cholesky chunk clamp clamp_max clamp_min clip clone cos cosh count_nonzero cross cummax
    cummin cumprod cumsum deg2rad diag diag_embed diagonal diff digamma dist div divide dot
    dsplit eq equal erf erfc erfinv exp exp2 expm1 fix flatten flip fliplr flipud floor
    floor_divide fmax fmin fmod frac gather ge ger greater greater_equal gt histc hsplit hypot
    index_add index_copy index_fill index_put index_select inner isclose isfinite isinf isnan
    isneginf isposinf kron kthvalue le lerp less less_equal lgamma log log10 log1p log2
    logaddexp logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp lt
    masked_fill masked_scatter masked_select matmul max maximum mean median min minimum mm
    moveaxis movedim msort mul multinomial multiply mv nan_to_num nanmean nanmedian nansum
    narrow ne neg negative nonzero norm not_equal outer permute positive pow prod rad2deg ravel
    reciprocal relu remainder renorm repeat_interleave reshape roll rot90 round rsqrt scatter
    scatter_add scatter_reduce select sigmoid sign signbit sin sinc sinh sort split
    split_with_sizes sqrt square squeeze std sub subtract sum swapaxes swapdims t take_along_dim
    tan tanh tensor_split tile topk transpose tril triu true_divide trunc unbind unflatten
    unique unsqueeze var vdot vsplit where xlogy bernoulli isin log_softmax softmax
    cholesky_inverse cholesky_solve det geqrf inverse logdet lu lu_solve matrix_exp matrix_power
    orgqr ormqr pinverse qr slogdet svd triangular_solve
    angle conj conj_physical is_conj copysign corrcoef cov diagflat diagonal_scatter float_power
    frexp heaviside index_reduce isreal ldexp logaddexp2 mode mvlgamma nanquantile narrow_copy
    quantile resolve_conj resolve_neg select_scatter sgn slice_scatter trace unique_consecutive
    gcd i0 igamma igammac lcm nextafter unsafe_chunk unsafe_split unsafe_split_with_sizes
    as_strided_scatter nonzero_static histogram istft logdet stft
"""

IN_PLACE = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp
    clamp_max clamp_min clip cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc
    erfinv exp exp2 expm1 fix floor floor_divide fmod frac ge greater greater_equal gt hypot
    index_add index_copy index_fill le lerp less less_equal lgamma log log10 log1p log2
    logical_and logical_not logical_or logical_xor logit lt masked_fill masked_scatter mul
    multiply nan_to_num ne neg negative not_equal pow rad2deg reciprocal relu remainder renorm
    round rsqrt scatter scatter_add scatter_reduce sigmoid sign sin sinc sinh sqrt square sub
    subtract tan tanh tril triu true_divide trunc xlogy
    copysign float_power gcd heaviside i0 igamma igammac index_reduce lcm ldexp mvlgamma nextafter
    put sgn conj_physical
"""

# Kinds of tensors that PyTorch's flags tell apart and that are never met here.
OTHER_KINDS = (
    "is_cuda is_sparse is_sparse_csr is_quantized is_nested is_mkldnn is_meta is_mps is_xpu"
)


def store_result(name: str, self: Tensor, result: Tensor) -> Tensor:
    """Writes an operation's result into its operand, as PyTorch allows it."""
    if result.dtype.rank > self.dtype.rank:
        raise RuntimeError(
            f"result type {result.dtype.public} can't be cast to the desired output type "
            f"{self.dtype.public}"
        )
    if result._type.shape != self._type.shape:
        raise RuntimeError(
            f"output with shape {list(self._type.shape)} doesn't match the broadcast shape "
            f"{list(result._type.shape)}"
        )
    return write(self, to_dtype(result, self.dtype))


def as_it_was(self: Tensor, args: tuple) -> Tensor:
    """What an in-place operation computes from: if it is recorded, a copy that outlives it."""
    recorded = thread.grad_enabled and thread.trace is None
    if not recorded or not any(isinstance(a, Tensor) and a._requires_grad for a in (self, *args)):
        return self
    before = rebuild(Tensor, self._numpy().copy(), self._requires_grad, {})
    before._grad_fn, before._output_index = self.grad_fn, self._output_index
    return before


def in_place(name: str, function: Callable) -> Callable:
    """The in-place form of a function of tensors."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._check_writable()
        before = as_it_was(self, args)
        args = tuple(before if a is self else a for a in args)
        return store_result(name, self, function(before, *args, **kwargs))

    method.__name__ = method.__qualname__ = name + "_"
    method.__doc__ = f"`{name}` in place: overwrites this tensor and returns it."
    return method


# Operators.


def _is_operand(x: Any) -> bool:
    return isinstance(x, Tensor) or is_number(x)


def operator(name: str, swap: bool = False) -> Callable:
    """A binary operator; NotImplemented for anything but tensors and numbers."""
    function = FUNCTIONS[name]

    def method(self: Tensor, other: Any) -> Any:
        if not _is_operand(other):
            if not isinstance(other, np.ndarray):
                return NotImplemented
            other = creation.from_numpy(other)
        return function(other, self) if swap else function(self, other)

    return method


def in_place_operator(name: str) -> Callable:
    form = in_place(name, FUNCTIONS[name])

    def method(self: Tensor, other: Any) -> Any:
        return form(self, other) if _is_operand(other) else NotImplemented

    return method


_BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "matmul": "matmul",
}


def _attach_operators() -> None:
    for symbol, name in _BINARY.items():
        setattr(Tensor, f"__{symbol}__", operator(name))
        setattr(Tensor, f"__r{symbol}__", operator(name, swap=True))
        if symbol != "matmul":
            setattr(Tensor, f"__i{symbol}__", in_place_operator(name))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", operator(name))
    own = {
        "neg": FUNCTIONS["neg"],
        "pos": FUNCTIONS["positive"],
        "abs": FUNCTIONS["abs"],
        "invert": FUNCTIONS["bitwise_not"],
        "rdiv": operator("div", swap=True),
        "getitem": subscript.getitem,
        "setitem": subscript.setitem,
        "bool": scalar(bool, "the truth of a tensor"),
        "int": scalar(int, "the integer value of a tensor"),
        "float": scalar(float, "the value of a tensor"),
        "index": index,
        "iter": iterate,
        "contains": contains,
        "repr": printing.describe,
        "format": format_,
        "deepcopy": deepcopy,
        "reduce_ex": reduce_ex,
        "dlpack": dlpack,
        "dlpack_device": dlpack_device,
        "array_namespace": array_namespace,
    }
    for name, function in own.items():
        setattr(Tensor, f"__{name}__", function)


def _attach_methods() -> None:
    for name in METHODS.split():
        setattr(Tensor, name, FUNCTIONS[name])
    for name in IN_PLACE.split():
        setattr(Tensor, name + "_", in_place(name, FUNCTIONS[name]))
    views: dict[str, Callable] = {
        "t": shape.t,
        "transpose": shape.transpose,
        "squeeze": shape.squeeze,
    }
    views |= {"unsqueeze": shape.unsqueeze, "swapaxes": shape.swapaxes, "swapdims": shape.swapdims}
    for name, function in views.items():
        setattr(Tensor, name + "_", reshaping(name, function))
    for name in (
        "uniform_",
        "normal_",
        "bernoulli_",
        "random_",
        "exponential_",
        "cauchy_",
        "log_normal_",
        "geometric_",
    ):
        setattr(Tensor, name, getattr(random, name))
    for name in ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"):
        setattr(Tensor, name, getattr(creation, name))
    for name in (
        "contiguous",
        "is_contiguous",
        "expand",
        "expand_as",
        "reshape_as",
        "unfold",
        "view_as",
    ):
        setattr(Tensor, name, getattr(shape, name))
    plain: list[Callable] = [zero_, fill_, copy_, resize_, to, cpu, cuda, item, tolist, numpy]
    plain += [backward, requires_grad_, detach_, register_hook, retain_grad, size, stride, data_ptr]
    plain += [register_post_accumulate_grad_hook, take, put, type_as, to_device]
    for method in plain:
        setattr(Tensor, method.__name__, method)
    for name in OF_TENSORS.split():
        if not hasattr(Tensor, name):
            setattr(Tensor, name, Lacking(name))
    for name in ("fill_diagonal_", "new_empty_strided", "resize_as_"):
        setattr(Tensor, name, getattr(strided, name))
    renamed: dict[str, Callable] = {
        "repeat": joining.repeat,
        "polygamma": lambda self, n: FUNCTIONS["polygamma"](n, self),
        "sum_to_size": copies.sum_to_size,
        "view": shape.view_as_shape,
        "type": type_,
    }
    renamed["polygamma_"] = in_place("polygamma", renamed["polygamma"])
    for name, function in (renamed | {"index_put_": subscript.index_put_}).items():
        setattr(Tensor, name, function)
    conversions = {"half": "f16", "bfloat16": "bf16", "float": "f32", "double": "f64"}
    conversions |= {"cfloat": "c64", "cdouble": "c128"}
    conversions |= {"bool": "bool", "byte": "u8", "char": "i8", "short": "i16", "int": "i32"}
    for name, ir_name in (conversions | {"long": "i64"}).items():
        setattr(Tensor, name, conversion(name, DTYPES[ir_name]))


def _attach_facts() -> None:
    facts: dict[str, Callable[..., Any]] = {
        "dim": lambda self: self.ndim,
        "ndimension": lambda self: self.ndim,
        "numel": lambda self: self._type.size,
        "nelement": lambda self: self._type.size,
        "element_size": lambda self: self.dtype.itemsize,
        "is_floating_point": lambda self: self.dtype.is_floating_point,
        "is_complex": lambda self: self.dtype.is_complex,
        "is_signed": lambda self: self.dtype.is_signed,
        "get_device": lambda self: -1,
        "is_nonzero": is_nonzero,
        "is_same_size": lambda self, other: self._type.shape == other._type.shape,
        "is_set_to": lambda self, tensor: (
            data_ptr(self) == data_ptr(tensor)
            and (self._type, stride(self)) == (tensor._type, stride(tensor))
        ),
        **dict.fromkeys(("is_neg", "is_pinned", "is_shared", "is_inference"), lambda self: False),
        **dict.fromkeys(("pin_memory", "share_memory_", "coalesce", "to_dense"), cpu),
        "storage_offset": _offset,
        "__complex__": lambda self: complex(item(self)),
    }
    properties: dict[str, Callable[[Tensor], Any]] = {
        "T": shape.T,
        "H": lambda self: FUNCTIONS["conj"](shape.t(self)),
        "mT": shape.mT,
        "mH": FUNCTIONS["adjoint"],
        "device": lambda self: CPU,
        "layout": lambda self: "strided",
        "name": lambda self: None,
        "output_nr": lambda self: self._output_index if self.grad_fn is not None else 0,
        "is_cpu": lambda self: True,
        **dict.fromkeys(OTHER_KINDS.split(), lambda self: False),
        "itemsize": lambda self: self.dtype.itemsize,
        "nbytes": lambda self: self._type.nbytes,
        "retains_grad": lambda self: self._retains_grad,
    }
    for name, fact in facts.items():
        setattr(Tensor, name, fact)
    for name, fact in properties.items():
        setattr(Tensor, name, property(fact))
    for name in ("real", "imag"):
        setattr(Tensor, name, _part(FUNCTIONS[name]))


def _part(view: Callable[[Tensor], Tensor]) -> property:
    """A view as an attribute; assigning to it writes its memory."""

    def store(self: Tensor, value: Any) -> None:
        copy_(view(self), value)

    return property(view, store)


def _offset(self: Tensor) -> int:
    memory = self._storage.array
    if self._array is None or memory is None:
        return 0
    return (self._array.ctypes.data - memory.ctypes.data) // self._array.itemsize


def attach() -> None:
    """Gives Tensor its methods; run once when `tracecc` is imported."""
    _attach_operators()
    _attach_methods()
    _attach_facts()


attach()
