"""A process that compiles kernels for another one, see `compile_pool.py`.

It is run as a script, without `site`: nothing of the user's program is imported again. Jobs arrive
on standard input and object code leaves on standard output, pickled.
"""

import os
import pathlib
import pickle
import sys
import time
import types

WARM = "def warm(args, begin, end, scratch):\n    for i in range(begin, end):\n        pass\n"


def main() -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between results
    requests = sys.stdin.buffer
    sys.path[:] = pickle.load(requests)
    # Packages without their contents: compiling needs a few modules of tracecc, not the library.
    root = pathlib.Path(__file__).parents[2]
    for name, folder in (("tracecc", "."), ("tracecc.backends", "backends")):
        package = types.ModuleType(name)
        package.__path__ = [str(root / folder)]
        sys.modules[name] = package

    def answer(message: object) -> None:
        pickle.dump(message, results)
        results.flush()

    from tracecc.backends.cpu import toolchain

    toolchain.object_code(toolchain.Job("kernel", WARM, "warm", False, "warm"))
    answer("ready")
    while True:
        try:
            job = pickle.load(requests)
        except EOFError:
            return
        start = time.perf_counter()
        try:
            code = toolchain.object_code(job)
        except Exception:  # the other process meets it again, and can tell the user
            code = None
        answer((code, time.perf_counter() - start))


if __name__ == "__main__":
    main()
