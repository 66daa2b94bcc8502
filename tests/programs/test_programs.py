"""Whole programs, written once for PyTorch's API, give the same numbers in both libraries.

Each file beside this one defines ``main(torch) -> list[float]``. Weights start from drawings that
depend on nothing but the parameters' names and shapes.
"""

import importlib.util
import warnings
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")  # a module that torch does not import by itself
torch.set_num_threads(1)  # tiny work; a spinning pool would starve the other library

HERE = Path(__file__).parent
PROGRAMS = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("test_"))


class Library:
    """A library with ``compile`` chosen by the test, and with ``fill`` and ``data``."""

    def __init__(self, module, compiled):
        self._module, self._compiled = module, compiled

    def __getattr__(self, name):
        return getattr(self._module, name)

    def compile(self, function):
        return self._module.compile(function) if self._compiled else function

    def fill(self, module):
        """Draws every parameter by its name; returns the module."""
        with self.no_grad():
            for name, p in module.named_parameters():
                rng = np.random.default_rng(crc32(name.encode()))
                scale = 1 / np.sqrt(max(1, p.numel() / p.shape[0])) if p.dim() > 1 else 0.1
                p.copy_(self.tensor((rng.standard_normal(tuple(p.shape)) * scale).astype("f4")))
                if p.dim() == 1 and name.endswith("weight"):
                    p.add_(1.0)
        return module

    def data(self, *shape, seed=0):
        """Normal numbers, float32."""
        return self.tensor(np.random.default_rng(seed).standard_normal(shape).astype("float32"))

    def labels(self, count, *shape, seed=0):
        """Integers below ``count``."""
        return self.tensor(np.random.default_rng(seed).integers(0, count, shape))


def load(name):
    spec = importlib.util.spec_from_file_location(f"program_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_expected = {}


def expected(name):
    if name not in _expected:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _expected[name] = load(name).main(Library(torch, False))
    return _expected[name]


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_gives_torchs_numbers(name, mode):
    numbers = load(name).main(Library(tc, mode == "compiled"))
    assert len(numbers) == len(expected(name)) > 0
    assert all(isinstance(n, float) for n in numbers)
    np.testing.assert_allclose(numbers, expected(name), rtol=2e-3, atol=1e-4)
