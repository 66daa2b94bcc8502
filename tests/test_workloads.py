"""The benchmark's sixteen workloads at small sizes have PyTorch's numbers from the same weights."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tracecc as tc

torch = pytest.importorskip("torch")

_spec = importlib.util.spec_from_file_location(
    "workloads", Path(__file__).parent / "benchmarks" / "workloads.py"
)
workloads = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(workloads)

STEPS = 5
SMALL = {
    "gelu_chain": {"n": 1000},
    "softmax_rows": {"b": 8, "n": 33},
    "layernorm_gelu": {"b": 6, "n": 40},
    "column_stats": {"b": 50, "n": 12},
    "gemm_small": {"m": 12, "k": 20, "n": 9},
    "gemm_bias_relu": {"m": 16, "k": 24, "n": 10},
    "batched_attention": {"b": 2, "h": 2, "s": 17, "d": 8},
    "conv_block": {"b": 2, "c": 6, "hw": 9},
    "tiny_mlp_train": {"b": 8, "d": 5, "h": 7, "k": 3},
    "mlp_train": {"b": 8, "d": 20, "h": 16, "k": 4},
    "cnn_train": {"b": 4, "hw": 10, "k": 3},
    "lstm_train": {"b": 3, "T": 6, "d": 5, "h": 7, "vocab": 11},
    "gpt_train": {"b": 2, "ctx": 7, "d": 12, "heads": 3, "layers": 2, "vocab": 13},
    "resnet18_infer": {"b": 1, "hw": 32},
    "resnet18_cifar_train": {"b": 2},
    "nbody_grad": {"n": 12},
}
SLOW = ("resnet18_infer", "resnet18_cifar_train")


def _models(library, build):
    """What ``build`` made, and the modules that it constructed, in order."""
    made = []
    original = library.nn.Module.__init__

    def remember(self, *args, **kwargs):
        made.append(self)
        original(self, *args, **kwargs)

    library.nn.Module.__init__ = remember
    try:
        result = build()
    finally:
        library.nn.Module.__init__ = original
    return result, made


def _numbers(result):
    return [np.array(t.detach().numpy()) for t in (result if type(result) is tuple else (result,))]


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_workload_has_torchs_numbers(name, mode):
    build = workloads.WORKLOADS[name]
    torch.manual_seed(0)  # some weights put a ReLU's input within rounding of its kink
    (theirs, inputs), there = _models(torch, lambda: build(torch, **SMALL[name]))
    (ours, mine), here = _models(tc, lambda: build(tc, **SMALL[name]))
    sources, targets = (_weights(modules) for modules in (there, here))
    assert [tuple(p.shape) for p in sources] == [tuple(p.shape) for p in targets]
    for source, target in zip(sources, targets, strict=True):
        target.data.copy_(tc.from_numpy(source.detach().numpy()))
    step = tc.compile(ours) if mode == "compiled" else ours
    for _ in range(1 if name in SLOW else STEPS):
        for a, b in zip(_numbers(step(*mine)), _numbers(theirs(*inputs)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    if "train" in name:
        for a, b in zip(targets, sources, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=2e-3, atol=3e-4)


def _weights(modules):
    """The parameters of all modules, each once, in the order in which they were made."""
    found = {id(p): p for m in modules for p in m._parameters.values() if p is not None}
    return list(found.values())
