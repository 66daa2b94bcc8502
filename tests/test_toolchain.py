"""The toolchain: what kernels compute, that they vectorise, that the cache changes no result."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from tracecc import cache
from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.target import target

CHAIN = """
def chain(args, begin, end, scratch):
    x = f32_ptr(args, 0)
    y = f32_ptr(args, 1)
    o = f32_ptr(args, 2)
    s = f32_arg(args, 3)
    for i in range(begin, end):
        a = x[i]
        o[i] = tanh(a * s + y[i]) * (f32(1) / (f32(1) + exp(-a)))
"""

IR = """
define void @entry(i64 %args, i64 %begin, i64 %end, i64 %scratch) {
  %p = inttoptr i64 %args to ptr
  %x = load double, ptr %p
  %y = call double @tcc.exp.f64(double %x)
  store double %y, ptr %p
  ret void
}
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache and an empty table of loaded kernels."""
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(toolchain, "_known", {})
    return tmp_path


def call(kernel, args, begin, end, scratch=0):
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(args, begin, end, scratch)


def run_chain(kernel, n=1000):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, n)).astype(np.float32)
    out = np.zeros(n, np.float32)
    slots = np.array([x.ctypes.data, y.ctypes.data, out.ctypes.data, 0])
    slots[3:].view(np.float32)[0] = 0.5
    call(kernel, slots.ctypes.data, 0, n)
    x, y = x.astype(np.float64), y.astype(np.float64)
    np.testing.assert_allclose(out, np.tanh(x * 0.5 + y) / (1 + np.exp(-x)), rtol=5e-6, atol=1e-7)


def test_a_fused_chain_computes_its_formula():
    run_chain(toolchain.compile_kernel(CHAIN, "chain", independent=True))


@pytest.mark.skipif(not target().triple.startswith("x86_64"), reason="reads x86 assembly")
def test_a_fused_chain_uses_full_width_registers_and_no_pointer_checks():
    register = {512: "zmm", 256: "ymm", 128: "xmm"}[toolchain.vector_bits()]
    assert toolchain.assembly(CHAIN, "chain", independent=True).count(f"%{register}") > 50
    assert "vector.memcheck" in toolchain.llvm_text(CHAIN, "chain")
    assert "vector.memcheck" not in toolchain.llvm_text(CHAIN, "chain", independent=True)


def test_in_place_kernels_are_right_when_declared_independent():
    source = CHAIN.replace("o = f32_ptr(args, 2)", "o = f32_ptr(args, 0)")
    kernel = toolchain.compile_kernel(source, "chain", independent=True)
    x = np.linspace(-3, 3, 999).astype(np.float32)
    y = np.zeros_like(x)
    wide = x.astype(np.float64)
    slots = np.array([x.ctypes.data, y.ctypes.data, 0, 0])
    slots[3:].view(np.float32)[0] = 1
    call(kernel, slots.ctypes.data, 0, x.size)
    np.testing.assert_allclose(x, np.tanh(wide) / (1 + np.exp(-wide)), rtol=5e-6, atol=1e-7)


@pytest.mark.skipif(not target().triple.startswith("x86_64"), reason="reads x86 assembly")
def test_fast_reductions_vectorise_and_plain_ones_keep_their_order():
    source = """
def total(args, begin, end, scratch):
    x = f32_ptr(args, 0)
    o = f32_ptr(args, 1)
    acc = f32(0)
    for i in range(begin, end):
        acc = {}
    o[0] = acc
"""
    fast = source.format("add_fast(acc, x[i])")
    assert "vector.reduce.fadd" in toolchain.llvm_text(fast, "total")
    assert "vector.reduce.fadd" not in toolchain.llvm_text(source.format("acc + x[i]"), "total")
    top = source.format("max_fast(acc, x[i])")
    assert "vector.reduce.fmax" in toolchain.llvm_text(top, "total")
    x = np.arange(1000, dtype=np.float32)
    for text, expected in ((fast, 499500), (top, 999)):
        out = np.zeros(1, np.float32)
        slots = np.array([x.ctypes.data, out.ctypes.data])
        call(toolchain.compile_kernel(text, "total"), slots.ctypes.data, 0, 1000)
        assert out[0] == expected


def test_hand_written_ir_may_call_the_vector_mathematics(fresh):
    kernel = toolchain.compile_ir(lambda: IR, "test exp")
    x = np.array([1.0])
    call(kernel, x.ctypes.data, 0, 1)
    assert x[0] == pytest.approx(np.e, rel=1e-15)
    assert toolchain.compile_ir(lambda: pytest.fail("built again"), "test exp") is kernel


def test_kernels_call_kernels_by_address():
    source = """
def outer(args, begin, end, scratch):
    call_kernel(i64_arg(args, 4), args, begin, end, scratch)
"""
    inner = toolchain.compile_kernel(CHAIN, "chain", independent=True)
    outer = toolchain.compile_kernel(source, "outer")
    x = np.ones(8, np.float32)
    y, out = np.zeros_like(x), np.zeros_like(x)
    slots = np.array([x.ctypes.data, y.ctypes.data, out.ctypes.data, 0, inner.address])
    call(outer, slots.ctypes.data, 2, 5)
    assert (out != 0).tolist() == [False] * 8
    slots[3:].view(np.float32)[0] = 1
    call(outer, slots.ctypes.data, 2, 5)
    assert (out != 0).tolist() == [False, False, True, True, True, False, False, False]


def test_a_mistake_in_the_source_is_an_error_not_a_crash():
    with pytest.raises(Exception, match="must have one type"):
        toolchain.compile_kernel(
            "def bad(args, begin, end, scratch):\n    f64_ptr(args, 0)[0] = add(f32(1), f64(1))\n",
            "bad",
        ).compile()


def test_the_second_compilation_comes_from_the_cache(fresh, monkeypatch):
    first = toolchain.compile_kernel(CHAIN, "chain")
    first.compile()
    assert not first.cached
    assert cache.info()["kernels"] == 1
    monkeypatch.setattr(toolchain, "_known", {})
    second = toolchain.compile_kernel(CHAIN, "chain")
    assert second.cached
    assert second.object_code == first.object_code
    run = next(fresh.glob("*/*.py"))
    assert run.read_text() == CHAIN


def test_a_damaged_entry_is_compiled_again(fresh, monkeypatch):
    toolchain.compile_kernel(CHAIN, "chain").compile()
    for file in fresh.glob("*/*.kernel"):
        file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setattr(toolchain, "_known", {})
    again = toolchain.compile_kernel(CHAIN, "chain")
    again.compile()
    assert not again.cached
    monkeypatch.setattr(toolchain, "_known", {})
    assert toolchain.compile_kernel(CHAIN, "chain").cached


def test_without_a_writable_cache_kernels_still_compile(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(file))
    monkeypatch.setattr(toolchain, "_known", {})
    run_chain(toolchain.compile_kernel(CHAIN, "chain"))


SCRIPT = """
import sys, numpy as np, ctypes
from tracecc.backends.cpu import toolchain
kernel = toolchain.compile_kernel(sys.argv[1], "chain")
x = np.ones(100, np.float32); y = np.zeros_like(x); o = np.zeros_like(x)
slots = np.array([x.ctypes.data, y.ctypes.data, o.ctypes.data, 0])
slots[3:].view(np.float32)[0] = 1
ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(slots.ctypes.data, 0, 100, 0)
assert abs(o - 0.5567699).max() < 1e-6, o
print(kernel.cached, "numba" in sys.modules, toolchain.vector_bits())
"""


def start(folder, **settings):
    environment = {**os.environ, "TRACECC_CACHE_DIR": str(folder), **settings}
    command = [sys.executable, "-c", SCRIPT, CHAIN]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.split()


def test_two_processes_compile_at_once_and_a_third_compiles_nothing(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    assert [finish(p)[0] for p in both].count("False") >= 1
    assert finish(start(tmp_path))[:2] == ["True", "False"]
    assert len(list(tmp_path.glob("*/*.kernel"))) == 1


@pytest.mark.skipif(not target().triple.startswith("x86_64"), reason="names x86 CPUs")
@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"TRACECC_CPU": "x86-64-v3"}, "256"),
        ({"TRACECC_CPU": "x86-64-v2"}, "128"),
        ({"TRACECC_CPU": "x86-64"}, "128"),
        ({"TRACECC_VECTOR_BITS": "128"}, "128"),
    ],
)
def test_other_cpus_give_the_same_numbers(tmp_path, settings, bits):
    assert finish(start(tmp_path, **settings))[2] == bits


@pytest.mark.skipif(not target().triple.startswith("x86_64"), reason="names x86 CPUs")
def test_forced_features_reach_the_code(monkeypatch):
    monkeypatch.setenv("TRACECC_CPU", "x86-64-v3")
    text = toolchain.assembly(CHAIN, "chain", independent=True)
    assert "zmm" not in text
    assert "ymm" in text
    monkeypatch.setenv("TRACECC_CPU_FEATURES", "-avx,-avx2,-fma,-f16c")
    text = toolchain.assembly(CHAIN, "chain", independent=True)
    assert "ymm" not in text
    assert "vfmadd" not in text


def test_a_call_outside_the_vocabulary_is_an_error_not_a_crash(fresh):
    text = IR.replace("@tcc.exp.f64", "@nowhere").replace(
        "\ndefine", "\ndeclare double @nowhere(double)\ndefine"
    )
    with pytest.raises(ValueError, match="entry calls nowhere, which is not in the kernel vocab"):
        toolchain.compile_ir(lambda: text, "test nowhere").compile()


def test_constants_lie_in_the_section_of_the_code():
    """Sections of their own could be too far away for offsets of 32 bits."""
    source = (
        "def far(args, begin, end, scratch):\n"
        "    x = f32_ptr(args, 0)\n"
        "    for i in range(begin, end):\n"
        "        x[i] = exp(x[i]) * f32(1.25) + f32(3.7)\n"
    )
    code = toolchain.compile_kernel(source, "far").object_code
    assert b".rodata" not in code
    assert b".text" in code


def test_functions_outside_are_called_by_an_address_beside_the_code():
    text = toolchain._in_one_section("\tcallq\tmemset@PLT\n\tjmp\tmemset@PLT\n")
    assert "@" not in text
    assert text.count("q\t*.Lmemset_at(%rip)") == 2
    assert text.endswith("\t.text\n\t.p2align\t3\n.Lmemset_at:\n\t.quad\tmemset\n")
