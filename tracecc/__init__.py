"""PyTorch's API on one open tracing compiler.

Names are PyTorch's. Parts that need more than NumPy are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from tracecc import autograd, methods
from tracecc.arguments import check_all
from tracecc.autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from tracecc.compile import compile
from tracecc.devices import device
from tracecc.functional import FUNCTIONS
from tracecc.lacking import unknown
from tracecc.printing import set_printoptions
from tracecc.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from tracecc.state import is_inference_mode_enabled
from tracecc.tensor import Size, Tensor
from tracecc_ir.types import DType as dtype
from tracecc_ir.types import bf16 as bfloat16
from tracecc_ir.types import bool_ as bool
from tracecc_ir.types import c64 as complex64
from tracecc_ir.types import c128 as complex128
from tracecc_ir.types import f16 as float16
from tracecc_ir.types import f32 as float32
from tracecc_ir.types import f64 as float64
from tracecc_ir.types import i8 as int8
from tracecc_ir.types import i16 as int16
from tracecc_ir.types import i32 as int32
from tracecc_ir.types import i64 as int64
from tracecc_ir.types import promote_types
from tracecc_ir.types import u8 as uint8

__version__ = "0.1.0"

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128

e, inf, nan, pi = 2.718281828459045, 1e999, 1e999 - 1e999, 3.141592653589793
newaxis = None

# The layouts and memory formats that PyTorch code names; there is only the first of each.
strided, contiguous_format, preserve_format = "strided", "contiguous_format", "preserve_format"
channels_last, channels_last_3d = "channels_last", "channels_last_3d"

_FROM = {
    "autocast": "tracecc.amp",
    "clear_autocast_cache": "tracecc.amp",
    "get_autocast_dtype": "tracecc.amp",
    "is_autocast_enabled": "tracecc.amp",
    "cond": "tracecc.control",
    "load": "tracecc.serialization",
    "save": "tracecc.serialization",
    "scan": "tracecc.control",
    "while_loop": "tracecc.control",
    "TraceError": "tracecc.trace.errors",
    "get_num_threads": "tracecc.backends.cpu.driver",
    "set_num_threads": "tracecc.backends.cpu.driver",
}
_FROM |= {"vmap": "tracecc.func", "GradScaler": "tracecc.amp"}
_MODES = """are_deterministic_algorithms_enabled get_default_device get_deterministic_debug_mode
    get_float32_matmul_precision get_num_interop_threads is_anomaly_check_nan_enabled
    is_anomaly_enabled is_deterministic_algorithms_warn_only_enabled is_warn_always_enabled
    set_anomaly_enabled set_default_device set_default_tensor_type set_deterministic_debug_mode
    set_float32_matmul_precision set_flush_denormal set_num_interop_threads set_warn_always
    use_deterministic_algorithms"""
_FROM |= dict.fromkeys(_MODES.split(), "tracecc.modes")
_TYPED = """BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor
    IntTensor LongTensor ShortTensor"""
_FROM |= dict.fromkeys(_TYPED.split(), "tracecc.typed")
# What PyTorch has both here and in nn.functional.
_OF_LAYERS = """adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d bilinear
    binary_cross_entropy_with_logits celu celu_ channel_shuffle constant_pad_nd conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss cosine_similarity
    ctc_loss dropout grid_sampler grid_sampler_2d grid_sampler_3d group_norm hardshrink
    hinge_embedding_loss kl_div layer_norm margin_ranking_loss max_pool1d max_pool2d max_pool3d
    native_batch_norm native_group_norm native_layer_norm pairwise_distance pdist pixel_shuffle
    pixel_unshuffle poisson_nll_loss prelu relu_ rms_norm rrelu rrelu_ selu selu_ threshold
    threshold_ triplet_margin_loss alpha_dropout feature_alpha_dropout"""
_FROM |= dict.fromkeys(_OF_LAYERS.split(), "tracecc.nn.functional")
_WINDOWS = "bartlett_window blackman_window hamming_window hann_window kaiser_window"
_FROM |= dict.fromkeys(_WINDOWS.split(), "tracecc.signal.periodic")
_MODULES = (
    "amp",
    "backends",
    "cuda",
    "fft",
    "func",
    "nn",
    "optim",
    "utils",
    "distributions",
    "linalg",
    "masked",
    "signal",
    "special",
    "testing",
)


def result_type(tensor1: Any, tensor2: Any) -> dtype:
    """The dtype of arithmetic on two tensors or numbers."""
    from tracecc.functional.core import promoted

    return promoted(tensor1, tensor2)


def can_cast(from_: dtype, to: dtype) -> Any:
    """Whether in-place results of the first dtype may be stored in the second."""
    return from_.rank <= to.rank


def is_tensor(obj: Any) -> Any:
    """Whether ``obj`` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> Any:
    """Whether the dtype is a floating point type."""
    return input.dtype.is_floating_point


def is_complex(input: Tensor) -> Any:
    """Whether the dtype is a complex type."""
    return input.dtype.is_complex


def numel(input: Tensor) -> Any:
    """The number of elements."""
    return input._type.size


class finfo:
    """Limits of a floating point dtype: ``eps``, ``max``, ``min``, ``tiny``, ``bits``."""

    def __init__(self, type: dtype | None = None):
        import ml_dtypes

        kind = FUNCTIONS["get_default_dtype"]() if type is None else type
        if not kind.is_inexact:
            raise TypeError(f"finfo() requires a floating point input type, given {kind.public}")
        kind = kind.to_real()
        found, number = ml_dtypes.finfo(kind.numpy), importlib.import_module("builtins").float
        self.bits, self.dtype = kind.bits, kind.public
        self.eps, self.max, self.min = number(found.eps), number(found.max), number(found.min)
        self.tiny = self.smallest_normal = number(found.tiny)
        self.resolution = number(found.resolution)


class iinfo:
    """Limits of an integer dtype: ``max``, ``min``, ``bits``."""

    def __init__(self, type: dtype):
        if type.kind != "int":
            raise TypeError(f"iinfo() requires an integer input type, given {type.public}")
        self.bits, self.dtype, signed = type.bits, type.public, type.is_signed
        self.max = 2 ** (type.bits - signed) - 1
        self.min = -(2 ** (type.bits - 1)) if signed else 0


def __getattr__(name: str) -> Any:
    if name in _FROM:
        value = getattr(importlib.import_module(_FROM[name]), name)
    elif name == "ir":
        value = importlib.import_module("tracecc_ir")
    elif name in _MODULES:
        return importlib.import_module(f"tracecc.{name}")
    else:
        raise unknown(__name__, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM, *_MODULES, "ir"})


globals().update(FUNCTIONS)
# What is a function here as well as a method of tensors.
_METHODS = """abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_
    asinh_ atan_ atanh_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ conj_physical_ cos_ cosh_
    deg2rad_ detach_ erf_ erfc_ exp2_ exp_ expm1_ fill_ fix_ floor_ frac_ gcd_ get_device i0_
    index_put_ is_inference is_neg is_nonzero is_same_size is_signed lcm_ ldexp_ log10_ log1p_
    log2_ log_ logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ resize_as_ round_ rsqrt_
    sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ xlogy_ zero_"""
globals().update({name: getattr(Tensor, name) for name in _METHODS.split()})
check_all(globals(), _METHODS.split())
check_all(globals(), ("is_complex", "is_floating_point", "numel"))
__all__ = [
    "Generator",
    "Size",
    "Tensor",
    "autograd",
    "bfloat16",
    "bool",
    "can_cast",
    "compile",
    "complex64",
    "complex128",
    "default_generator",
    "device",
    "dtype",
    "enable_grad",
    "finfo",
    "float16",
    "float32",
    "float64",
    "get_rng_state",
    "iinfo",
    "inference_mode",
    "initial_seed",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_complex",
    "is_floating_point",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_tensor",
    "manual_seed",
    "methods",
    "no_grad",
    "numel",
    "promote_types",
    "result_type",
    "seed",
    "set_grad_enabled",
    "set_printoptions",
    "set_rng_state",
    "uint8",
]
__all__.extend(FUNCTIONS)
