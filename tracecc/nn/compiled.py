"""A module whose calls are compiled: what `tracecc.compile(module)` returns."""

from __future__ import annotations

from typing import Any

from tracecc.nn.modules.module import Module


class CompiledModule(Module):
    """Behaves like the module it wraps; calls run compiled.

    ``ir()``, ``kernels()`` and ``explain()`` show what became of the latest call.
    """

    def __init__(self, module: Module):
        from tracecc.compile import CompiledFunction

        super().__init__()
        object.__setattr__(self, "_original", module)
        object.__setattr__(self, "_compiled", CompiledFunction(module.__call__))
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent"):
            object.__setattr__(self, name, getattr(module, name))

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        if "_original" not in tables:
            raise AttributeError(name)
        if name in ("ir", "kernels", "explain", "traces"):
            return getattr(tables["_compiled"], name)
        return getattr(tables["_original"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        original = self.__dict__.get("_original")
        if original is None or name == "training":
            super().__setattr__(name, value)
        if original is not None:
            setattr(original, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Compiled{self._original!r}"
