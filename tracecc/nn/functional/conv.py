"""Linear maps: dense, bilinear, embedding, convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracecc as tc
from tracecc.nn.functional.run import Ints, ntuple, run
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc.trace.known import known


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: input [.., in], weight [out, in], bias [out]."""
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"linear expects an input whose last dimension is {weight.shape[-1]}, "
            f"given {tuple(input.shape)} for a weight of {tuple(weight.shape)}"
        )
    result = input @ weight.T if weight.ndim == 2 else input @ weight
    return result if bias is None else result + bias


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1 W x2 + b``: weight [out, in1, in2]."""
    out, n1, n2 = weight.shape
    if input1.shape[-1] != n1 or input2.shape[-1] != n2:
        raise RuntimeError(
            f"bilinear expects inputs whose last dimensions are {n1} and {n2}, "
            f"given {input1.shape[-1]} and {input2.shape[-1]}"
        )
    left = input1 @ weight.permute(1, 0, 2).reshape(n1, out * n2)
    left = left.reshape(*input1.shape[:-1], out, n2)
    result = (left * input2.unsqueeze(-2)).sum(-1)
    return result if bias is None else result + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` [n, d] by integer ``input`` [..]: [.., d].

    The row ``padding_idx`` receives no gradient. ``sparse`` gradients are dense here.
    """
    if input.dtype.kind != "int":
        raise RuntimeError(
            f"embedding expects integer indices, given a tensor of {input.dtype.public}"
        )
    index = input.long()
    if thread.trace is None and index._type.size and (least := index._numpy().min()) < 0:
        raise IndexError(f"embedding: index {least} is out of range [0, {weight.shape[0]})")
    if max_norm is not None:
        _renormalize(weight, index, max_norm, norm_type)
    if scale_grad_by_freq and weight._requires_grad:
        counts = tc.zeros(weight.shape[0], dtype=weight.dtype)
        flat = index.reshape(-1)
        counts = counts.scatter_add(0, flat, tc.ones(flat.shape, dtype=weight.dtype))
        scale = 1.0 / counts.clamp(min=1.0).unsqueeze(1)
        weight = weight * scale + (weight * (1 - scale)).detach()
    rows = run("gather", weight, index, axes=(0,))
    if padding_idx is None or not rows._requires_grad:
        return rows
    pad = padding_idx % weight.shape[0]
    return tc.where((index == pad).unsqueeze(-1), rows.detach(), rows)


def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows in use down to ``max_norm``, in place."""
    with tc.no_grad():
        norms = weight.detach().norm(norm_type, 1, keepdim=True)
        used = tc.zeros(weight.shape[0]).scatter(0, index.reshape(-1), 1.0).unsqueeze(1)
        factor = tc.where((norms > max_norm) & (used > 0), max_norm / (norms + 1e-7), 1.0)
        weight.mul_(factor)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 [.., num_classes] with a 1 at each index."""
    if tensor.dtype is not tc.int64:
        raise RuntimeError(f"one_hot expects an int64 tensor, given {tensor.dtype.public}")
    if num_classes == -1:
        num_classes = known(tensor, _classes, "the number of classes of one_hot")
    elif thread.trace is None:
        _check_classes(tensor._numpy(), num_classes)
    return (tensor.unsqueeze(-1) == tc.arange(num_classes)).long()


def _classes(array: np.ndarray) -> int:
    """One more than the largest class."""
    if not array.size:
        raise RuntimeError(
            "Can not infer total number of classes from empty tensor; give num_classes"
        )
    _check_classes(array)
    return int(array.max()) + 1


def _check_classes(array: np.ndarray, classes: int | None = None) -> None:
    if array.size and array.min() < 0:
        raise RuntimeError(f"Class values must be non-negative, given {array.min()}")
    if array.size and classes is not None and array.max() >= classes:
        raise RuntimeError(
            f"Class values must be smaller than num_classes={classes}, given {array.max()}"
        )


def _pads(padding: Any, kernel: tuple, dilation: tuple, stride: tuple) -> tuple:
    """((low, high), ...) from an int, ints, "valid" or "same"."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ValueError(f"padding must be 'same', 'valid' or ints, given {padding!r}")
    return tuple((p, p) for p in ntuple(padding, len(kernel), "padding"))


def _by_parts(
    convolve: Callable[[Tensor, Tensor], Tensor], input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """A convolution of complex numbers as three of real ones (Gauss)."""
    a, b = convolve(input.real, weight.real), convolve(input.imag, weight.imag)
    c = convolve(input.real + input.imag, weight.real + weight.imag)
    made = tc.complex(a - b, c - a - b)
    return made if bias is None else made + bias.reshape(-1, *[1] * (weight.ndim - 2))


def _convolve(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Any,
    dilation: Ints,
    groups: int,
) -> Tensor:
    name = f"conv{rank}d"
    if input.dtype.kind == "int":  # exact in double precision up to 2^53
        x, w, b = (None if t is None else t.double() for t in (input, weight, bias))
        assert x is not None
        assert w is not None
        made = _convolve(rank, x, w, b, stride, padding, dilation, groups)
        return made.round().to(input.dtype)
    if input.is_complex():
        return _by_parts(
            lambda x, w: _convolve(rank, x, w, None, stride, padding, dilation, groups),
            *(input, weight, bias),
        )
    if input.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, "
            f"but got input of size: {list(input.shape)}"
        )
    if input.ndim == rank + 1:
        x = input.unsqueeze(0)
        return _convolve(rank, x, weight, bias, stride, padding, dilation, groups).squeeze(0)
    if input.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input"
            f"{list(input.shape)} to have {weight.shape[1] * groups} channels, "
            f"but got {input.shape[1]} channels instead"
        )
    if bias is not None and tuple(bias.shape) != tuple(weight.shape[:1]):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with "
            f"{weight.shape[0]} elements, but got bias of size {list(bias.shape)} instead"
        )
    strides = ntuple(stride, rank, "stride")
    dilations = ntuple(dilation, rank, "dilation")
    pads = _pads(padding, tuple(weight.shape[2:]), dilations, strides)
    result = run(
        "conv", input, weight, stride=strides, padding=pads, dilation=dilations, groups=groups
    )
    return result if bias is None else result + bias.reshape(1, -1, *[1] * rank)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, L] or [C, L], weight [O, C/groups, K]."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, H, W] or [C, H, W], weight [O, C/groups, KH, KW]."""
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """input [N, C, D, H, W] or [C, D, H, W], weight [O, C/groups, KD, KH, KW]."""
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def _transposed(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Tensor:
    if input.dtype.kind == "int":
        x, w = input.double(), weight.double()
        b = None if bias is None else bias.double()
        exact = _transposed(rank, x, w, b, stride, padding, output_padding, groups, dilation)
        return exact.round().to(input.dtype)
    if input.is_complex():
        return _by_parts(
            lambda x, w: _transposed(
                rank, x, w, None, stride, padding, output_padding, groups, dilation
            ),
            *(input, weight, bias),
        )
    if input.ndim == rank + 1:
        x = input.unsqueeze(0)
        made = _transposed(rank, x, weight, bias, stride, padding, output_padding, groups, dilation)
        return made.squeeze(0)
    if input.ndim != rank + 2 or input.shape[1] != weight.shape[0]:
        raise RuntimeError(
            f"conv_transpose{rank}d expects an input of {rank + 2} dimensions with "
            f"{weight.shape[0]} channels, given {list(input.shape)}"
        )
    strides, dilations = ntuple(stride, rank), ntuple(dilation, rank)
    pads, extra = ntuple(padding, rank), ntuple(output_padding, rank)
    for e, s, d in zip(extra, strides, dilations, strict=True):
        if e >= max(s, d):
            raise RuntimeError(
                f"output padding must be smaller than either stride or dilation, but got "
                f"output_padding={extra}, stride={strides}, dilation={dilations}"
            )
    # Padding after the end beyond a stride would count as another step: it crops less, then pads.
    wide = [e >= s for e, s in zip(extra, strides, strict=True)]
    high = [max(p - e, 0) if w else p for p, e, w in zip(pads, extra, wide, strict=True)]
    after = [max(e - p, 0) if w else 0 for p, e, w in zip(pads, extra, wide, strict=True)]
    spatial = tuple(
        (n - 1) * s - p - h + d * (k - 1) + (0 if w else e) + 1
        for n, s, p, h, d, k, e, w in zip(
            input.shape[2:],
            strides,
            pads,
            high,
            dilations,
            weight.shape[2:],
            extra,
            wide,
            strict=True,
        )
    )
    result = run(
        "conv_input_grad",
        input,
        weight,
        x_spatial=spatial,
        stride=strides,
        padding=tuple(zip(pads, high, strict=True)),
        dilation=dilations,
        groups=groups,
    )
    if any(after):
        zeros = (0,) * (rank + 2)
        result = run("pad", result, low=zeros, high=(0, 0, *after), interior=zeros, value=0.0)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * rank)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, L], weight [C, O/groups, K]."""
    return _transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, H, W], weight [C, O/groups, KH, KW]."""
    return _transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """input [N, C, D, H, W], weight [C, O/groups, KD, KH, KW]."""
    return _transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
