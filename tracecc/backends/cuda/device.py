"""A GPU through cuda.core: kernels are loaded once, launched on one stream, timed with events."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc.backends.cuda.compiler import build, missing
from tracecc.backends.cuda.emit import CudaLaunch
from tracecc.backends.cuda.kernel import CudaKernel


class NoGpu(RuntimeError):
    """There is no GPU that can be used; the message says why."""


class Gpu:
    """The first GPU of this machine.

    Args:
        core: what stands for `cuda.core`; tests pass a fake.
        compile: what makes machine code of a kernel for a compute capability.

    Raises:
        NoGpu: no toolchain, driver or device.
    """

    def __init__(self, core: Any = None, compile: Callable[..., Any] = build):
        self.core = core or _core()
        self.compile = compile
        try:
            self.device = self.core.Device(0)
            self.device.set_current()
            major, minor = self.device.compute_capability
        except Exception as error:
            raise NoGpu(f"this machine has no GPU that CUDA can use: {error}") from error
        self.capability = (int(major), int(minor))
        self.stream = self.device.create_stream()
        self.kernels: dict[CudaKernel, Any] = {}

    def kernel(self, kernel: CudaKernel) -> Any:
        """The kernel on this device, compiled and loaded at its first use."""
        if kernel not in self.kernels:
            cubin = self.compile(kernel, self.capability)
            code = self.core.ObjectCode.from_cubin(cubin.code)
            self.kernels[kernel] = code.get_kernel(cubin.entry)
        return self.kernels[kernel]

    def upload(self, array: np.ndarray) -> Any:
        """A contiguous array's bytes in device memory."""
        buffer = self.device.allocate(max(array.nbytes, 1), stream=self.stream)
        if array.nbytes:
            buffer.copy_from(self._host(array), stream=self.stream)
        return buffer

    def download(self, buffer: Any, array: np.ndarray) -> None:
        """Fills a contiguous array from device memory; waits for the stream."""
        if array.nbytes:
            buffer.copy_to(self._host(array), stream=self.stream)
        self.stream.sync()

    def _host(self, array: np.ndarray) -> Any:
        return self.core.Buffer.from_handle(array.ctypes.data, array.nbytes, owner=array)

    def launch(self, launch: CudaLaunch, pointers: Sequence[Any]) -> None:
        """Starts a kernel on buffers, in the order of its pointer parameters."""
        config = self.core.LaunchConfig(grid=launch.grid(), block=launch.kernel.block)
        values = launch.values()
        self.core.launch(self.stream, config, self.kernel(launch.kernel), *pointers, *values)

    def run(
        self, launch: CudaLaunch, reads: Sequence[np.ndarray], writes: Sequence[np.ndarray]
    ) -> None:
        """Runs a kernel on host arrays (a `program.RunKernel`), results filled with NaN bits."""
        for array in writes:
            array.view(np.uint8)[...] = 0xFF
        buffers = [self.upload(a) for a in (*reads, *writes)]
        self.launch(launch, buffers)
        for array, buffer in zip(writes, buffers[len(reads) :], strict=True):
            self.download(buffer, array)
        for buffer in buffers:
            buffer.close()

    def milliseconds(self, work: Callable[[int], None], repeat: int = 20) -> float:
        """The median time of ``work(i)`` on the device, after three that warm up."""
        options = self.core.EventOptions(timing_enabled=True)
        events = [self.device.create_event(options) for _ in range(2 * repeat)]
        for i in range(-3, repeat):
            if i >= 0:
                self.stream.record(events[2 * i])
            work(i % 4)
            if i >= 0:
                self.stream.record(events[2 * i + 1])
        self.stream.sync()
        return float(np.median([events[2 * i + 1] - events[2 * i] for i in range(repeat)]))


def _core() -> Any:
    reason = missing()
    if reason:
        raise NoGpu(reason)
    try:
        return importlib.import_module("cuda.core")
    except ImportError as error:
        raise NoGpu(f"cuda.core cannot be loaded: {error}") from error
