"""Recurrent layers: one matrix product projects all inputs at once, then `scan` walks over time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.casts import lowered
from tracecc.control import scan
from tracecc.nn import init
from tracecc.nn.functional.run import run
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.nn.utils.rnn import PackedSequence, padded, repacked
from tracecc.tensor import Tensor
from tracecc.trace import scalar, suspended
from tracecc_ir.types import DType


class RNNBase(Module):
    """What all recurrent layers share: weights by layer and direction, and the walk over both."""

    _gates = 1
    _lowers = True  # whether autocast regions cast the state
    _runtime_scalars = ("dropout",)
    mode = "RNN"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError(
                f"{type(self).__name__} expects hidden_size and num_layers above zero, "
                f"given {hidden_size} and {num_layers}"
            )
        if proj_size and self.mode != "LSTM":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(
                "proj_size has to be a positive integer, smaller than hidden_size, or zero to "
                f"disable projections, given {proj_size}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], given {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        rows = self._gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else self._outputs * self._directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple] = {
                    "weight_ih": (rows, width),
                    "weight_hh": (rows, self._outputs),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    made = Parameter(tc.empty(shape, dtype=dtype))
                    self.register_parameter(name + suffix, made)
        self.reset_parameters()

    @property
    def _outputs(self) -> int:
        """The features of one direction's output."""
        return self.proj_size or self.hidden_size

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._directions]

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Does nothing: weights need no packing here."""

    def _cell(self, suffix: str) -> Callable[[Any, Tensor], tuple[Any, Tensor]]:
        """One step: from the carry and the projected input to the next carry and the output."""
        raise TypeError(f"{type(self).__name__} defines no cell")

    def _project(self, x: Tensor, suffix: str) -> Tensor:
        bias = getattr(self, "bias_ih" + suffix) if self.bias else None
        return F.linear(x, getattr(self, "weight_ih" + suffix), bias)

    def _run(
        self, input: Tensor, carries: list[Any], runs: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """All layers over [T, N, width]; ``carries`` holds one per layer and direction.

        Where ``runs`` [T, N, 1] is False a sequence has ended: its state stays.
        """
        x, last = input, list[Any]()
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                step, projected = self._cell(suffix), self._project(x, suffix)
                carry, y = scan(
                    step if runs is None else _pausing(step),
                    lowered(carries[len(last)]) if self._lowers else carries[len(last)],
                    projected if runs is None else (projected, runs),
                    reverse=suffix.endswith("_reverse"),
                )
                last.append(carry)
                outputs.append(y)
            x = outputs[0] if len(outputs) == 1 else tc.cat(outputs, -1)
            if self.training and layer + 1 < self.num_layers and self.dropout != 0.0:
                x = F.dropout(x, scalar(self, "dropout", f"{self.mode}.dropout"))
        return x, last

    def _check(self, input: Tensor) -> bool:
        """Whether ``input`` has a batch; refuses other shapes."""
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise (RuntimeError if input.ndim in (2, 3) else ValueError)(
                f"{type(self).__name__} expects an input of 2 or 3 dimensions whose last is "
                f"{self.input_size}, given {tuple(input.shape)}"
            )
        return input.ndim == 3

    def _begin(self, input: Tensor) -> tuple[Tensor, bool]:
        """The input as [T, N, width], and whether it had a batch."""
        batched = self._check(input)
        if not batched:
            return input.unsqueeze(1), False
        return (input.transpose(0, 1) if self.batch_first else input), True

    def _state(self, given: Tensor | None, x: Tensor, batched: bool, size: int) -> list[Tensor]:
        """The starting state of ``size`` features per layer and direction."""
        count = self.num_layers * self._directions
        if given is None:
            zero = tc.zeros(x.shape[1], size, dtype=x.dtype)
            return [zero] * count
        h = given if batched else given.unsqueeze(1)
        expected = (count, x.shape[1], size)
        if tuple(h.shape) != expected:
            raise RuntimeError(f"Expected hidden size {expected}, got {list(given.shape)}")
        return [h[i] for i in range(count)]

    def _end(self, y: Tensor, batched: bool) -> Tensor:
        if not batched:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y

    @staticmethod
    def _stacked(states: list[Tensor], batched: bool) -> Tensor:
        h = tc.stack(states, 0)
        return h if batched else h.squeeze(1)

    def _carries(self, hx: Any, x: Tensor, batched: bool) -> list[Any]:
        return self._state(hx, x, batched, self.hidden_size)

    def _final(self, last: list[Any], batched: bool) -> Any:
        return self._stacked(last, batched)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """From [T, N, in] ([N, T, in] if ``batch_first``) to all outputs and the last states.

        A PackedSequence gives a PackedSequence; the states are in the sequences' own order.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        x, batched = self._begin(input)
        y, last = self._run(x, self._carries(hx, x, batched))
        return self._end(y, batched), self._final(last, batched)

    def _packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        x, lengths = padded(input), input.lengths()
        with suspended():
            steps = tc.arange(lengths[0]).reshape(-1, 1, 1)
            runs = steps < tc.as_tensor(lengths).reshape(1, -1, 1)
        hx = _chosen(hx, input.sorted_indices)
        y, last = self._run(x, self._carries(hx, x, True), runs)
        return repacked(input, y), _chosen(self._final(last, True), input.unsorted_indices)

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            shown += f", proj_size={self.proj_size}"
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                shown += f", {name}={getattr(self, name)}"
        return shown


def _chosen(states: Any, order: Tensor | None) -> Any:
    """States [layers, N, ..] with the batch reordered."""
    if states is None or order is None:
        return states
    if isinstance(states, tuple):
        return tuple(_chosen(s, order) for s in states)
    return states.index_select(1, order)


def _pausing(step: Callable[[Any, Tensor], tuple[Any, Tensor]]) -> Callable[[Any, Any], Any]:
    """A step that leaves the state of sequences that have ended."""

    def paused(state: Any, x: tuple[Tensor, Tensor]) -> tuple[Any, Tensor]:
        projected, runs = x
        new, y = step(state, projected)
        if isinstance(state, tuple):
            kept = (tc.where(runs, a, b) for a, b in zip(new, state, strict=True))
            return tuple(kept), y
        return tc.where(runs, new, state), y

    return paused


class RNN(RNNBase):
    """The simple recurrent network: ``h' = tanh(W x + b + U h + c)``, or with relu."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def _cell(self, suffix: str) -> Callable[[Any, Tensor], tuple[Any, Tensor]]:
        weight = getattr(self, "weight_hh" + suffix)
        bias = getattr(self, "bias_hh" + suffix) if self.bias else None
        activate = tc.tanh if self.nonlinearity == "tanh" else F.relu

        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            h = activate(x + F.linear(h, weight, bias))
            return h, h

        return step


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), gates in the order i, f, g, o.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers, each fed with the outputs of the one before.
        bias: whether to learn biases.
        batch_first: [N, T, features] rather than [T, N, features].
        dropout: between layers, in training.
        bidirectional: a second pass from the end; outputs are concatenated.
        proj_size: if not 0, outputs and hidden states are projected to so many features (Sak et
            al., 2014); the cell state is not.
    """

    _gates = 4
    mode = "LSTM"

    def _project(self, x: Tensor, suffix: str) -> Tensor:
        """Both biases join here, outside of the loop."""
        if not self.bias:
            return super()._project(x, suffix)
        bias = getattr(self, "bias_ih" + suffix) + getattr(self, "bias_hh" + suffix)
        return F.linear(x, getattr(self, "weight_ih" + suffix), bias)

    def _cell(self, suffix: str) -> Callable[[Any, Tensor], tuple[Any, Tensor]]:
        weight = lowered(getattr(self, "weight_hh" + suffix))
        if self.proj_size:
            return self._projected_cell(weight, lowered(getattr(self, "weight_hr" + suffix)))

        def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Any, Tensor]:
            h, c = run("lstm_cell", x, *state, weight)
            return (h, c), h

        return step

    def _projected_cell(
        self, weight: Tensor, projection: Tensor
    ) -> Callable[[Any, Tensor], tuple[Any, Tensor]]:
        def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Any, Tensor]:
            h, c = _lstm(x + F.linear(state[0], weight), state[1], self.hidden_size)
            h = F.linear(h, projection)
            return (h, c), h

        return step

    def _carries(self, hx: Any, x: Tensor, batched: bool) -> list[Any]:
        h, c = (None, None) if hx is None else hx
        outputs = self._state(h, x, batched, self._outputs)
        return list(zip(outputs, self._state(c, x, batched, self.hidden_size), strict=True))

    def _final(self, last: list[Any], batched: bool) -> Any:
        return tuple(self._stacked([s[i] for s in last], batched) for i in (0, 1))


def _lstm(gates: Tensor, c: Tensor, size: int) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.split(size, -1)
    c = tc.sigmoid(f) * c + tc.sigmoid(i) * tc.tanh(g)
    return tc.sigmoid(o) * tc.tanh(c), c


class GRU(RNNBase):
    """Gated recurrent units (Cho et al., 2014), gates in the order r, z, n."""

    _gates = 3
    _lowers = False
    mode = "GRU"

    def _cell(self, suffix: str) -> Callable[[Any, Tensor], tuple[Any, Tensor]]:
        weight = getattr(self, "weight_hh" + suffix)
        bias = getattr(self, "bias_hh" + suffix) if self.bias else None
        return lambda h, x: _gru(h, x, weight, bias, self.hidden_size)


def _gru(
    h: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, size: int
) -> tuple[Tensor, Tensor]:
    r, z, n = x.split(size, -1)
    hr, hz, hn = F.linear(h, weight, bias).split(size, -1)
    r, z = tc.sigmoid(r + hr), tc.sigmoid(z + hz)
    n = tc.tanh(n + r * hn)
    h = n + z * (h - n)
    return h, h


class RNNCellBase(Module):
    """What the cells share: their weights and the zero state."""

    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self._gates * hidden_size
        self.weight_ih = Parameter(tc.empty(rows, input_size, dtype=dtype))
        self.weight_hh = Parameter(tc.empty(rows, hidden_size, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(tc.empty(rows, dtype=dtype)) if bias else None)
        bound = 1.0 / math.sqrt(hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _zero(self, input: Tensor) -> Tensor:
        return tc.zeros(*input.shape[:-1], self.hidden_size, dtype=input.dtype)

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")
        kind = getattr(self, "nonlinearity", "tanh")
        return shown if kind == "tanh" else f"{shown}, nonlinearity={kind}"


class RNNCell(RNNCellBase):
    """One step of `RNN`."""

    nonlinearity = "tanh"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._zero(input) if hx is None else hx
        total = F.linear(input, self.weight_ih, self.bias_ih)
        total = total + F.linear(h, self.weight_hh, self.bias_hh)
        return tc.tanh(total) if self.nonlinearity == "tanh" else F.relu(total)


class LSTMCell(RNNCellBase):
    """One step of `LSTM`."""

    _gates = 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = (self._zero(input), self._zero(input)) if hx is None else hx
        gates = F.linear(input, self.weight_ih, self.bias_ih)
        gates = gates + F.linear(h, self.weight_hh, self.bias_hh)
        return _lstm(gates, c, self.hidden_size)


class GRUCell(RNNCellBase):
    """One step of `GRU`."""

    _gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._zero(input) if hx is None else hx
        x = F.linear(input, self.weight_ih, self.bias_ih)
        return _gru(h, x, self.weight_hh, self.bias_hh, self.hidden_size)[0]
