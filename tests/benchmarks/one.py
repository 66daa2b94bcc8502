"""Times one workload on one library in this process and prints one line of JSON.

python tests/benchmarks/one.py --lib tracecc --mode compile --name gelu_chain [--threads 2]
python tests/benchmarks/one.py --name gemm_small --sizes '{"m": 37, "n": 51}'
"""

import argparse
import importlib
import json
import logging
import os
import pathlib
import resource
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


def prepare(lib: str, mode: str, name: str, threads: int, sizes: dict):
    """Imports the library and builds the workload: (seconds to import, step, inputs, sync)."""
    started = time.perf_counter()
    if lib == "jax":
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
        import jax
        import workloads_jax

        imported = time.perf_counter() - started
        step, inputs = workloads_jax.WORKLOADS[name](**sizes)
        return imported, step, inputs, jax.block_until_ready
    library = importlib.import_module(lib)
    if lib == "torch":
        logging.disable(logging.WARNING)
        library.set_float32_matmul_precision("highest")
    library.set_num_threads(threads)
    imported = time.perf_counter() - started
    from workloads import WORKLOADS

    library.manual_seed(0)
    step, inputs = WORKLOADS[name](library, **sizes)
    if mode == "compile":
        step = library.compile(step)
    return imported, step, inputs, lambda out: out


def measure(step, inputs, sync, seconds: float) -> dict:
    """The first call's time, then the median and minimum of repeated calls, in seconds."""
    started = time.perf_counter()
    sync(step(*inputs))
    first = time.perf_counter() - started
    for _ in range(3):
        sync(step(*inputs))
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 20_000):
        started = time.perf_counter()
        sync(step(*inputs))
        times.append(time.perf_counter() - started)
    times.sort()
    return {"first": first, "median": times[len(times) // 2], "min": times[0], "n": len(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lib", default="tracecc")
    parser.add_argument("--mode", default="compile", choices=["eager", "compile"])
    parser.add_argument("--name", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--sizes", type=json.loads, default={}, help="arguments of the workload")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    imported, step, inputs, sync = prepare(
        options.lib, options.mode, options.name, options.threads, options.sizes
    )
    figures = measure(step, inputs, sync, options.seconds)
    figures["imported"] = imported
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
