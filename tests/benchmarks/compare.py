"""The benchmark table: tracecc beside the installed peers, interleaved, in fresh processes.

    python tests/benchmarks/compare.py                       # print the table
    python tests/benchmarks/compare.py --write               # and put it, plotted, into the README
    python tests/benchmarks/compare.py --only gelu_chain,gemm_small --threads 1
    python tests/benchmarks/compare.py --sizes odd           # the same work at other sizes

A ratio is the best peer's median time divided by tracecc's: above 1, tracecc is faster.
"""

import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
README = HERE.parent.parent / "README.md"
PLOT = HERE / "ratios.png"
# Other sizes of the same work, by workload: arguments of its function. (Where JAX's version of a
# workload has fixed sizes, the peers are PyTorch's.)
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "small": {
        "gelu_chain": {"n": 2_800_000},
        "softmax_rows": {"b": 5461},
        "layernorm_gelu": {"b": 2730},
        "column_stats": {"b": 21845},
        "gemm_small": {"m": 43, "k": 85, "n": 32},
        "gemm_bias_relu": {"m": 341, "k": 341, "n": 341},
        "batched_attention": {"b": 3, "s": 85},
        "conv_block": {"b": 5, "c": 32},
        "tiny_mlp_train": {"b": 11},
        "mlp_train": {"b": 43},
        "cnn_train": {"b": 21},
        "lstm_train": {"b": 11, "T": 21},
        "gpt_train": {"b": 3},
        "resnet18_infer": {"hw": 96},
        "resnet18_cifar_train": {"b": 5},
        "nbody_grad": {"n": 170},
    },
    "large": {
        "gelu_chain": {"n": 25_000_000},
        "softmax_rows": {"b": 49152},
        "layernorm_gelu": {"b": 24576},
        "column_stats": {"b": 196608},
        "gemm_small": {"m": 384, "k": 768, "n": 288},
        "gemm_bias_relu": {"m": 3072, "k": 1024, "n": 1024},
        "batched_attention": {"b": 24},
        "conv_block": {"b": 48},
        "tiny_mlp_train": {"b": 96},
        "mlp_train": {"b": 384},
        "cnn_train": {"b": 192},
        "lstm_train": {"b": 96},
        "gpt_train": {"b": 24},
        "resnet18_infer": {"b": 3},
        "resnet18_cifar_train": {"b": 48},
        "nbody_grad": {"n": 1536},
    },
    "odd": {
        "gelu_chain": {"n": 8_388_607},
        "softmax_rows": {"b": 16383, "n": 509},
        "layernorm_gelu": {"b": 8191, "n": 765},
        "column_stats": {"b": 65537, "n": 127},
        "gemm_small": {"m": 127, "k": 257, "n": 95},
        "gemm_bias_relu": {"m": 1023, "k": 1025, "n": 1021},
        "batched_attention": {"b": 7, "s": 255},
        "conv_block": {"b": 15, "c": 61, "hw": 55},
        "tiny_mlp_train": {"b": 31},
        "mlp_train": {"b": 127},
        "cnn_train": {"b": 63},
        "lstm_train": {"b": 31, "T": 63},
        "gpt_train": {"b": 7, "ctx": 127},
        "resnet18_infer": {"hw": 223},
        "resnet18_cifar_train": {"b": 15},
        "nbody_grad": {"n": 511},
    },
    "one": {
        "batched_attention": {"b": 1},
        "conv_block": {"b": 1},
        "tiny_mlp_train": {"b": 1},
        "mlp_train": {"b": 1},
        "cnn_train": {"b": 1},
        "lstm_train": {"b": 1},
        "gpt_train": {"b": 1},
        "gemm_small": {"m": 1},
        "gemm_bias_relu": {"m": 1},
        "layernorm_gelu": {"b": 1},
    },
}
PEERS = (("torch", "eager"), ("torch", "compile"), ("jax", "compile"))


def once(python: str, lib: str, mode: str, name: str, options) -> dict:
    command = [python, str(HERE / "one.py"), "--lib", lib, "--mode", mode, "--name", name]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    if options.sizes:
        command += ["--sizes", json.dumps(SIZES[options.sizes][name])]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {options.timeout} s"}
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": (run.stderr.strip().splitlines() or ["no output"])[-1][:120]}
    return json.loads(lines[-1])


def has(python: str, library: str) -> bool:
    return subprocess.run([python, "-c", f"import {library}"], capture_output=True).returncode == 0


def median(runs: list[dict]) -> float | None:
    times = [r["median"] for r in runs if "median" in r]
    return statistics.median(times) if times else None


def row(name: str, peers: list, options) -> dict:
    """One workload: every library in turn, several rounds."""
    ours: list[dict] = []
    theirs: dict = {p: [] for p in peers}
    for _ in range(options.rounds):
        ours.append(once(options.python, "tracecc", "compile", name, options))
        for p in peers:
            theirs[p].append(once(options.peer_python, *p, name, options))
    mine, others = median(ours), {p: median(runs) for p, runs in theirs.items()}
    best = min((t for t in others.values() if t), default=None)
    return {
        "name": name,
        "ours": mine,
        "peers": others,
        "ratio": best / mine if best and mine else None,
        "warm": ours[-1].get("first"),
        "error": ours[-1].get("error"),
    }


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g}"


def table(rows: list[dict], peers: list) -> str:
    heads = ["workload", "tracecc ms", "best peer / tracecc", "first call s, warm cache"]
    heads += [f"{lib} {mode} ms" for lib, mode in peers]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in rows:
        ratio = "-" if r["ratio"] is None else f"**{r['ratio']:.2f}**"
        cells = [r["name"], milliseconds(r["ours"]) if r["ours"] else str(r["error"]), ratio]
        cells.append("-" if r["warm"] is None else f"{r['warm']:.2f}")
        cells += [milliseconds(r["peers"][p]) for p in peers]
        lines.append("| " + " | ".join(cells) + " |")
    ratios = [r["ratio"] for r in rows if r["ratio"]]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        worst = min((r for r in rows if r["ratio"]), key=lambda r: r["ratio"])
        lines += ["", f"Geometric mean {mean:.2f} over {len(ratios)} of {len(rows)} rows; "
                  f"lowest {worst['name']} {worst['ratio']:.2f}."]  # fmt: skip
    return "\n".join(lines)


def plot(rows: list[dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [r for r in rows if r["ratio"]]
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(shown) + 1))
    colours = ["#2a7f62" if r["ratio"] >= 1 else "#b5544b" for r in shown]
    axes.barh([r["name"] for r in shown], [r["ratio"] for r in shown], color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("best peer's time / tracecc's time (above 1: tracecc is faster)")
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def write(text: str) -> None:
    """Replaces what stands between the markers in the README."""
    old = README.read_text()
    marked = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- /benchmarks -->)", re.S)
    README.write_text(marked.sub(lambda m: m[1] + text + "\n" + m[2], old))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="comma-separated workloads")
    parser.add_argument("--python", default=sys.executable, help="interpreter with tracecc")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=400)
    parser.add_argument("--sizes", choices=SIZES, help="other sizes of the same work")
    parser.add_argument(
        "--peers", default="torch eager,torch compile,jax compile", help="comma-separated"
    )
    parser.add_argument("--write", action="store_true", help="put the table and plot in the README")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from workloads import WORKLOADS

    asked = [tuple(p.split()) for p in options.peers.split(",")]
    peers = [p for p in PEERS if p in asked and has(options.peer_python, p[0])]
    rows = []
    names = SIZES[options.sizes] if options.sizes else WORKLOADS
    for name in options.only.split(",") if options.only else names:
        rows.append(row(name, peers, options))
        print(table(rows[-1:], peers).splitlines()[-3 if rows[-1]["ratio"] else -1], flush=True)
    text = table(rows, peers)
    print("\n" + text)
    if options.write:
        plot(rows)
        write(text)


if __name__ == "__main__":
    main()
