"""Kernel source or LLVM text in, callable address out; object code is kept in the disk cache.

Two doors: `compile_kernel` takes Python source (through Numba's frontend), `compile_ir` takes LLVM
text. A cache hit imports neither Numba nor anything that builds IR, only llvmlite's loader.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import llvmlite
import llvmlite.binding as llvm

from tracecc import cache
from tracecc.backends.cpu.compile_pool import Pool
from tracecc.backends.cpu.target import Target, target

ABI_VERSION = 3
# The files that decide what code a kernel source becomes; their contents are in every cache key.
_LIBRARY = (
    "contexts.py",
    "frontend.py",
    "intrinsics.py",
    "target.py",
    "toolchain.py",
    "vecmath*.py",
)


@dataclass(frozen=True)
class Job:
    """What is to be compiled, in words that another process understands.

    Attributes:
        kind: kernel, epilogue or ir.
        source: Python source, or LLVM text that defines `symbol`.
        entry, independent: see `compile_kernel`.
        symbol: the name in the object code.
    """

    kind: str
    source: str
    entry: str
    independent: bool
    symbol: str


class Kernel:
    """Machine code, compiled and put into memory when it is first needed (or by `compile_all`).

    Attributes:
        name: the entry point's name in the source.
        symbol: the name in the object code, which ends in a hash of everything it depends on.
        source: the text it is compiled from.
        cached: whether the object code came from the disk cache.
        compile_seconds: what compiling, or reading from the cache, took so far.
        independent: see `compile_kernel`.
    """

    def __init__(self, key: str, symbol: str, kind: str, source: str, entry: str):
        self.name, self.symbol, self.source = entry, symbol, source
        self.independent = False
        self._key, self._kind = key, kind
        self._builder: Callable[[], str] | None = None
        self._code = cache.get(key)
        self._address = 0
        self.cached = self._code is not None
        self.compile_seconds = 0.0

    @property
    def address(self) -> int:
        """The address of the C function `void(i64 args, i64 begin, i64 end, i64 scratch)` (of the
        entry symbol, with its own signature, for `compile_ir`)."""
        if not self._address:
            code = self.object_code
            with _lock:
                self._address = self._address or _load(code, self.symbol)
        return self._address

    @property
    def object_code(self) -> bytes:
        """The relocatable object file."""
        self.compile()
        assert self._code is not None
        return self._code

    def compile(self) -> None:
        """Compiles it, if it is missing."""
        with _lock:
            if self._code is None:
                start = time.perf_counter()
                self.finish(object_code(self.job), time.perf_counter() - start)

    @property
    def missing(self) -> bool:
        """Whether it is still to be compiled."""
        return self._code is None

    @functools.cached_property
    def job(self) -> Job:
        """What is to be done to compile it."""
        text = self.source
        if self._builder is not None:
            text = self._builder().replace(f"@{self.name}(", f"@{self.symbol}(")
            text = text.replace(f'@"{self.name}"', f"@{self.symbol}")
        return Job(self._kind, text, self.name, self.independent, self.symbol)

    def finish(self, code: bytes, seconds: float) -> None:
        """Takes the object code that its job made, and stores it."""
        cache.put(self._key, code, self.job.source)
        self.compile_seconds += seconds
        self._code = code

    def assembly(self) -> str:
        """The assembly text; it is not kept, so this compiles the source again."""
        return assembly(self.source, self.name, independent=self.independent)


# In assembly: what begins a section of constants, a call of a function of another module, and the
# use of an address of one.
_READ_ONLY = re.compile(r"\.section\s+\.rodata.*")
_CALL = re.compile(r"\b(call|jmp)q?\s+(\w+)@PLT")
_OUTSIDE = re.compile(r"(\w+)@GOTPCREL\(%rip\)")

_lock = threading.RLock()
_thread = threading.local()
_known: dict[str, Kernel] = {}
_engine: llvm.ExecutionEngine | None = None


def vector_bits() -> int:
    """The width in bits of the vectors that kernels use: 512, 256 or 128."""
    return target().vector_bits


def compile_kernel(source: str, entry: str, *, independent: bool = False) -> Kernel:
    """Compiles a kernel from Python source.

    Args:
        source: text that defines `def entry(args, begin, end, scratch)` over the names of
            `intrinsics.py` (calls of other Python functions are not compiled).
        entry: the function's name.
        independent: a promise that in each innermost loop no iteration reads or writes memory that
            another one writes (in-place elementwise work keeps it; a running sum does not). LLVM
            then vectorises without comparing pointers at run time.

    Returns:
        The kernel, from this process's table, the disk cache or the compiler, in this order.

    Raises:
        numba.core.errors.NumbaError: the source is not in the compilable subset.
    """
    return _kernel("kernel", source, entry, independent, None)


def compile_epilogue(source: str, entry: str, *, independent: bool = False) -> Kernel:
    """Compiles what a matrix product or convolution calls on each finished tile of its result.

    Args:
        source: text that defines `def entry(args, tile, ldt, row0, rows, col0, cols)`: `tile` is
            the address of f32 (f64) results [rows, cols] whose rows are `ldt` elements apart, the
            part of the 2-D output that begins at (row0, col0); the function stores everything.
        entry, independent: see `compile_kernel`.

    Returns:
        The kernel, whose address takes these seven i64.
    """
    return _kernel("epilogue", source, entry, independent, None)


def compile_ir(builder: Callable[[], str], key: str, entry: str = "entry") -> Kernel:
    """Compiles hand-built LLVM text.

    Args:
        builder: returns the text of a module that defines `@entry` with external linkage (the text
            `entry` is replaced by a unique symbol). It may declare and call the functions of
            `vecmath` (`@tcc.exp.f32` ...). Called only when the code is not in the cache.
        key: everything the text depends on besides the target: a name, a version, parameters.
        entry: the symbol of the entry point.

    Returns:
        The kernel; its address has whatever signature the text gave the entry.
    """
    return _kernel("ir", key, entry, False, builder)


def compile_all(kernels: Iterable[Kernel], pool: Pool) -> None:
    """Compiles those of the kernels that are missing, here and in the pool's processes at once."""
    missing = {kernel.symbol: kernel for kernel in kernels if kernel.missing}
    pool.run(sorted(missing.values(), key=lambda kernel: len(kernel.source), reverse=True))


@contextlib.contextmanager
def batch() -> Iterator[Pool]:
    """Where many kernels are asked for: other processes start once some are found missing.

    Yields:
        The pool for `compile_all`, that of the outer batch where this one is inside another.
    """
    outer = getattr(_thread, "pool", None)
    if outer is not None:
        yield outer
        return
    with Pool() as pool:
        _thread.pool = pool
        try:
            yield pool
        finally:
            _thread.pool = None


def assembly(source: str, entry: str, *, independent: bool = False) -> str:
    """The assembly text of a kernel, compiled afresh for the current target."""
    module, machine = _optimised(Job("kernel", source, entry, independent, "tcc_kernel"), target())
    return machine.emit_assembly(module)


def llvm_text(source: str, entry: str, *, independent: bool = False) -> str:
    """The optimised LLVM text of a kernel, compiled afresh for the current target."""
    job = Job("kernel", source, entry, independent, "tcc_kernel")
    return str(_optimised(job, target())[0])


def object_code(job: Job) -> bytes:
    """Compiles, in whichever process this is."""
    goal = target()
    module, machine = _optimised(job, goal)
    text = _in_one_section(machine.emit_assembly(module))
    lines = text.replace("\\", "\\5C").replace('"', "\\22").split("\n")
    text = "\n".join(f'module asm "{line}"' for line in lines)
    return machine.emit_object(llvm.parse_assembly(f'target triple = "{goal.triple}"\n{text}\n'))


def _in_one_section(text: str) -> str:
    """Assembly with constants, and the addresses of what it calls, behind the code.

    Code reaches them by offsets of 32 bits, and LLVM's loader puts other sections, and its own
    table of addresses, anywhere once much memory is in use.
    """
    text = _CALL.sub(r"\1q\t*\2@GOTPCREL(%rip)", _READ_ONLY.sub(".text", text))
    outside = dict.fromkeys(_OUTSIDE.findall(text))
    text = _OUTSIDE.sub(r".L\1_at(%rip)", text)
    places = [f"\t.p2align\t3\n.L{name}_at:\n\t.quad\t{name}\n" for name in outside]
    return "".join((text, "\t.text\n", *places))


def _kernel(
    kind: str, source: str, entry: str, independent: bool, builder: Callable[[], str] | None
) -> Kernel:
    goal = target()
    key = "\n".join((kind, _versions(), _machine_key(goal), entry, str(independent), source))
    with _lock:
        found = _known.get(key)
        if found is None:
            symbol = f"tcc_{entry}_{cache.digest(key)[:24]}"
            found = _known[key] = Kernel(key, symbol, kind, source, entry)
            found.independent, found._builder = independent, builder
            pool = getattr(_thread, "pool", None)
            if found.missing and pool is not None:
                pool.expect()
    return found


@functools.cache
def _versions() -> str:
    folder = pathlib.Path(__file__).parent
    library = hashlib.sha256()
    for pattern in _LIBRARY:
        for file in sorted(folder.glob(pattern)):
            library.update(file.read_bytes())
    return (
        f"abi {ABI_VERSION} library {library.hexdigest()} llvmlite {llvmlite.__version__} "
        f"numba {importlib.metadata.version('numba')}"
    )


def _machine_key(goal: Target) -> str:
    return f"{goal.triple} {goal.cpu} {goal.features} {goal.vector_bits}"


def _optimised(job: Job, goal: Target) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The optimised module whose function is the entry."""
    # Imported here because a process with a warm cache needs neither, and Numba takes long.
    from tracecc.backends.cpu import vecmath

    text = job.source
    if job.kind != "ir":
        from tracecc.backends.cpu import frontend

        text = frontend.lower(job.kind, job.source, job.entry, job.symbol, job.independent)
    module = llvm.parse_assembly(_with_attributes(vecmath.link(text, goal), goal))
    machine = goal.machine()
    module.triple = goal.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    _check_symbols(module, job.entry)
    return module, machine


def _check_symbols(module: llvm.ModuleRef, entry: str) -> None:
    """Refuses code that calls what does not exist: the loader would end the process."""
    _loader()  # Making it is what lets LLVM see the symbols of this process.
    for function in module.functions:
        name = function.name
        if not function.is_declaration or name.startswith("llvm."):
            continue
        if llvm.address_of_symbol(name) is None:
            raise ValueError(f"{entry} calls {name}, which is not in the kernel vocabulary")


def _with_attributes(text: str, goal: Target) -> str:
    """The text with the preferred vector width on every function it defines."""
    width = f'"prefer-vector-width"="{goal.vector_bits}"'
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("define "):
            head, parenthesis, tail = line.rpartition(")")
            lines[number] = f"{head}{parenthesis} {width}{tail}"
    return "\n".join(lines)


def _loader() -> llvm.ExecutionEngine:
    """The loader of this process, made on first use and kept for good."""
    global _engine
    if _engine is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        module = llvm.parse_assembly("")
        module.triple = llvm.get_process_triple()
        machine = llvm.Target.from_triple(module.triple).create_target_machine(jit=True)
        _engine = llvm.create_mcjit_compiler(module, machine)
    return _engine


def _load(code: bytes, symbol: str) -> int:
    """Puts object code into memory, for as long as the process lives."""
    engine = _loader()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(symbol)
