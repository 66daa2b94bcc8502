"""Workers that compile: same results as here, and nothing depends on their living."""

import sys

import pytest

import tracecc as tc
from tracecc import cache
from tracecc.backends.cpu import compile_pool, lower, toolchain

SOURCE = """
def scale(args, begin, end, scratch):
    x = f32_ptr(args, 0)
    for i in range(begin, end):
        x[i] = x[i] * f32({})
"""
BAD = "def bad(args, begin, end, scratch):\n    f64_ptr(args, 0)[0] = add(f32(1), f64(1))\n"


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache and no kernels known; workers start at the first kernel that is missing."""
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRACECC_COMPILE_PROCESSES", "2")
    monkeypatch.setattr(toolchain, "_known", {})
    monkeypatch.setattr(lower, "_known", {})
    monkeypatch.setattr(compile_pool, "FEWEST", 1)
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The workers that were started."""
    found = []
    start = compile_pool.Worker.__init__

    def record(worker):
        start(worker)
        found.append(worker)

    monkeypatch.setattr(compile_pool.Worker, "__init__", record)
    return found


def sources(first, count):
    return [toolchain.compile_kernel(SOURCE.format(first + n), "scale") for n in range(count)]


def ended(worker):
    return worker._process.poll() is not None


def by_the_worker_alone(kernels, pool):
    """Compiles all of the kernels there, none here."""
    queue = compile_pool._Queue(kernels)
    compile_pool._feed(pool._workers[0], queue)
    return queue


def test_a_worker_makes_the_same_object_code_and_the_cache_keeps_it(started):
    with toolchain.batch() as pool:
        kernels = sources(2, 3)
        assert by_the_worker_alone(kernels, pool).finished()
    assert not any(kernel.missing for kernel in kernels)
    assert len(started) == 1
    assert ended(started[0])
    assert [k.object_code for k in kernels] == [toolchain.object_code(k.job) for k in kernels]
    assert cache.info()["kernels"] == 3


@pytest.mark.parametrize("after", [0, 1])
def test_what_a_worker_that_dies_was_given_is_compiled_here(started, monkeypatch, after):
    receive = compile_pool.Worker.receive
    answers = []

    def dies(worker):
        if len(answers) > after:
            worker.end()
        answers.append(receive(worker))
        return answers[-1]

    monkeypatch.setattr(compile_pool.Worker, "receive", dies)
    with toolchain.batch() as pool:
        kernels = sources(2, 4)
        assert not by_the_worker_alone(kernels, pool).finished()
        assert sum(kernel.missing for kernel in kernels) == 4 - after
        toolchain.compile_all(kernels, pool)
    assert not any(kernel.missing for kernel in kernels)
    assert ended(started[0])


def test_a_worker_that_answers_nothing_is_given_up(started, monkeypatch):
    monkeypatch.setattr(compile_pool, "PATIENCE", 0.01)
    taken = []

    def silent(worker, queue):
        taken.append(queue.take())
        worker._process.wait()
        queue.refuse(taken)

    monkeypatch.setattr(compile_pool, "_feed", silent)
    with toolchain.batch() as pool:
        kernels = sources(2, 2)
        toolchain.compile_all(kernels, pool)
        assert ended(started[0])
    assert len(taken) == 1
    assert not any(kernel.missing for kernel in kernels)


def test_a_mistake_that_a_worker_meets_is_raised_here(started):
    with toolchain.batch() as pool:
        bad = toolchain.compile_kernel(BAD, "bad")
        queue = by_the_worker_alone([bad], pool)
        assert queue.take(here=True) is bad
        with pytest.raises(Exception, match="must have one type"):
            toolchain.compile_all([bad], pool)
    assert ended(started[0])


def test_a_read_only_cache_does_not_matter(started, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(file))
    with toolchain.batch() as pool:
        kernels = sources(2, 2)
        assert by_the_worker_alone(kernels, pool).finished()
    assert all(kernel.address for kernel in kernels)


def test_a_graph_compiled_with_a_worker_computes_and_a_known_one_starts_none(started, monkeypatch):
    x = tc.linspace(-1, 1, 64).reshape(8, 8)
    expected = [float((x @ x).exp().sum()), 64.0]

    def run():
        f = tc.compile(lambda x: ((x @ x).exp().sum(), (x * 0 + 1).sum()))
        return [float(y) for y in f(x)]

    assert run() == pytest.approx(expected, rel=1e-6)
    assert len(started) == 1
    for table in (toolchain._known, lower._known):
        table.clear()
    assert run() == pytest.approx(expected, rel=1e-6)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("wanted", "executable", "count"),
    [
        ("0", sys.executable, 1),
        ("1", sys.executable, 1),
        ("3", sys.executable, 3),
        ("3", "", 1),
        ("3", "/usr/bin/editor", 1),
    ],
)
def test_how_many_processes(monkeypatch, wanted, executable, count):
    monkeypatch.setenv("TRACECC_COMPILE_PROCESSES", wanted)
    monkeypatch.setattr(sys, "executable", executable)
    assert compile_pool.processes() == count


def test_a_worker_that_cannot_start_is_done_without(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with toolchain.batch() as pool:
        kernels = sources(2, 2)
        toolchain.compile_all(kernels, pool)
        assert pool._workers == []
    assert not any(kernel.missing for kernel in kernels)
