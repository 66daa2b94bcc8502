"""The shape of the house: import direction, file sizes, and what `import tracecc` loads."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "tracecc").rglob("*.py"))
LANGUAGE = sorted((ROOT / "ir" / "tracecc_ir").rglob("*.py"))

# From the ground up: a layer imports itself and what stands before it.
LAYERS = (
    ("tracecc_ir", "tracecc.config", "tracecc.cache", "tracecc.state"),
    ("tracecc.backends",),
    ("tracecc.eager",),
    ("tracecc.tensor", "tracecc.autograd", "tracecc.dispatch", "tracecc.views", "tracecc.pytree"),
    ("tracecc.trace", "tracecc.functional", "tracecc.methods", "tracecc.random"),
    ("tracecc.compile", "tracecc.control"),
    ("tracecc.nn",),
    ("tracecc.optim", "tracecc.utils", "tracecc.vision", "tracecc.onnx", "tracecc.distributed"),
    ("tracecc.distributions",),
)


def imports(path: pathlib.Path, top_level_only: bool = False) -> set[str]:
    """The absolute module names that a file imports."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def layer_of(module: str) -> int | None:
    for level, names in enumerate(LAYERS):
        if any(module == n or module.startswith(n + ".") for n in names):
            return level
    return None


@pytest.mark.parametrize("path", LANGUAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_language_imports_only_numpy_and_the_standard_library(path):
    allowed = set(sys.stdlib_module_names) | {"numpy", "ml_dtypes", "tracecc_ir"}
    assert {m.split(".")[0] for m in imports(path)} <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_imports_a_layer_above_its_own_when_it_loads(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    mine = layer_of(name)
    if mine is None:
        return
    above = {m for m in imports(path, True) if (other := layer_of(m)) is not None and other > mine}
    assert above == set()


def test_the_product_never_imports_its_test_oracle():
    users = [p for p in (*SOURCES, *LANGUAGE) if {"torch", "jax"} & imports(p)]
    assert users == []


def test_importing_the_package_loads_no_compiler():
    heavy = ("numba", "llvmlite", "torch")
    code = f"import sys, tracecc; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
