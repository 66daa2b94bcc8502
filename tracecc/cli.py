"""The command line: dump a function's IR, run passes over IR text, run it, look after the cache."""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tracecc import cache, config
from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph, Value, bind_sizes, specialize
from tracecc_ir.interpret import interpret
from tracecc_ir.passes import pipeline
from tracecc_ir.text import parse, parse_type, print_graph
from tracecc_ir.verify import verify

STAGES = ("traced", "grad", "simplified", "decomposed", "fused", "scheduled")
GRAPH_HELP = "a file of IR text, or - for standard input"


class UsageError(Exception):
    """Something the user gave cannot be used; the message is one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status (0, or 2 for input that cannot be used)."""
    options = parser().parse_args(arguments)
    try:
        options.command(options)
    except (UsageError, IRError, OSError, config.SettingError) as error:
        print(f"tracecc: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tracecc",
        description="Look into and drive the tracecc compiler.",
        epilog="Environment variables:\n\n" + config.help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    dump = _command(commands, "dump", dump_command, "print the IR of a function in a Python file")
    dump.add_argument("target", metavar="FILE.py:FUNCTION", help="the function; methods as A.f")
    dump.add_argument(
        "--stage", default="traced", choices=STAGES, help="after which stage (default: traced)"
    )
    dump.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="TYPE",
        help="the type of an argument, such as 'f32[64, 10]'; one per argument. "
        "Without any, the file must have called the function, or define example_inputs()",
    )
    dump.add_argument("--no-locations", action="store_true", help="leave out the user's lines")

    opt = _command(commands, "opt", opt_command, "run passes over IR text: text in, text out")
    opt.add_argument("graph", metavar="GRAPH.tir", help=GRAPH_HELP)
    opt.add_argument(
        "--passes",
        default="",
        metavar="A,B",
        help="passes to run, in order (default: the whole pipeline): " + ", ".join(pipeline.PASSES),
    )

    run = _command(commands, "run", run_command, "run IR text on arrays")
    run.add_argument("graph", metavar="GRAPH.tir", help=GRAPH_HELP)
    run.add_argument("--inputs", default="", metavar="A.npy,...", help="one .npy file per input")
    run.add_argument("--state", default="", metavar="S.npy,...", help="one .npy file per state")
    run.add_argument("--interpret", action="store_true", help="by the interpreter, not compiled")
    run.add_argument("--output", metavar="PREFIX", help="save output k as PREFIXk.npy")

    stored = _command(commands, "cache", cache_command, "the disk cache of compiled kernels")
    stored.add_argument("action", choices=("info", "clear"))
    return top


def _command(commands: Any, name: str, function: Callable, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.set_defaults(command=function)
    return made


# dump


def dump_command(options: argparse.Namespace) -> None:
    from tracecc.compile import CompiledFunction, compile

    path, _, name = options.target.rpartition(":")
    if not path:
        raise UsageError(f"expected FILE.py:FUNCTION, given {options.target!r}")
    module = load_module(path)
    function: Any = module
    for part in name.split("."):
        function = getattr(function, part, None)
        if function is None:
            raise UsageError(f"{path} defines no {name}")
    compiled = compile(function)
    if not isinstance(compiled, CompiledFunction):
        compiled = CompiledFunction(function)
    if options.input:
        examples = [_example(t) for t in options.input]
        with _blaming(f"{name} cannot be traced"):
            compiled.trace(*examples)
    elif compiled.traces == 0:
        example = getattr(module, "example_inputs", None)
        if example is None:
            raise UsageError(
                f"{name} was not called while {path} was loaded: give the types of its arguments "
                "with --input, or define example_inputs() there"
            )
        with _blaming(f"{name} cannot be traced"):
            compiled.trace(*example())
    shown = compiled.ir(options.stage)
    if isinstance(shown, Graph):
        shown = print_graph(shown, locations=not options.no_locations)
    print(str(shown).rstrip())


def load_module(path: str) -> Any:
    """Runs a Python file as a module named after it (not as ``__main__``)."""
    file = pathlib.Path(path)
    if not file.is_file():
        raise UsageError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.insert(0, str(file.parent))
    with _blaming(f"{path} cannot be loaded"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes one sentence that begins with ``what``."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"{what}: {type(error).__name__}: {error}") from error


def _example(text: str) -> Any:
    import tracecc

    type_ = parse_type(text)
    if type_.is_symbolic:
        raise UsageError(f"--input needs numbers for sizes, given {text}")
    return tracecc.zeros(*type_.shape, dtype=type_.dtype)


# opt and run


def opt_command(options: argparse.Namespace) -> None:
    graph = read_graph(options.graph)
    if not options.passes:
        graph = pipeline.run(graph)[-1][1]
    for name in filter(None, options.passes.split(",")):
        if name not in pipeline.PASSES:
            raise UsageError(f"there is no pass {name!r}; expected {', '.join(pipeline.PASSES)}")
        graph = pipeline.PASSES[name](graph)
        verify(graph)
    print(print_graph(graph).rstrip())


def run_command(options: argparse.Namespace) -> None:
    from tracecc.compile import lower

    graph = read_graph(options.graph)
    inputs = _arrays(options.inputs, graph.inputs, "--inputs")
    state = _arrays(options.state, [s.value for s in graph.state], "--state")
    sizes = bind_sizes(graph, [*inputs, *state])
    graph = specialize(graph, sizes) if sizes else graph
    if options.interpret:
        outputs, updates = interpret(graph, inputs, state)
    else:
        with _blaming(f"{graph.name} cannot be run"):
            outputs = lower(graph)[1](inputs, state)
        held = dict(zip((s.value for s in graph.state), state, strict=True))
        updates = [held[u.state] for u in graph.updates]
    for update, value in zip(graph.updates, updates, strict=True):
        print(f"update {update.state.name} = {value}")
    for k, array in enumerate(outputs):
        if options.output:
            np.save(f"{options.output}{k}.npy", array)
        print(array)


def read_graph(path: str) -> Graph:
    try:
        text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a file of text") from None
    graph = parse(text)
    verify(graph)
    return graph


def _arrays(text: str, values: list[Value], flag: str) -> list[np.ndarray]:
    paths = [p for p in text.split(",") if p]
    if len(paths) != len(values):
        raise UsageError(f"{flag} names {len(paths)} files; the graph needs {len(values)}")
    return [_load(p, v) for p, v in zip(paths, values, strict=True)]


def _load(path: str, value: Value) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise UsageError(f"{path} is not a .npy file of numbers") from None
    # .npy files do not know bfloat16: NumPy stores and loads it as two bytes without a meaning.
    return array.view(value.dtype.numpy) if array.dtype == np.dtype("V2") else array


# cache


def cache_command(options: argparse.Namespace) -> None:
    if options.action == "clear":
        cache.clear()
    for name, value in cache.info().items():
        print(f"{name:10} {value}")


if __name__ == "__main__":
    sys.exit(main())
