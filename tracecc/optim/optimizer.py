"""Optimizer: parameter groups, state and its dict, and what makes a step traceable.

A step is plain tensor operations with in-place writes, so a compiled training step contains it.
Hyperparameters are read through `Hyper`, which makes floats runtime scalars under a trace: changing
a learning rate never retraces.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import tracecc as tc
from tracecc.nn.modules.hooks import RemovableHandle, register
from tracecc.optim.fused import Updates
from tracecc.state import enable_grad, epoch, no_grad, thread
from tracecc.tensor import Tensor, handle
from tracecc.trace import name_state, nonzero, scalar, suspended

State = dict[str, Any]
Group = dict[str, Any]
UNCOMPILED_STEPS = 1  # scripts of one step need no compiler


def clear_grad(p: Tensor, set_to_none: bool) -> None:
    """Removes the gradient of ``p``, or fills it with zeros."""
    if set_to_none:
        if thread.trace is not None:
            thread.trace.writes_grad(p)
        p.grad = None
    elif p.grad is not None:
        with no_grad():
            p.grad.detach().zero_()


class Hyper:
    """One group's hyperparameters during one step."""

    def __init__(self, optimizer: Optimizer, group: Group, index: int):
        self.group = group
        self._name = type(optimizer).__name__
        self._suffix = f".{index}" if index else ""

    def __call__(self, key: str, item: int | None = None) -> Any:
        """The value: a Python number, or under a trace a 0-d float64 tensor that follows it.

        That tensor is not weak, so that ``1 - beta`` is as exact as Python's.
        """
        value = self.group[key] if item is None else self.group[key][item]
        if isinstance(value, Tensor):
            return value
        label = f"{self._name}.{key}" + ("" if item is None else f".{item}") + self._suffix
        found = scalar(self.group, key if item is None else (key, item), label)
        return handle(found) if isinstance(found, Tensor) else found

    def nonzero(self, key: str) -> bool:
        """Whether it is not 0; under a trace only this is guarded."""
        return nonzero(self.group, key)


def like(p: Tensor, value: Any) -> Any:
    """A number to compute with beside ``p``: tensors take its dtype."""
    return value.to(p.dtype) if isinstance(value, Tensor) and value.dtype is not p.dtype else value


def write(t: Tensor, value: Any) -> None:
    """Overwrites ``t`` in place."""
    t._write(like(t, value))


def count(state: State) -> Any:
    """Advances and returns the step count, exact: a float, or a float64 tensor under a trace."""
    step = state["step"]
    write(step, step + 1)
    return step.double() if thread.trace is not None else step.item()


def root(value: Any) -> Any:
    """The square root of a number or a tensor."""
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)


class Optimizer:
    """Base class of optimizers.

    Subclasses say what state a parameter needs (``init_state``) and how one parameter is updated
    (``update``).

    Args:
        params: tensors, or (name, tensor) pairs, or dicts with "params" and options of that group.
        defaults: the options of groups that do not set them.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                "but got a Tensor"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._generation = 0
        self._steps = 0
        self._updates = Updates()
        self._no_hooks()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _no_hooks(self) -> None:
        self._pre_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._post_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._saving: dict[str, OrderedDict[int, Callable]] = {
            when: OrderedDict() for when in ("before save", "after save", "before load", "loaded")
        }

    def add_param_group(self, param_group: Group) -> None:
        """Adds parameters with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        group = dict(param_group)
        given = group["params"]
        given = [given] if isinstance(given, Tensor) else list(given)
        if given and isinstance(given[0], tuple):
            group["param_names"] = [name for name, _ in given]
            given = [p for _, p in given]
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in given:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(p) in known:
                raise ValueError("some parameters appear in more than one parameter group")
        group["params"] = given
        for key, value in self.defaults.items():
            group.setdefault(key, value)
        self.param_groups.append(group)
        self._changed()

    def _changed(self) -> None:
        """Tells compiled steps that groups or state tensors were replaced."""
        self._generation += 1
        epoch.bump()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradient of every parameter."""
        for group in self.param_groups:
            for p in group["params"]:
                clear_grad(p, set_to_none)

    # Stepping.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients anew; called first, with gradients on.

        Returns:
            What ``closure`` returned, or None.
        """
        for hook in list(self._pre_hooks.values()):
            hook(self, (), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if thread.trace is not None:
            thread.trace.guards.attribute(self, "_generation", self._generation)
        with no_grad():
            self._step()
        for hook in list(self._post_hooks.values()):
            hook(self, (), {})
        return loss

    def _step(self) -> None:
        compiled = self._compiles()
        index = 0
        for i, group in enumerate(self.param_groups):
            hyper = Hyper(self, group, i)
            for p in group["params"]:
                g = p.grad
                if g is not None and not (compiled and self._updates.take(p, g)):
                    state = self._state(p, group, index)
                    one = partial(self._update, p, g, state, hyper)
                    if not (compiled and self._updates.learn(p, g, state, group, one)):
                        one()
                index += 1
        self._updates.run()

    def _update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        if p.is_complex():  # pairs of real numbers
            p, g = tc.view_as_real(p), tc.view_as_real(g)
            state = {k: _as_real(s) for k, s in state.items()}
        maximize = "maximize" in hyper.group and hyper("maximize")
        self.update(p, -g if maximize else g, state, hyper)

    def _compiles(self) -> bool:
        """Whether this step runs as compiled kernels.

        The first one does not, as scripts of one step need no compiler; steps after a state was
        loaded do, so that a run goes on with the same numbers.
        """
        if thread.trace is not None:
            return False
        self._steps += 1
        self._updates.begin()
        own = type(self).update.__module__.startswith("tracecc.")
        return own and self._steps > UNCOMPILED_STEPS

    def _state(self, p: Tensor, group: Group, index: int) -> State:
        """The state of ``p``, created at first use and labelled for dumps."""
        state = self.state[p]
        with suspended():
            for key, value in self.init_state(p, group).items():
                if state.get(key) is None:
                    state[key] = value()
        if thread.trace is None:
            return state
        for key, value in state.items():
            if isinstance(value, Tensor):
                name_state(value, f"{type(self).__name__}.{key}.{index}")
        return state

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        """How to make each state tensor of ``p``."""
        return {}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        """Updates ``p`` in place by its gradient ``g``."""
        raise TypeError(f"{type(self).__name__} must define update() or step()")

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` before each step."""
        return register(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` after each step."""
        return register(self._post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer)`` before `state_dict`."""
        return register(self._saving["before save"], hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer, state_dict)`` after `state_dict`; it may return another dict."""
        return register(self._saving["after save"], hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer, state_dict)`` before loading; it may return another dict."""
        return register(self._saving["before load"], hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer)`` after loading."""
        return register(self._saving["loaded"], hook, prepend)

    # Saving.

    def _numbered(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """State by parameter number and the groups' options, in PyTorch's layout."""
        for hook in list(self._saving["before save"].values()):
            hook(self)
        saved = self._saved()
        for hook in list(self._saving["after save"].values()):
            changed = hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def _saved(self) -> dict[str, Any]:
        number = {id(p): i for i, p in enumerate(self._numbered())}
        groups = [
            {**{k: v for k, v in g.items() if k != "params"}, "params": _ids(g, number)}
            for g in self.param_groups
        ]
        state = {number[id(p)]: dict(s) for p, s in self.state.items() if id(p) in number}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over saved state and options; tensors are copied.

        Raises:
            ValueError: the numbers of groups or of parameters differ.
        """
        for hook in list(self._saving["before load"].values()):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        self._take_over(state_dict)
        for hook in list(self._saving["loaded"].values()):
            hook(self)

    def _take_over(self, state_dict: dict[str, Any]) -> None:
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(groups)}, the optimizer has {len(self.param_groups)}"
            )
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            if len(mine["params"]) != len(theirs["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: {len(theirs['params'])} parameters, the optimizer has "
                    f"{len(mine['params'])}"
                )
        order = [i for g in groups for i in g["params"]]
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            mine.update({k: v for k, v in theirs.items() if k != "params"})
        self._steps = UNCOMPILED_STEPS
        for i, p in zip(order, self._numbered(), strict=True):
            self._load_state(p, state_dict["state"].get(i, {}))

    def _load_state(self, p: Tensor, saved: State) -> None:
        """Copies into the present tensors where they fit, so that compiled steps stay valid."""
        mine = self.state[p]
        fits = mine.keys() == saved.keys()
        if not fits:
            mine.clear()
        for key, value in saved.items():
            present = mine.get(key)
            if not isinstance(value, Tensor):
                mine[key] = value
            elif isinstance(present, Tensor) and present.shape == value.shape:
                with no_grad():
                    write(present, value.detach())
            else:
                dtype = value.dtype if key == "step" else p.dtype
                mine[key] = value.detach().to(dtype).clone()
                fits = False
        if not fits:
            self._changed()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])

    def __getstate__(self) -> dict[str, Any]:
        kept = ("defaults", "state", "param_groups", "_steps")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update({"_steps": UNCOMPILED_STEPS, **saved})
        self._generation = 0
        self._updates = Updates()
        self._no_hooks()


def _as_real(value: Any) -> Any:
    is_complex = isinstance(value, Tensor) and value.is_complex()
    return tc.view_as_real(value) if is_complex else value


def _ids(group: Group, number: dict[int, int]) -> list[int]:
    return [number[id(p)] for p in group["params"]]


def zeros(p: Tensor) -> Callable[[], Tensor]:
    """Makes zeros of ``p``'s type."""
    return lambda: tc.zeros(p.shape, dtype=p.dtype)


def filled(p: Tensor, value: float) -> Callable[[], Tensor]:
    """Makes one number everywhere, of ``p``'s type: in both parts of a complex one."""
    number = complex(value, value) if p.is_complex() else value
    return lambda: tc.full(p.shape, number, dtype=p.dtype)


def number(value: float = 0.0) -> Callable[[], Tensor]:
    """Makes a 0-d float32 tensor."""
    return lambda: tc.as_tensor(value, dtype=tc.float32)


def check(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> None:
    """Refuses a hyperparameter outside [low, high)."""
    if not isinstance(value, Tensor) and not low <= value < high:
        raise ValueError(f"Invalid {name} value: {value}; expected it in [{low}, {high})")
