"""Numba's frontend as a function from kernel source to LLVM text; Numba optimises nothing."""

from __future__ import annotations

import ast
import linecache
import re
from typing import Any

from llvmlite import ir
from numba.core import compiler, types
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import (
    BaseNativeLowering,
    NopythonTypeInference,
)
from numba.core.untyped_passes import (
    FixupArgs,
    IRProcessing,
    TranslateByteCode,
)

from tracecc.backends.cpu import contexts, intrinsics
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
            NopythonTypeInference,
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


class _Loops(ast.NodeTransformer):
    """Loops over ranges as counted `while` loops, since Numba makes iterator objects of ranges.

    for i in range(a, b, 4):    |    next_0 = a
        body                    |    stop_0 = b
                                |    while next_0 < stop_0:
                                |        i = next_0
                                |        next_0 = i + 4
                                |        body

    A step that is not a literal may be negative: such a loop stays.
    """

    def __init__(self) -> None:
        self.loops = 0

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        assert isinstance(node.iter, ast.Call)
        assert isinstance(node.target, ast.Name)
        bounds = node.iter.args
        step = bounds[2] if len(bounds) == 3 else ast.Constant(1)
        if not isinstance(step, ast.Constant):
            return node
        begin = bounds[0] if len(bounds) > 1 else ast.Constant(0)
        end = bounds[min(1, len(bounds) - 1)]
        following, stop = f"next_{self.loops}", f"stop_{self.loops}"
        self.loops += 1
        item = node.target.id
        test = ast.Compare(_name(following), [ast.Lt()], [_name(stop)])
        rise = [
            _assign(item, _name(following)),
            _assign(following, ast.BinOp(_name(item), ast.Add(), step)),
        ]
        loop = ast.While(test, rise + node.body, [])
        parts = [_assign(following, begin), _assign(stop, end), loop]
        return [ast.copy_location(part, node) for part in parts]


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


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
    tree = _Loops().visit(ast.parse(source, file))
    exec(compile(ast.fix_missing_locations(tree), file, "exec"), namespace)
    pipeline = _Pipeline(
        contexts.TYPING,
        contexts.TARGET,
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
# Numba names the blocks that begin at an offset of the bytecode B12, B12.if, B12.endif, ...
_LABEL = re.compile(r'^"?B(\d+)[^"\s]*"?:')
_JUMP = re.compile(r'^  br (?:i1 [^,]+, label %"?B(\d+)"?, )?label %"?B(\d+)"?$')


def _as_independent(text: str) -> str:
    """The text with innermost loops marked parallel and every access in the group the mark names.

    A loop that holds an access outside the group stays unmarked for LLVM, so local variables, which
    are promoted to registers first, do not matter. See `llvm.loop.parallel_accesses` in LLVM's
    language reference. (Were outer loops marked too, LLVM would unroll short inner ones and gather
    and scatter along the outer.)
    """
    lines = text.split("\n")
    loops: list[tuple[int, int, int]] = []  # line of the jump back, offsets of both its ends
    block = -1
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            block = int(label[1])
        elif _ACCESS.match(line):
            lines[number] = line + ", !llvm.access.group !9000"
        elif jump := _JUMP.match(line):
            heads = [int(to) for to in jump.groups() if to is not None and int(to) <= block]
            loops += [(number, head, block) for head in heads]
    inner = [
        number
        for number, head, end in loops
        if not any(head < other <= end for _, other, _ in loops)
    ]
    for mark, number in enumerate(inner, 9002):
        lines[number] += f", !llvm.loop !{mark}"
        lines.append(f"!{mark} = distinct !{{!{mark}, !9001}}")
    lines.append("!9000 = distinct !{}")
    lines.append('!9001 = !{!"llvm.loop.parallel_accesses", !9000}')
    return "\n".join(lines) + "\n"
