"""Convolution layers, plain and transposed, in one to three spatial dimensions."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.nn import init
from tracecc.nn.functional.run import Ints, ntuple
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.tensor import Tensor
from tracecc_ir.types import DType

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolutions share."""

    _rank = 2
    _transposed = False

    def _build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints,
        padding: Any,
        dilation: Ints,
        groups: int,
        bias: bool,
        padding_mode: str,
        output_padding: Ints,
        dtype: DType | None,
    ) -> None:
        Module.__init__(self)
        if groups <= 0 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"in_channels={in_channels} and out_channels={out_channels} must be divisible by "
                f"groups={groups}"
            )
        if padding_mode not in _MODES:
            raise ValueError(f"padding_mode must be one of {_MODES}, but got {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'same', 'valid' or ints, given {padding!r}")
        rank = self._rank
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = ntuple(kernel_size, rank, "kernel_size")
        self.stride = ntuple(stride, rank, "stride")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(
                f"padding='same' is not supported for strided convolutions, given {self.stride}"
            )
        self.padding: Any = (
            padding if isinstance(padding, str) else ntuple(padding, rank, "padding")
        )
        self.dilation = ntuple(dilation, rank, "dilation")
        self.output_padding = ntuple(output_padding, rank, "output_padding")
        self.padding_mode = padding_mode
        first, second = (
            (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        )
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(tc.empty(shape, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(tc.empty(out_channels, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        shown = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        ones, none = (1,) * self._rank, (0,) * self._rank
        if self.padding != none:
            shown.append(f"padding={self.padding}")
        if self.dilation != ones:
            shown.append(f"dilation={self.dilation}")
        if self.output_padding != none:
            shown.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            shown.append(f"groups={self.groups}")
        if self.bias is None:
            shown.append("bias=False")
        if self.padding_mode != "zeros":
            shown.append(f"padding_mode={self.padding_mode}")
        return ", ".join(shown)


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Any = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ):
        self._build(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            0,
            dtype,
        )

    def _sides(self) -> list[int]:
        """The padding as `F.pad` wants it."""
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        pads = (0,) * self._rank if self.padding == "valid" else self.padding
        return [p for p in reversed(pads) for _ in range(2)]

    def forward(self, input: Tensor) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self._rank - 1]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._sides(), mode=self.padding_mode), 0
        return convolve(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv1d(_Conv):
    """[N, C, L] to [N, out, L']; arguments as PyTorch's."""

    _rank = 1


class Conv2d(_Conv):
    """[N, C, H, W] to [N, out, H', W']; arguments as PyTorch's.

    >>> from tracecc import nn
    >>> nn.Conv2d(3, 8, 3, padding=1, bias=False)
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """


class Conv3d(_Conv):
    """[N, C, D, H, W] to [N, out, D', H', W']; arguments as PyTorch's."""

    _rank = 3


class _ConvTranspose(_Convolution):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ):
        if padding_mode != "zeros":
            raise ValueError('Only "zeros" padding mode is supported for transposed convolutions')
        self._build(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            output_padding,
            dtype,
        )

    def _extra(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives ``output_size``."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)[-self._rank :]
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                input.shape[-self._rank :],
                self.stride,
                self.padding,
                self.dilation,
                self.kernel_size,
                strict=True,
            )
        ]
        extra = tuple(w - n for w, n in zip(wanted, least, strict=True))
        if any(not 0 <= e < max(s, 2) for e, s in zip(extra, self.stride, strict=True)):
            raise ValueError(
                f"requested an output size of {wanted}, but it must be at least {tuple(least)} and "
                f"less than that plus the stride {self.stride}"
            )
        return extra

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self._rank - 1]
        return transpose(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self._extra(input, output_size),
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTranspose):
    """The transpose of `Conv1d`."""

    _rank = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of `Conv2d`."""


class ConvTranspose3d(_ConvTranspose):
    """The transpose of `Conv3d`."""

    _rank = 3
