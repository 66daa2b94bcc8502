"""Numba's frontend as a function from kernel source to LLVM text; Numba optimises nothing."""

from __future__ import annotations

import linecache
import re
from typing import Any

from llvmlite import ir
from numba.core import compiler, types
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    BaseNativeLowering,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    TranslateByteCode,
)

from tracecc.backends.cpu import intrinsics
from tracecc.backends.cpu.target import PARAMETERS


class _Lower(Lower):
    """Lowers into a module of its own and hands the module over instead of compiling it."""

    def lower(self) -> None:
        self.lower_normal_function(self.fndesc)
        self.context.post_lowering(self.module, self.library)
        self.metadata["module"] = self.module
        self.metadata["function"] = self.fndesc.llvm_func_name


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(BaseNativeLowering):
    _name: Any = "tracecc_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower


class _Pipeline(compiler.CompilerBase):
    """Bytecode to typed IR to LLVM, without the passes that kernels have no use for."""

    def define_pipelines(self) -> list[PassManager]:
        manager = PassManager("tracecc")
        for step in (
            TranslateByteCode,
            FixupArgs,
            IRProcessing,
            ReconstructSSA,
            NopythonTypeInference,
            PreLowerStripPhis,
            _Lowering,
        ):
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


# No wrappers, no reference counts, no Python exceptions; contraction to fused multiply-adds only.
_OPTIONS: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "no_compile": True,
    "no_rewrites": True,
    "nrt": False,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    for name, value in _OPTIONS.items():
        setattr(flags, name, value)
    return flags


def lower(kind: str, source: str, entry: str, symbol: str, independent: bool) -> str:
    """LLVM text of a module whose C function `symbol` is the kernel.

    Args:
        kind: kernel or epilogue, see `target.PARAMETERS`.
        source, entry, independent: see `toolchain.compile_kernel`.
        symbol: the external name.
    """
    file = f"<kernel {symbol}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    namespace: dict[str, Any] = dict(intrinsics.VOCABULARY)
    exec(compile(source, file, "exec"), namespace)
    pipeline = _Pipeline(
        cpu_target.typing_context,
        cpu_target.target_context,
        None,
        (types.int64,) * len(PARAMETERS[kind]),
        types.none,
        _flags(),
        {},
    )
    pipeline.compile_extra(namespace[entry])
    module: ir.Module = pipeline.state.metadata["module"]
    name: str = pipeline.state.metadata["function"]
    text = _inlined(str(module), name) + _wrapper(name, symbol, PARAMETERS[kind])
    return _as_independent(text) if independent else text


def _inlined(text: str, name: str) -> str:
    """The text with Numba's function private to the module, so that the wrapper absorbs it."""
    head = re.search(rf'^define [^\n]*@"?{re.escape(name)}"?\([^\n]*\)[^\n]*$', text, re.MULTILINE)
    assert head is not None, name
    line = re.sub(r"^define (?:\w+ )*i32", "define internal i32", head.group())
    text = text[: head.start()] + line + " alwaysinline nounwind" + text[head.end() :]
    return re.sub(r"^target (?:triple|datalayout) = .*$", "", text, flags=re.MULTILINE)


def _wrapper(name: str, symbol: str, parameters: tuple[str, ...]) -> str:
    values = ", ".join(f"i64 %{p}" for p in parameters)
    return f"""
define void @{symbol}({values}) nounwind {{
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @"{name}"(ptr %result, ptr %exception, {values})
  ret void
}}
"""


_ACCESS = re.compile(r"^  (?:%\S+ = load |store )")
_LABEL = re.compile(r'^"?([^"\s:]+)"?:')
_JUMP = re.compile(r'^  br label %"?([^"\s]+)"?$')


def _as_independent(text: str) -> str:
    """The text with every loop marked parallel and every access in the group that the mark names.

    A loop that holds an access outside the group stays unmarked for LLVM, so local variables, which
    are promoted to registers first, do not matter. See `llvm.loop.parallel_accesses` in LLVM's
    language reference.
    """
    lines, seen, loops = text.split("\n"), set(), 0
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            seen.add(label[1])
        elif _ACCESS.match(line):
            lines[number] = line + ", !llvm.access.group !9000"
        elif (jump := _JUMP.match(line)) and jump[1] in seen:
            lines[number] = line + f", !llvm.loop !{9002 + loops}"
            loops += 1
    marks = ["!9000 = distinct !{}", '!9001 = !{!"llvm.loop.parallel_accesses", !9000}']
    marks += [f"!{n} = distinct !{{!{n}, !9001}}" for n in range(9002, 9002 + loops)]
    return "\n".join(lines + marks) + "\n"
