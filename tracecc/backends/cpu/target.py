"""What code is generated for: the host's CPU, or the one that the settings name."""

from __future__ import annotations

import functools
import platform

import llvmlite.binding as llvm

from tracecc import config

# The parameters of a kernel and of an epilogue, all i64.
PARAMETERS = {
    "kernel": ("args", "begin", "end", "scratch"),
    "epilogue": ("args", "tile", "ldt", "row0", "rows", "col0", "cols"),
}


class Target:
    """A CPU to compile for.

    Attributes:
        cpu: LLVM's name of the CPU.
        features: LLVM's feature string, `+avx2,-avx512f,...`.
        enabled: the names of the features that are on.
        vector_bits: the width of the widest vectors that kernels use.
    """

    def __init__(self, cpu: str, features: str):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        self.triple = llvm.get_process_triple()
        host = cpu == "host"
        self.cpu = llvm.get_host_cpu_name() if host else cpu
        flags = llvm.get_host_cpu_features() if host else _baseline(cpu)
        for change in filter(None, features.replace(" ", "").split(",")):
            flags[change.lstrip("+-")] = not change.startswith("-")
        self.features = ",".join(
            f"{'+' if on else '-'}{name}" for name, on in sorted(flags.items())
        )
        self.enabled = frozenset(name for name, on in flags.items() if on)
        self.vector_bits = self._vector_bits()

    def machine(self) -> llvm.TargetMachine:
        """A new LLVM target machine: code for loading into this process at full optimisation."""
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="small", jit=True
        )

    def has(self, feature: str) -> bool:
        return feature in self.enabled

    @property
    def fma(self) -> bool:
        """Whether the CPU has fused multiply-add instructions."""
        return self.has("fma") or self.triple.startswith(("aarch64", "arm64"))

    @property
    def half(self) -> bool:
        """Whether the CPU converts float16 in hardware."""
        return self.has("f16c") or self.triple.startswith(("aarch64", "arm64"))

    @property
    def scales(self) -> bool:
        """Whether multiplying by a power of two is one vector instruction (AVX-512's scalef)."""
        return self.has("avx512f") and self.vector_bits == 512

    @property
    def dots(self) -> bool:
        """Whether f32 vectors take sums of two products of bfloat16 (AVX-512's vdpbf16ps)."""
        whole = self.vector_bits == 512 or self.has("avx512vl")
        return self.has("avx512bf16") and self.has("avx512f") and whole

    def _vector_bits(self) -> int:
        if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686"):
            widest = 512 if self.has("avx512f") else 256 if self.has("avx") else 128
        else:
            widest = 128
        wanted = config.get_int("TRACECC_VECTOR_BITS")
        return min(wanted, widest) if wanted else widest


_LEVELS = {
    "x86-64": "",
    "x86-64-v2": "cx16 popcnt sse3 ssse3 sse4.1 sse4.2",
    "x86-64-v3": "cx16 popcnt sse3 ssse3 sse4.1 sse4.2 avx avx2 bmi bmi2 f16c fma lzcnt movbe",
    "x86-64-v4": "cx16 popcnt sse3 ssse3 sse4.1 sse4.2 avx avx2 bmi bmi2 f16c fma lzcnt movbe "
    "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def _baseline(cpu: str) -> dict[str, bool]:
    """The features of x86-64's published levels; other names get what LLVM gives them."""
    return dict.fromkeys(_LEVELS.get(cpu, "").split(), True)


@functools.cache
def _target(cpu: str, features: str, vector_bits: str) -> Target:
    return Target(cpu, features)


def target() -> Target:
    """The target that the settings name now."""
    return _target(
        config.get("TRACECC_CPU"),
        config.get("TRACECC_CPU_FEATURES"),
        config.get("TRACECC_VECTOR_BITS"),
    )
