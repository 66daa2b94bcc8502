"""Emitted kernels compile to PTX and to machine code without a GPU, and what comes out is clean.

Skipped where the CUDA toolchain (the `cuda` extra) is not installed.
"""

from dataclasses import replace

import pytest
from cuda_ops import ELEMENTWISE, defined, one_op, operand_dtypes
from cuda_programs import PROGRAMS, graph_of, layer_norm, name_of, softmax

from tracecc.backends.cuda import compiler
from tracecc.backends.cuda.compiler import CAPABILITIES, Cubin, Ptx, build, compile_ptx, link, lint
from tracecc.backends.cuda.emit import emit
from tracecc.backends.cuda.kernel import CudaKernel, Parameter
from tracecc.backends.cuda.program import emit_program
from tracecc.backends.schedule import schedule
from tracecc.backends.schedule_body import lower_body
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.types import DTYPES, TensorType, f32

REASON = compiler.missing()
toolchain = pytest.mark.skipif(bool(REASON), reason=REASON)
REGISTERS = 64  # full occupancy of an SM at 1024 threads


def built(kernel, capability=(9, 0)):
    ptx = compile_ptx(kernel, capability)
    return ptx, link(ptx)


def clean(kernel, capability):
    ptx, cubin = built(kernel, capability)
    assert lint(ptx, cubin, kernel.allows, REGISTERS) == []
    return ptx, cubin


@toolchain
@pytest.mark.parametrize("number", range(len(PROGRAMS)), ids=[name_of(p) for p in PROGRAMS])
def test_every_kernel_of_a_program_is_clean(number):
    """Capabilities take turns; the next test has all of them."""
    build, types = PROGRAMS[number]
    launches = emit_program(schedule(fuse(graph_of(build, *types))))
    for i, launch in enumerate(launches):
        assert launch is not None
        clean(launch.kernel, CAPABILITIES[(number + i) % len(CAPABILITIES)])


@toolchain
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("worker", ["thread", "warp", "block"])
def test_each_worker_is_clean_for_each_capability(worker, capability):
    body = lower_body(graph_of(softmax, TensorType(f32, (64, 512))))
    ptx, cubin = clean(emit(body, "softmax", worker=worker).kernel, capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx.text
    assert ptx.text.count("shfl.sync.bfly") == (0 if worker == "thread" else 10)
    assert cubin.shared == (32 if worker == "block" else 0)
    assert cubin.registers <= 40
    assert cubin.code[:4] == b"\x7fELF"


@toolchain
@pytest.mark.parametrize("name", ["bool", "i32", "f32"])
def test_every_elementwise_op_is_clean(name):
    dtype = DTYPES[name]
    for op in ELEMENTWISE:
        if defined(op, dtype):
            kernel = one_op(op, operand_dtypes(op, dtype), 128).kernel
            ptx, cubin = built(kernel, (7, 5))
            assert lint(ptx, cubin, kernel.allows, REGISTERS) == [], op.name


TEXT = """
def k(p0, p1, n):
    i = uint32(uint32(cuda.blockIdx.x) * uint32(128) + uint32(cuda.threadIdx.x))
    if i < n:
        {}
"""


def handwritten(statement, allows=frozenset()):
    parameters = (
        Parameter("p0", "float32", True),
        Parameter("p1", "float32", True),
        Parameter("n", "uint32", False),
    )
    return CudaKernel("k", TEXT.format(statement), parameters, 128, allows)


@toolchain
@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("p1[i] = p0[i] * float32(0.1)", None),
        ("p1[i] = p0[i] * 0.1", "f64"),
        ("p1[(i + 5000000000) // n] = p0[i]", "64-bit division"),
        (
            "a = cuda.local.array(64, float32)\n        for j in range(64):\n"
            "            a[j] = p0[j]\n        p1[i] = a[i % uint32(64)]",
            "local memory",
        ),
    ],
)
def test_lint_finds_what_a_careless_emitter_writes(statement, finding):
    kernel = handwritten(statement)
    found = lint(*built(kernel))
    assert [f for f in found if finding is None or finding not in f] == []
    assert bool(found) == bool(finding)
    if finding:
        allowed = replace(kernel, allows=frozenset({finding}))
        assert lint(*built(allowed), allowed.allows) == []


@toolchain
def test_text_that_does_not_compile_says_so_with_the_text():
    with pytest.raises(compiler.ToolchainError, match=r"k does not compile(.|\n)*missing\(p0"):
        compile_ptx(handwritten("p1[i] = missing(p0[i])"), (9, 0))


@toolchain
def test_a_kernel_is_built_once_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path))
    kernel = handwritten("p1[i] = p0[i] + float32(7)")
    first = build(kernel, (8, 0))
    monkeypatch.setattr(compiler, "compile_ptx", None)
    assert build(kernel, (8, 0)) == first
    with pytest.raises(TypeError):
        build(kernel, (9, 0))


@toolchain
def test_a_second_size_is_the_same_machine_code():
    codes = set()
    for rows, columns in ((3, 40), (64, 512)):
        types = [TensorType(f32, s) for s in ((rows, columns), (columns,), (columns,))]
        codes.add(
            built(emit(lower_body(graph_of(layer_norm, *types)), "layer_norm").kernel)[1].code
        )
    assert len(codes) == 1


# Without a toolchain.

CLEAN = Cubin(b"", "k", 16, 0, 0, 0)


def ptx(text):
    return Ptx(text, "k", (9, 0))


@pytest.mark.parametrize(
    ("text", "cubin", "finding"),
    [
        ("\tadd.f32 %f1, %f2, %f3;", CLEAN, None),
        ("\t.reg .f64 %fd<3>;\n.param .f64 p", CLEAN, None),
        ("\tfma.rn.f64 \t%fd1, %fd2, %fd3, %fd4;", CLEAN, "f64 arithmetic"),
        ("\tdiv.u64 \t%rd1, %rd2, %rd3;", CLEAN, "64-bit division"),
        ("\trem.s64 \t%rd1, %rd2, %rd3;", CLEAN, "64-bit division"),
        ("\tdiv.u32 \t%r1, %r2, %r3;", CLEAN, None),
        ("\t.local .align 4 .b8 __local_depot0[28];", CLEAN, "local memory"),
        ("", replace(CLEAN, stack=8), "local memory"),
        ("", replace(CLEAN, spills=24), "24 bytes of register spills"),
        ("", replace(CLEAN, registers=300), "300 registers, more than 255"),
        (".extern .func (.param .b32 r) helper\n(\n)", CLEAN, "external function helper"),
    ],
)
def test_lint_reads_ptx_and_the_assemblers_report(text, cubin, finding):
    found = lint(ptx(text), cubin)
    assert len(found) == (finding is not None)
    assert finding is None or finding in found[0]


def test_a_linker_older_than_the_compiler_is_named():
    assert compiler._mismatch((13, 0), (13, 0)) == ""
    assert compiler._mismatch((13, 0), (13, 5)) == ""
    assert "nvJitLink 13.0 is older than NVVM 13.2" in compiler._mismatch((13, 2), (13, 0))


def test_without_a_toolchain_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(compiler, "missing", lambda: "no toolchain: pip install 'tracecc[cuda]'")
    compiler._frontend.cache_clear()
    with pytest.raises(compiler.ToolchainError, match=r"pip install 'tracecc\[cuda\]'"):
        compile_ptx(handwritten("p1[i] = p0[i]"), (9, 0))
