"""`torch.special`: special functions, under the names that SciPy gives them."""

from __future__ import annotations

from typing import Any

from tracecc.arguments import checked
from tracecc.functional import FUNCTIONS, extra
from tracecc.lacking import unknown

_SAME = """digamma erf erfc erfinv exp2 expm1 log1p log_softmax logit logsumexp polygamma round sinc
    softmax xlogy"""
_RENAMED = {"expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma"}
_RENAMED |= {"gammainc": "igamma", "gammaincc": "igammac"}
_OWN = """airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 entr erfcx i0 i0e i1 i1e log_ndtr
    modified_bessel_k0 modified_bessel_k1 multigammaln ndtr ndtri scaled_modified_bessel_k0
    scaled_modified_bessel_k1 spherical_bessel_j0 xlog1py zeta"""

_FOUND = {name: FUNCTIONS[name] for name in _SAME.split()}
_FOUND |= {name: FUNCTIONS[other] for name, other in _RENAMED.items()}
_FOUND |= {name: checked(name, getattr(extra, name)) for name in _OWN.split()}
_FOUND |= {
    name: checked(name, function)
    for name, function in dict[str, Any](
        {
            "modified_bessel_i0": extra.i0,
            "modified_bessel_i1": extra.i1,
            **extra.POLYNOMIALS,
        }
    ).items()
}

globals().update(_FOUND)
__all__ = list(_FOUND)


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
