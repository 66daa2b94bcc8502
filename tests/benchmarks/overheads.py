"""Prints what tracecc costs around the kernels: import, launch, entry, second process.

python tests/benchmarks/overheads.py
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"

FIRST_STEP = """
import time
t0 = time.perf_counter()
import tracecc as tc
t1 = time.perf_counter()
import sys
sys.path.insert(0, {examples!r})
import digits
x, y = tc.zeros(64, 1, 8, 8), tc.zeros(64, dtype=tc.int64)
t2 = time.perf_counter()
step = tc.compile(digits.build()[2])
step(x, y)
t3 = time.perf_counter()
print(t1 - t0, t3 - t2, step._last.forward.kernels_compiled)
"""


def median_time(function, repeats: int = 2000) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def entry_cost(in_module: bool) -> float:
    """Calling a compiled function with 2 tensor arguments and 30 captured state tensors."""
    import tracecc as tc

    state = [tc.ones(4) for _ in range(30)]
    if in_module:
        state = tc.nn.ParameterList([tc.nn.Parameter(s, requires_grad=False) for s in state])

    @tc.compile
    def f(x, y):
        total = x + y
        for s in state:
            total = total + s
        return total

    x, y = tc.ones(4), tc.ones(4)
    f(x, y)
    return median_time(lambda: f(x, y))


def launch_cost(count: int = 100) -> float:
    """A table of empty kernels, through the driver."""
    from tracecc.backends.cpu.driver import Program
    from tracecc.backends.cpu.toolchain import compile_kernel

    empty = compile_kernel("def empty(args, begin, end, scratch):\n    pass\n", "empty")
    program = Program([[empty.address, 0, 1, 1]] * count)
    return median_time(program.run)


def processes() -> tuple[list[float], list[float]]:
    """Import, first digits step and compiled kernels in a first and in a second process."""
    examples = str(EXAMPLES)
    with tempfile.TemporaryDirectory() as cache:
        env = dict(os.environ, TRACECC_CACHE_DIR=cache)
        code = FIRST_STEP.format(examples=examples)
        runs = [
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
            for _ in range(2)
        ]
        for run in runs:
            if run.returncode:
                raise SystemExit(run.stderr)
        first, second = ([float(v) for v in run.stdout.split()] for run in runs)
        return first, second


def main() -> None:
    first, second = processes()
    print(f"import tracecc                      {second[0]:.3f} s      (target 0.5)")
    print(f"digits, first step, empty cache     {first[1]:.3f} s, {first[2]:.0f} kernels compiled")
    print(f"digits, first step, second process  {second[1]:.3f} s, {second[2]:.0f} kernels compiled"
          "  (target 0.5, 0)")  # fmt: skip
    print(f"100 empty kernels in the driver     {launch_cost() * 1e6:.2f} us     (target 2)")
    module, plain = entry_cost(True) * 1e6, entry_cost(False) * 1e6
    print(f"entry: 30 states of a module        {module:.2f} us     (target 5)")
    print(f"entry: 30 states in a Python list   {plain:.2f} us     (target 5; compared each call)")


if __name__ == "__main__":
    main()
