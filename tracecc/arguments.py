"""Arguments as they are given: under NumPy's names too, and named in errors if not tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tracecc.tensor import Tensor

# What PyTorch's functions also take by the names that NumPy and the array API have for it.
_ALIASES = {
    "axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"
}  # fmt: skip


def checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as users call it: if it fails because of a non-tensor, the error says so.

    Arguments may have NumPy's names: ``axis`` for ``dim``, ``keepdims`` for ``keepdim``.

    Nothing is looked at while it works, so that small operations stay cheap.

    >>> import tracecc as tc
    >>> tc.sum(tc.ones(2, 3), axis=1)
    tensor([3., 3.])
    >>> tc.mm(tc.ones(2, 2), "two")
    Traceback (most recent call last):
    TypeError: mm(): argument 'mat2' (position 2) must be Tensor, not str
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            renamed = _renamed(function, kwargs) if isinstance(error, TypeError) else None
            if renamed is not None:
                return call(*args, **renamed)
            why = _blame(name, function, args, kwargs, error)
            if why is None:
                raise
        raise TypeError(why)

    return call


def check_all(namespace: dict[str, Any], names: Iterable[str], prefix: str = "") -> None:
    """Makes the functions of a module name arguments that should be tensors."""
    for name in names:
        if inspect.isfunction(namespace[name]):
            namespace[name] = checked(prefix + name, namespace[name])


def _renamed(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The keyword arguments with PyTorch's names, None if they are that already."""
    if not kwargs.keys() & _ALIASES:
        return None
    known = inspect.signature(function).parameters
    names = [_ALIASES.get(k, k) if k not in known else k for k in kwargs]
    if names == list(kwargs) or len(set(names)) < len(names) or not set(names) <= known.keys():
        return None
    return dict(zip(names, kwargs.values(), strict=True))


def _blame(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: Exception,
) -> str | None:
    """What to say if an argument is not the tensor that it should be."""
    if isinstance(error, TypeError) and "argument '" in str(error):
        return None  # a function below named the argument itself
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return None  # the call itself is wrong, and Python said how
    parameters = inspect.signature(function).parameters
    missing: Any = object()
    culprit = getattr(error, "obj", missing)
    for position, (key, value) in enumerate(given.items(), 1):
        if isinstance(value, Tensor) or value is parameters[key].default:
            continue
        if parameters[key].kind is inspect.Parameter.VAR_POSITIONAL and all(
            isinstance(v, Tensor) for v in value
        ):
            continue
        annotation = str(parameters[key].annotation)
        maybe = "Tensor" in annotation or "Any" in annotation
        if annotation == "Tensor" or (maybe and culprit is value):
            return _sentence(name, key, position, value)
        items = value if isinstance(value, (list, tuple, str)) else ()
        if isinstance(culprit, (str, int, float, list)) and any(culprit is v for v in items):
            return (
                f"{name}(): argument '{key}' (position {position}) must hold Tensors, "
                f"given {type(culprit).__name__}"
            )
    return None


def _sentence(name: str, key: str, position: int, value: Any) -> str:
    return (
        f"{name}(): argument '{key}' (position {position}) must be Tensor, "
        f"not {type(value).__name__}"
    )
