"""Kernel text -> PTX -> cubin, no GPU needed: all that knows the CUDA frontend and linker."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import linecache
import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from tracecc import cache
from tracecc.backends.cuda.device_math import CONSTANTS, TYPES
from tracecc.backends.cuda.kernel import CudaKernel

CAPABILITIES = ((7, 5), (8, 0), (9, 0))


class ToolchainError(RuntimeError):
    """The CUDA toolchain is missing, mismatched, or refused a kernel."""


@dataclass(frozen=True)
class Ptx:
    """PTX text for one compute capability."""

    text: str
    entry: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Cubin:
    """Machine code and what the assembler says of it (bytes, except for registers)."""

    code: bytes
    entry: str
    registers: int
    stack: int
    spills: int
    shared: int


def missing() -> str:
    """Why kernels cannot be compiled here, in one sentence; empty where they can."""
    for module, package in (("numba_cuda", "numba-cuda[cu13]"), ("cuda.core", "cuda-core")):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return (
                f"the CUDA toolchain is not installed (no {package}): pip install 'tracecc[cuda]'"
            )
    return _mismatch(_release("nvidia-nvvm"), _release("nvidia-nvjitlink"))


def _release(package: str) -> tuple[int, int]:
    try:
        major, minor = importlib.metadata.version(package).split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return (0, 0)
    return int(major), int(minor)


def _mismatch(nvvm: tuple[int, int], linker: tuple[int, int]) -> str:
    """A linker older than the compiler refuses its PTX with a message nobody understands."""
    if (0, 0) in (nvvm, linker) or linker >= nvvm:
        return ""
    return (
        f"nvJitLink {linker[0]}.{linker[1]} is older than NVVM {nvvm[0]}.{nvvm[1]} and refuses its "
        "PTX: install nvidia-nvjitlink of at least that version"
    )


@lru_cache
def _frontend() -> Any:
    reason = missing()
    if reason:
        raise ToolchainError(reason)
    if importlib.util.find_spec("_numba_cuda_redirector") is not None:
        importlib.import_module("_numba_cuda_redirector")
    cuda = importlib.import_module("numba.cuda")
    if "numba_cuda" not in (cuda.__file__ or ""):
        raise ToolchainError(
            "numba's own CUDA target was loaded before numba-cuda's; import tracecc first"
        )
    return cuda


def _function(kernel: CudaKernel, cuda: Any) -> Any:
    """The kernel as a Python function whose text inspect and tracebacks can find."""
    file = f"<kernel {kernel.name}>"
    linecache.cache[file] = (len(kernel.source), None, kernel.source.splitlines(True), file)
    types = importlib.import_module("numba.cuda.types")
    names = {t: getattr(types, t) for t in (*TYPES, "float32", "float64")}
    names |= CONSTANTS | {
        "cuda": cuda,
        "libdevice": importlib.import_module("numba.cuda.libdevice"),
    }
    exec(compile(kernel.source, file, "exec"), names)
    return names[kernel.name]


def compile_ptx(kernel: CudaKernel, capability: tuple[int, int]) -> Ptx:
    """Compiles a kernel for one compute capability, for example ``(9, 0)``.

    Raises:
        ToolchainError: no toolchain, or the frontend refused the text (the message shows it).
    """
    cuda = _frontend()
    types = importlib.import_module("numba.cuda.types")
    signature = tuple(
        types.CPointer(getattr(types, p.type)) if p.pointer else getattr(types, p.type)
        for p in kernel.parameters
    )
    function = _function(kernel, cuda)
    try:
        result = cuda.compile_ptx(
            function, signature, cc=capability, launch_bounds=kernel.block, lineinfo=False
        )
    except Exception as error:
        raise ToolchainError(f"{kernel.name} does not compile: {error}\n{kernel.source}") from error
    text = result[0] if isinstance(result[0], str) else result[0].decode()
    entry = re.search(r"\.visible \.entry (\w+)", text)
    if entry is None:
        raise ToolchainError(f"{kernel.name}: the PTX has no entry point")
    return Ptx(_plain_names(text, entry[1], kernel.name), kernel.name, capability)


def _plain_names(text: str, entry: str, name: str) -> str:
    """PTX that depends on the kernel alone: the frontend numbers its names as they come."""
    text = text.replace(entry, name)
    for i, array in enumerate(dict.fromkeys(re.findall(r"_cudapy_smem_\d+", text))):
        text = re.sub(rf"\b{array}\b", f"shared{i}", text)
    for environment in re.findall(r"\.common \.global .*\b(\w*NumbaEnv\w*);\n", text):
        if text.count(environment) == 1:
            text = re.sub(rf".*\b{environment};\n", "", text)
    return text


def link(ptx: Ptx) -> Cubin:
    """Assembles PTX to machine code with nvJitLink."""
    core = importlib.import_module("cuda.core")
    major, minor = ptx.capability
    options = core.LinkerOptions(arch=f"sm_{major}{minor}", ptxas_options=["-v"])
    linker = core.Linker(core.ObjectCode.from_ptx(ptx.text.encode()), options=options)
    try:
        code = bytes(linker.link("cubin").code)
    except Exception as error:
        raise ToolchainError(f"{ptx.entry} does not assemble: {linker.get_error_log()}") from error
    log = linker.get_info_log() or ""

    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, log))

    spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    stack = number(r"(\d+) bytes stack frame")
    # Arrays that other modules could see are not in the assembler's report.
    shared = sum(int(n) for n in re.findall(r"\.shared .*\[(\d+)\];", ptx.text))
    return Cubin(code, ptx.entry, number(r"Used (\d+) registers"), stack, spills, shared)


def build(kernel: CudaKernel, capability: tuple[int, int]) -> Cubin:
    """A kernel's machine code, from the disk cache where it was built before."""
    key = "\n".join(("cuda", str(capability), *_versions(), _signature(kernel), kernel.source))
    stored = cache.get(key)
    if stored is not None:
        head, code = stored.split(b"\n", 1)
        return Cubin(code, **json.loads(head))
    made = link(compile_ptx(kernel, capability))
    report = {f.name: getattr(made, f.name) for f in fields(Cubin) if f.name != "code"}
    cache.put(key, json.dumps(report).encode() + b"\n" + made.code)
    return made


def _signature(kernel: CudaKernel) -> str:
    return f"{kernel.name}({', '.join(map(str, kernel.parameters))}) of {kernel.block} threads"


@lru_cache
def _versions() -> tuple[str, ...]:
    packages = ("numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return tuple(f"{p} {found.get(p)}" for p in packages)


def lint(
    ptx: Ptx, cubin: Cubin, allows: frozenset[str] = frozenset(), register_budget: int = 255
) -> list[str]:
    """The usual mistakes of a code generator, found in its output; empty for a clean kernel.

    Args:
        allows: what the program itself asks for (`CudaKernel.allows`).
        register_budget: the most registers a thread may use.
    """
    found = []
    if "local memory" not in allows and ("__local_depot" in ptx.text or cubin.stack):
        found.append("local memory: an array was not kept in registers")
    if cubin.spills:
        found.append(f"{cubin.spills} bytes of register spills")
    if "f64" not in allows and re.search(r"\b[\w.]+\.f64\s", _code(ptx.text)):
        found.append("f64 arithmetic in a program without f64: a literal was not wrapped")
    if "64-bit division" not in allows and re.search(r"\b(div|rem)\.[su]64\s", ptx.text):
        found.append("64-bit division")
    for name in re.findall(r"^\.extern \.func[^;]*?(\w+)\s*(?:\(|$)", ptx.text, re.MULTILINE):
        found.append(f"unresolved external function {name}")
    if cubin.registers > register_budget:
        found.append(f"{cubin.registers} registers, more than {register_budget}")
    return found


def _code(text: str) -> str:
    """The instructions alone: declarations name types that no instruction uses."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("."))
