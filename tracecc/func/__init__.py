"""Functions of functions: gradients, Jacobians, vectorising maps; PyTorch's ``torch.func``."""

from typing import Any

from tracecc.func.call import functional_call, replace_all_batch_norm_modules_, stack_module_state
from tracecc.func.transforms import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
)
from tracecc.func.vmap import vmap
from tracecc.lacking import unknown

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
