"""`state_dict` and `load_state_dict` of modules, in PyTorch's layout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tracecc.nn.modules.hooks import RemovableHandle, register
from tracecc.nn.parameter import Parameter
from tracecc.state import epoch, no_grad
from tracecc.tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find in the file, and what the module had no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing={self.missing_keys}, unexpected={self.unexpected_keys})"


class Saving:
    """The part of Module that saves and loads."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    _pre_hooks: OrderedDict[int, Any]
    _hooks: OrderedDict[int, Any]
    _backward_hooks: OrderedDict[int, Any]
    _backward_pre_hooks: OrderedDict[int, Any]
    _save_pre_hooks: OrderedDict[int, Any]
    _save_hooks: OrderedDict[int, Any]
    _load_pre_hooks: OrderedDict[int, Any]
    _load_post_hooks: OrderedDict[int, Any]
    _non_persistent: set[str]
    _version: int

    def state_dict(
        self,
        *,
        destination: OrderedDict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> OrderedDict[str, Any]:
        """Every parameter and persistent buffer by its dotted name; the memory is shared.

        Args:
            destination: where to put them; by default a new OrderedDict.
            prefix: put before every name.
            keep_vars: return the parameters themselves rather than detached tensors.
        """
        found: Any = OrderedDict() if destination is None else destination
        if not hasattr(found, "_metadata"):
            found._metadata = OrderedDict()
        for before in self._save_pre_hooks.values():
            before(self, prefix, keep_vars)
        found._metadata[prefix[:-1]] = {"version": self._version}
        self._save_to_state_dict(found, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=found, prefix=prefix + name + ".", keep_vars=keep_vars)
        for hook in self._save_hooks.values():
            hook(self, found, prefix, {"version": self._version})
        return found

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Saves what this module itself holds; subclasses may override it."""
        buffers = {n: b for n, b in self._buffers.items() if n not in self._non_persistent}
        for name, t in {**self._parameters, **buffers}.items():
            if t is not None:
                destination[prefix + name] = t if keep_vars else t.detach()
        extra = getattr(self, "get_extra_state", None)
        if extra is not None:
            destination[prefix + "_extra_state"] = extra()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies values in by name.

        Args:
            state_dict: what ``state_dict()`` of such a module returned.
            strict: raise if a name is missing or unknown.
            assign: take the given tensors themselves instead of copying into the present memory.

        Returns:
            The missing and the unexpected names.

        Raises:
            RuntimeError: a size differs; or, if ``strict``, the names differ.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"Expected state_dict to be dict-like, got {type(state_dict).__name__}."
            )
        metadata = getattr(state_dict, "_metadata", {})
        state = OrderedDict(state_dict)
        missing: list[str] = []
        known: set[str] = set()
        errors: list[str] = []
        self._load(state, "", metadata, strict, assign, missing, known, errors)
        unexpected = [name for name in state if name not in known]
        result = IncompatibleKeys(missing, unexpected)
        for hook in self._load_post_hooks.values():
            hook(self, result)
        if strict and result.missing_keys:
            errors.insert(0, f"Missing key(s) in state_dict: {', '.join(result.missing_keys)}.")
        if strict and result.unexpected_keys:
            errors.insert(
                0, f"Unexpected key(s) in state_dict: {', '.join(result.unexpected_keys)}."
            )
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        return result

    def _load(
        self,
        state: OrderedDict[str, Any],
        prefix: str,
        metadata: Mapping[str, Any],
        strict: bool,
        assign: bool,
        missing: list[str],
        known: set[str],
        errors: list[str],
    ) -> None:
        own_metadata = dict(metadata.get(prefix[:-1], {}))
        unexpected: list[str] = []
        for hook in self._load_pre_hooks.values():
            hook(self, state, prefix, own_metadata, strict, missing, unexpected, errors)
        self._load_from_state_dict(
            state, prefix, own_metadata, strict, missing, unexpected, errors, assign=assign
        )
        known.update(self._own_keys(prefix))
        for name, child in self._modules.items():
            if child is not None:
                below = prefix + name + "."
                child._load(state, below, metadata, strict, assign, missing, known, errors)

    def _own_keys(self, prefix: str) -> list[str]:
        names = [n for n, p in self._parameters.items() if p is not None]
        names += [
            n for n, b in self._buffers.items() if b is not None and n not in self._non_persistent
        ]
        if hasattr(self, "set_extra_state"):
            names.append("_extra_state")
        return [prefix + n for n in names]

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
        assign: bool = False,
    ) -> None:
        """Loads what this module itself holds; subclasses may override it."""
        for key in self._own_keys(prefix):
            name = key[len(prefix) :]
            if key not in state_dict:
                missing_keys.append(key)
            elif name == "_extra_state":
                self.set_extra_state(state_dict[key])  # type: ignore[attr-defined]
            else:
                table: dict[str, Any] = (
                    self._parameters if name in self._parameters else self._buffers
                )
                problem = _load_tensor(table, name, state_dict[key], assign)
                if problem:
                    error_msgs.append(f"{key}: {problem}")

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, prefix, keep_vars)`` before saving."""
        return register(self._save_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, metadata)`` after saving."""
        return register(self._save_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook`` before loading.

        Its arguments: module, state_dict, prefix, metadata, strict, missing, unexpected, errors.
        """
        return register(self._load_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, incompatible_keys)`` after loading."""
        return register(self._load_post_hooks, hook)


def _load_tensor(table: dict[str, Any], name: str, given: Any, assign: bool) -> str | None:
    """Puts ``given`` into ``table[name]``; returns what is wrong with it, if anything."""
    if not isinstance(given, Tensor):
        return f"expected a Tensor in the state dict, given {type(given).__name__}"
    target = table[name]
    if tuple(given.shape) != tuple(target.shape):
        return (
            f"size mismatch: the state dict has {tuple(given.shape)}, "
            f"this module {tuple(target.shape)}"
        )
    if not assign:
        with no_grad():
            target.copy_(given)
    elif isinstance(target, Parameter):
        table[name] = (
            given if isinstance(given, Parameter) else Parameter(given, target._requires_grad)
        )
        epoch.bump()
    else:
        table[name] = given
        epoch.bump()
    return None
