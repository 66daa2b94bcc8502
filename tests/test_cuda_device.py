"""The host side, checked with a stand-in for cuda.core whose launches run in the simulator."""

import pathlib
import subprocess
import sys
from types import SimpleNamespace

import gpu_checks
import numpy as np
import pytest
from cuda_programs import graph_of, softmax

from tracecc.backends.cuda.compiler import Cubin, missing
from tracecc.backends.cuda.device import Gpu, NoGpu
from tracecc.backends.cuda.emit import emit
from tracecc.backends.cuda.simulator import simulate
from tracecc.backends.schedule_body import lower_body
from tracecc_ir.types import TensorType, f32

RUN = pathlib.Path(__file__).parent / "gpu" / "run.py"


class Core:
    """cuda.core as far as we use it. Memory is on the host; what is called is written down."""

    def __init__(self):
        self.calls = []
        self.kernels = {}
        self.live = 0
        self.EventOptions = SimpleNamespace
        self.Buffer = SimpleNamespace(from_handle=self.host)
        self.ObjectCode = SimpleNamespace(from_cubin=self.load)
        self.LaunchConfig = SimpleNamespace

    def Device(self, number):
        return SimpleNamespace(
            set_current=lambda: None,
            compute_capability=(9, 0),
            name="simulated",
            create_stream=lambda: SimpleNamespace(sync=self.sync, record=self.record),
            create_event=lambda options: Event(),
            allocate=self.allocate,
        )

    def sync(self):
        self.calls.append("sync")

    def record(self, event):
        event.time = len(self.calls)

    def allocate(self, size, stream):
        self.live += 1
        return Buffer(self, np.zeros(size, np.uint8))

    def host(self, address, size, owner):
        assert owner.ctypes.data == address
        return Buffer(self, owner.reshape(-1).view(np.uint8))

    def load(self, code):
        return SimpleNamespace(get_kernel=lambda name: self.kernels[code])

    def launch(self, stream, config, kernel, *arguments):
        pointers = [p for p in kernel.parameters if p.pointer]
        self.calls.append((kernel.name, config.grid, config.block, len(arguments)))
        passed = [
            a.memory.view(p.type) if p.pointer else a
            for p, a in zip(kernel.parameters, arguments, strict=True)
        ]
        assert [type(a).__name__ for a in passed[len(pointers) :]] == [
            p.type for p in kernel.parameters[len(pointers) :]
        ]
        simulate(kernel.source, kernel.name, (config.grid,), (config.block,), passed)

    def compile(self, kernel, capability):
        assert capability == (9, 0)
        code = kernel.source.encode()
        self.kernels[code] = kernel
        return Cubin(code, kernel.name, 16, 0, 0, 0)


class Event:
    def __sub__(self, other):
        return float(self.time - other.time)


class Buffer:
    def __init__(self, core, memory):
        self.core, self.memory = core, memory

    def copy_from(self, source, stream):
        self.memory[...] = source.memory

    def copy_to(self, target, stream):
        target.memory[...] = self.memory

    def close(self):
        self.core.live -= 1


@pytest.fixture
def gpu():
    core = Core()
    return Gpu(core, core.compile)


def test_a_kernel_runs_and_frees_what_it_took(gpu):
    launch = emit(lower_body(graph_of(softmax, TensorType(f32, (5, 40)))), "softmax", 64)
    x = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    y = np.empty(200, np.float32)
    gpu.run(launch, [x], [y])
    e = np.exp(x.reshape(5, 40))
    np.testing.assert_allclose(y.reshape(5, 40), e / e.sum(1, keepdims=True), rtol=1e-5)
    assert gpu.core.calls == [("softmax", 3, 64, 2 + len(launch.numbers)), "sync"]
    assert gpu.core.live == 0


def test_a_kernel_is_compiled_once(gpu):
    launch = emit(lower_body(graph_of(softmax, TensorType(f32, (2, 9)))), "softmax", 32)
    bigger = emit(lower_body(graph_of(softmax, TensorType(f32, (4, 30)))), "softmax", 32)
    first = gpu.kernel(launch.kernel)
    gpu.compile = None
    assert gpu.kernel(bigger.kernel) is first


def test_the_gpu_checks_pass_on_the_simulator_and_notice_a_wrong_kernel(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu_checks, "PROGRAMS", gpu_checks.PROGRAMS[:2])
    monkeypatch.setattr(gpu_checks, "TESTED", ("f32",))
    small = [c for c in gpu_checks._programs(gpu, graphs=2) if "00" not in c[0]][:4]
    monkeypatch.setattr(gpu_checks, "_programs", lambda *_: small)
    tally = gpu_checks.check(gpu, graphs=2, size=4)
    assert tally.failed == []
    assert tally.passed > 60
    monkeypatch.setattr(gpu, "run", lambda launch, reads, writes: None)
    assert len(gpu_checks.check(gpu, graphs=0, size=4).failed) > 40
    assert "FAILED add f32" in capsys.readouterr().out


def test_bandwidth_is_timed_for_every_case(gpu):
    table = gpu_checks.bandwidth(gpu, elements=1024)
    assert table[0][0] == "copy"
    assert table[0][2] == 1
    assert all(rate > 0 for _, rate, _, _ in table)
    assert gpu.core.live == 0


def test_without_a_driver_the_error_is_one_sentence():
    def device(number):
        raise RuntimeError("no driver")

    with pytest.raises(NoGpu, match="no GPU that CUDA can use: no driver"):
        Gpu(SimpleNamespace(Device=device))


def has_gpu():
    if missing():
        return False
    try:
        Gpu()
    except NoGpu:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_the_command_says_what_is_missing_and_stops():
    done = subprocess.run([sys.executable, RUN], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tests/gpu/run.py: ")
    assert done.stderr.count("\n") == 1
