"""Times products, convolutions and whole workloads in float32 and bfloat16, beside PyTorch's.

    python tests/benchmarks/bf16.py [--threads 2] [--only gpt_train,"conv 3x3"]

Everything runs interleaved in one process. Workloads of workloads.py run in autocast regions.
"""

import argparse
import pathlib
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
WORKLOADS = ("gemm_bias_relu", "conv_block", "mlp_train", "cnn_train", "lstm_train", "gpt_train",
             "resnet18_infer", "resnet18_cifar_train")  # fmt: skip
# Rows, columns and sums of a product, and which operands are transposed.
PRODUCTS = ((1024, 1024, 1024, ""), (1024, 1024, 1024, "x"), (1024, 1024, 1024, "y"),
            (64, 768, 768, "y"), (100, 100, 100, ""))  # fmt: skip
# Images, channels, outputs, pixels along a side, window, stride.
CONVOLUTIONS = ((32, 64, 64, 32, 3, 1), (32, 64, 64, 32, 1, 1), (32, 128, 128, 16, 3, 1),
                (32, 64, 128, 32, 3, 2), (32, 3, 32, 32, 3, 1))  # fmt: skip
LIBRARIES = ("tracecc", "torch")
DTYPES = ("float32", "bfloat16")


def draw(library, dtype, *shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")
    return library.from_numpy(values).to(getattr(library, dtype))


def product(library, dtype, m, n, k, turned):
    x = draw(library, dtype, *((k, m) if turned == "x" else (m, k)))
    y = draw(library, dtype, *((n, k) if turned == "y" else (k, n)))

    def run(x, y):
        return (x.T if turned == "x" else x) @ (y.T if turned == "y" else y)

    return run, (x, y)


def convolution(library, dtype, n, c, o, size, window, stride, which):
    """The convolution, or its gradient for operand 0 or 1 alone."""
    padding = window // 2
    x, w = draw(library, dtype, n, c, size, size), draw(library, dtype, o, c, window, window)

    def forward(x, w):
        return library.nn.functional.conv2d(x, w, stride=stride, padding=padding)

    if which is None:
        return forward, (x, w)
    g = draw(library, dtype, *forward(x, w).shape)
    if library.__name__ == "torch":
        mask = [which == 0, which == 1, False]
        sizes = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
        backward = library.ops.aten.convolution_backward
        return (lambda g: backward(g, x, w, None, *sizes, mask)), (g,)

    def backward(g):
        operand = (x, w)[which].detach().requires_grad_()
        y = forward(operand, w) if which == 0 else forward(x, operand)
        return library.autograd.grad(y, operand, g)

    return backward, (g,)


def workload(library, dtype, name):
    from workloads import WORKLOADS as builders

    step, inputs = builders[name](library)

    def in_region(*inputs):
        with library.autocast("cpu", library.bfloat16):
            return step(*inputs)

    return (step if dtype == "float32" else in_region), inputs


def rows():
    for *sizes, turned in PRODUCTS:
        label = f"product {'x'.join(map(str, sizes))} {turned and turned + '.T'}"
        yield label.strip(), product, (*sizes, turned)
    for sizes in CONVOLUTIONS:
        n, c, o, size, window, stride = sizes
        for part, which in (("", None), (", input's gradient", 0), (", weight's gradient", 1)):
            label = f"conv {window}x{window} {c} to {o}, {n} x {size}x{size}, stride {stride}{part}"
            yield label, convolution, (*sizes, which)
    for name in WORKLOADS:
        yield name, workload, (name,)


def times(libraries, build, arguments, seconds: float) -> list[float]:
    """The least time of each library and dtype, in seconds."""
    calls = []
    for library in libraries:
        for dtype in DTYPES:
            run, inputs = build(library, dtype, *arguments)
            run = library.compile(run) if library.__name__ == "tracecc" else run
            calls.append(lambda run=run, inputs=inputs: run(*inputs))
    for call in calls * 2:
        call()
    least, end = [float("inf")] * len(calls), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated parts of rows' names")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    libraries = [__import__(name) for name in LIBRARIES]
    for library in libraries:
        library.set_num_threads(options.threads)
    print("| ms | float32 | bfloat16 | times faster | torch float32 | torch bfloat16 | torch's "
          "bfloat16 / ours |\n" + "|---" * 7 + "|")  # fmt: skip
    for label, build, arguments in rows():
        if not any(part in label for part in options.only.split(",")):
            continue
        wide, short, their_wide, their_short = times(libraries, build, arguments, options.seconds)
        cells = [f"{1e3 * t:.3g}" for t in (wide, short)] + [f"**{wide / short:.2f}**"]
        cells += [f"{1e3 * t:.3g}" for t in (their_wide, their_short)]
        print(f"| {label} | " + " | ".join([*cells, f"{their_short / short:.2f}"]) + " |")


if __name__ == "__main__":
    main()
