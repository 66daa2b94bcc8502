"""What every test starts from: each library's random numbers at a seed of their own."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import tracecc as tc


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers in every run and order; PyTorch's too, where a test file imported it."""
    tc.manual_seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
