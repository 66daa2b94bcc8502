"""Custom differentiable functions: `Function` with `forward` and `backward`, as in PyTorch."""

from __future__ import annotations

from typing import Any

from tracecc.autograd.tape import Saved, TapeNode, attach
from tracecc.state import no_grad, thread
from tracecc.tensor import Tensor, handle
from tracecc_ir.types import TensorType


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors and any attributes."""

    def __init__(self) -> None:
        self._to_save: tuple[Tensor | None, ...] = ()
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True
        self._node: FunctionNode | None = None
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs or outputs of ``forward`` for ``backward``."""
        for i, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward takes Tensors and None, argument {i} is of type "
                    f"{type(t).__name__}; keep other things as attributes of ctx"
                )
        self._to_save = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self._not_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declares inputs that ``forward`` wrote in place."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` sees zeros (the default) or None for outputs nobody used."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        if self._node is None:
            return self._to_save
        return self._node.unpack()


class FunctionNode(TapeNode):
    """The record of one call of a custom Function."""

    __slots__ = ("ctx", "function", "inputs", "positions", "saved")

    function: type[Function]
    ctx: FunctionCtx
    inputs: list[TensorType]
    positions: list[int]
    saved: list[tuple[Saved | None, int | None]] | None

    def name(self) -> str:
        return self.function.__name__ + "Backward"

    def unpack(self) -> tuple[Tensor | None, ...]:
        if self.saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved "
                "tensors after they have already been freed). Specify retain_graph=True"
            )
        return tuple(None if s is None else s.unpack(self, i) for s, i in self.saved)

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        from tracecc.autograd.tape import _zeros

        if self.ctx._materialize:
            gs = [_zeros(t) if g is None else g for g, t in zip(gs, self.types, strict=True)]
        found = self.function.backward(self.ctx, *gs)
        found = found if isinstance(found, tuple) else (found,)
        expected = len(self.ctx.needs_input_grad)
        if len(found) < expected or any(g is not None for g in found[expected:]):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients "
                f"(expected {expected}, got {len(found)})"
            )
        if not keep:
            self.saved = None
        given = zip(self.positions, self.inputs, wanted, strict=True)
        return [self._checked(found[p], p, of) if w else None for p, of, w in given]

    def _checked(self, g: Any, position: int, of: TensorType) -> Tensor | None:
        """A gradient of the type of the argument that it belongs to; broadcast ones are summed."""
        if g is None or (isinstance(g, Tensor) and g._type == of):
            return g
        if not isinstance(g, Tensor):
            raise RuntimeError(
                f"function {self.name()} returned {type(g).__name__} at index {position}, "
                "expected a Tensor or None"
            )
        try:
            return g.sum_to_size(of.shape).to(of.dtype)
        except RuntimeError:
            raise RuntimeError(
                f"function {self.name()} returned an invalid gradient at index {position} - got "
                f"{list(g._type.shape)} but expected shape compatible with {list(of.shape)}"
            ) from None


class Function:
    """Base of custom differentiable functions: override ``forward`` and ``backward``.

    >>> import tracecc as tc
    >>> class Double(tc.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * 2
    >>> x = tc.tensor(3.0, requires_grad=True)
    >>> Double.apply(x).backward()
    >>> x.grad
    tensor(2.)
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Computes the result; ``ctx`` is absent if ``setup_context`` is defined."""
        raise NotImplementedError("a Function must define a static forward()")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient (or None) per argument of ``forward``."""
        raise NotImplementedError("a Function must define a static backward() to be differentiated")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        raise RuntimeError(f"a Function is called by its class: {name}.apply(..), not {name}()(..)")

    setup_context: Any = None

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls ``forward`` and records it."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        with no_grad():
            if cls.setup_context is None:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
        if not (thread.grad_enabled and any(ctx.needs_input_grad)):
            return result
        outputs = list(result) if isinstance(result, tuple) else [result]
        inputs = [a for a in args if isinstance(a, Tensor)]
        for i, t in enumerate(outputs):
            if isinstance(t, Tensor) and any(t is a for a in inputs) and t not in ctx._dirty:
                outputs[i] = handle(t)
        _record(cls, ctx, args, inputs, [t for t in outputs if isinstance(t, Tensor)])
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]


def _record(
    cls: type[Function], ctx: FunctionCtx, args: tuple, inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    node = FunctionNode(inputs, [t._type for t in outputs])
    node.function, node.ctx = cls, ctx
    node.inputs = [t._type for t in inputs]
    node.positions = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
    node.saved = []
    for t in ctx._to_save:
        index = next((i for i, o in enumerate(outputs) if o is t), None)
        node.saved.append((None if t is None else Saved(t, index is None), index))
    ctx._node = node
    attach(node, [t for t in outputs if not any(t is n for n in ctx._not_differentiable)])
    for i, t in enumerate(outputs):
        if t._grad_fn is node:
            t._output_index = i
