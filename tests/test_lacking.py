"""Names that are not here: what is planned, what to use instead, or which name was meant."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import types

import pytest

import tracecc as tc
from tracecc.lacking import OF_TENSORS, hint, unknown

_MODULES = """nn nn.functional nn.init nn.parameter nn.utils nn.utils.rnn nn.utils.parametrize
    nn.utils.parametrizations optim optim.lr_scheduler optim.swa_utils linalg fft special autograd
    autograd.functional func utils utils.data amp signal signal.windows"""
MODULES = _MODULES.split()


def documented(module):
    """The public names of a module of PyTorch's that are its own."""
    for name in sorted({*dir(module), *getattr(module, "__all__", ())}):
        value = getattr(module, name, None)
        if name[0] == "_" or isinstance(value, (bool, str, float, dict)):
            continue
        inside = isinstance(value, types.ModuleType)
        home = value.__name__ if inside else getattr(value, "__module__", None) or module.__name__
        if home.startswith((module.__name__, "torch._C")) and value is not sys.modules["torch"]:
            yield name


def said(owner, name):
    """The message of the AttributeError, or None if the name is there."""
    try:
        getattr(owner, name)
    except AttributeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", ["", *MODULES])
def test_each_public_name_of_pytorchs_is_here_or_says_what_to_use(path):
    torch = pytest.importorskip("torch")
    theirs = importlib.import_module(f"torch.{path}") if path else torch
    ours = importlib.import_module(f"tracecc.{path}") if path else tc
    silent = [n for n in documented(theirs) if (m := said(ours, n)) and f"{n!r}: " not in m]
    assert silent == []


def test_each_method_of_pytorchs_tensors_is_here_or_says_what_to_use():
    torch = pytest.importorskip("torch")
    names = [n for n in dir(torch.Tensor) if n[0] != "_"]
    lacking = [n for n in names if not hasattr(tc.Tensor, n)]
    silent = [n for n in lacking if f"{n!r}: " not in said(tc.ones(2), n)]
    assert silent == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jit", "tracecc.compile"),
        ("xpu", 'device="cpu"'),
        ("cuda.memory_allocated", "is_available()"),
        ("distributed", "one process"),
        ("quantization", "tracecc.autocast"),
        ("sparse_coo_tensor", "no sparse layouts"),
        ("svd_lowrank", "planned"),
        ("onnx", "ir/README.md"),
        ("nn.parallel", "set_num_threads"),
        ("nn.init.xavier_uniform", "underscore"),
        ("linalg.ldl_solve", "lu_solve"),
        ("autograd.Variable", "requires_grad=True"),
        ("backends.mkldnn", "nothing to switch"),
        ("Tensor.to_sparse", "dense"),
    ],
)
def test_what_to_use_instead(name, expected):
    owner, _, last = name.rpartition(".")
    found = (
        tc.ones(1) if owner == "Tensor" else importlib.import_module(f"tracecc.{owner}".strip("."))
    )
    assert expected in said(found, last)
    assert expected in hint(name)
    assert not hasattr(found, last)


@pytest.mark.parametrize(
    ("path", "name", "close"),
    [
        ("", "rleu", "relu"),
        ("", "FloatTensr", "FloatTensor"),
        ("", "autocst", "autocast"),
        ("nn", "Conv2D", "Conv2d"),
        ("nn", "BachNorm2d", "BatchNorm2d"),
        ("nn.functional", "cross_entrpy", "cross_entropy"),
        ("nn.utils", "clip_grad_norms", "clip_grad_norm_"),
        ("nn.utils.rnn", "pad_sequences", "pad_sequence"),
        ("optim", "Adamw", "AdamW"),
        ("optim.lr_scheduler", "StepLr", "StepLR"),
        ("linalg", "cholesk", "cholesky"),
        ("fft", "ftt", "fft"),
        ("special", "gamaln", "gammaln"),
        ("autograd", "gradchek", "gradcheck"),
        ("func", "jacref", "jacrev"),
        ("utils.data", "Dataloader", "DataLoader"),
        ("amp", "GradScalar", "GradScaler"),
    ],
)
def test_a_misspelt_name_suggests_the_closest(path, name, close):
    module = f"tracecc.{path}".strip(".")
    owner = importlib.import_module(module)
    text = f"module {module!r} has no attribute {name!r}; did you mean {close!r}?"
    assert said(owner, name) == text


def test_a_name_that_nobody_has_suggests_nothing():
    assert said(tc, "qqqq") == "module 'tracecc' has no attribute 'qqqq'"
    assert said(tc, "__wrapped__") == "module 'tracecc' has no attribute '__wrapped__'"
    assert isinstance(unknown("tracecc.nn", "qqqq"), AttributeError)


def test_every_lacking_method_of_tensors_has_a_hint_and_copies_and_pickles_work():
    assert [n for n in OF_TENSORS.split() if hint(f"Tensor.{n}") is None] == []
    x = tc.tensor([1.0, 2.0])
    assert pickle.loads(pickle.dumps(x)).tolist() == [1.0, 2.0]
    assert copy.deepcopy(x).tolist() == copy.copy(x).tolist() == [1.0, 2.0]
    assert getattr(x, "to_sparse", None) is None


def test_importing_a_name_that_is_not_there_stays_an_import_error():
    with pytest.raises(ImportError, match="cannot import name 'jit' from 'tracecc'"):
        exec("from tracecc import jit", {})
