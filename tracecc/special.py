"""`torch.special`: special functions, under the names that SciPy gives them."""

from __future__ import annotations

from tracecc.functional import FUNCTIONS
from tracecc.functional.extra import (
    entr,
    multigammaln,
    ndtr,
    spherical_bessel_j0,
    xlog1py,
)

_SAME = """digamma erf erfc erfinv exp2 expm1 log1p log_softmax logit logsumexp polygamma round sinc
    softmax xlogy"""
_RENAMED = {"expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma"}

globals().update({name: FUNCTIONS[name] for name in _SAME.split()})
globals().update({name: FUNCTIONS[other] for name, other in _RENAMED.items()})

__all__ = ["entr", "multigammaln", "ndtr", "spherical_bessel_j0", "xlog1py"]
__all__.extend([*_SAME.split(), *_RENAMED])
