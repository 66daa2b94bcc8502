"""One command for a machine with an NVIDIA GPU: every kernel against the interpreter, then speed.

    pip install -e '.[cuda]' -c .ci/cuda-constraints.txt && python tests/gpu/run.py

Ends with a short table. Exits with 1 if a number is wrong, with 2 and one sentence without a GPU.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer random graphs, smaller arrays")
    options = parser.parse_args(arguments)
    from tracecc.backends.cuda.device import Gpu, NoGpu

    try:
        gpu = Gpu()
    except NoGpu as reason:
        print(f"tests/gpu/run.py: {reason}", file=sys.stderr)
        return 2
    import gpu_checks

    start = time.perf_counter()
    print(f"{gpu.device.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}")
    tally = gpu_checks.check(gpu, graphs=20 if options.quick else 200)
    rows = gpu_checks.bandwidth(gpu, elements=1 << (22 if options.quick else 26))
    print(f"\nnumerics: {tally.passed} passed, {len(tally.failed)} failed")
    print(f"{'kernel':24}{'GB/s':>8}{'of copy':>9}{'ms':>9}")
    for name, rate, share, milliseconds in rows:
        print(f"{name:24}{rate:8.0f}{share:9.0%}{milliseconds:9.3f}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
