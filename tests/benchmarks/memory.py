"""Memory beside the installed peers, each in a fresh process: peak, and page faults of a step.

    python tests/benchmarks/memory.py
    python tests/benchmarks/memory.py --only gpt_train,lstm_train --threads 1

The peak is the process's largest resident size, its imports included. A step in steady state that
takes no new memory from the system has no page faults.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIBRARIES = (("tracecc", "compile"), ("torch", "eager"), ("jax", "compile"))
DEFAULT = "gpt_train,resnet18_cifar_train,cnn_train"
WARM, STEPS = 5, 20


def peak() -> float:
    """The largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(lib: str, mode: str, name: str, threads: int) -> dict:
    """The figures of one workload in this process; of the import alone for the name ``import``."""
    if name == "import":
        __import__(lib)
        return {"peak": peak()}
    from one import prepare

    _, step, inputs, sync = prepare(lib, mode, name, threads)
    for _ in range(WARM):
        sync(step(*inputs))
    before = faults()
    for _ in range(STEPS):
        sync(step(*inputs))
    return {"peak": peak(), "faults": (faults() - before) / STEPS}


def apart(lib: str, mode: str, name: str, options: argparse.Namespace) -> dict:
    """The same in a process of its own; empty if it failed."""
    command = [sys.executable, __file__, "--child", lib, mode, name]
    command += ["--threads", str(options.threads)]
    run = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def cell(figures: dict) -> str:
    if "peak" not in figures:
        return "-"
    text = f"{figures['peak']:.0f}"
    return text + (f" ({figures['faults']:.1f})" if "faults" in figures else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=DEFAULT, help="comma-separated workloads")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if options.child:
        print(json.dumps(measure(*options.child, options.threads)))
        return
    print("peak MiB (page faults a step)")
    print("| workload | " + " | ".join(f"{lib} {mode}" for lib, mode in LIBRARIES) + " |")
    print("|---" * (len(LIBRARIES) + 1) + "|")
    for name in ("import", *options.only.split(",")):
        if name != "import":
            apart("tracecc", "compile", name, options)  # fills the disk cache
        cells = [cell(apart(lib, mode, name, options)) for lib, mode in LIBRARIES]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
