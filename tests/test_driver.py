"""The driver, its thread pool and the memory pools."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tracecc.backends.cpu import driver, memory, toolchain

SQUARE = """
def square(args, begin, end, scratch):
    x = f64_ptr(args, 0)
    o = f64_ptr(args, 1)
    for i in range(begin, end):
        o[i] = x[i] * x[i]
"""
# Each unit sums 64 numbers through its thread's scratch memory.
SCRATCH = """
def sums(args, begin, end, scratch):
    x = f64_ptr(args, 0)
    o = f64_ptr(args, 1)
    room = f64_at(scratch)
    for i in range(begin, end):
        for j in range(64):
            room[j] = x[i * 64 + j]
        total = f64(0)
        for j in range(64):
            total += room[j]
        o[i] = total
"""
ERROR = """
def check(args, begin, end, scratch):
    i64_ptr(args, 0)[0] = i64_arg(args, 1)
"""
EMPTY = "def empty(args, begin, end, scratch):\n    pass\n"


@pytest.fixture
def threads():
    before = driver.get_num_threads()
    yield driver.set_num_threads
    driver.set_num_threads(before)


def program(source, entry, arrays, extent, grain, scratch=0, launches=1):
    kernel = toolchain.compile_kernel(source, entry)
    args = np.array([a.ctypes.data for a in arrays], np.int64)
    made = driver.Program([[kernel.address, args.ctypes.data, extent, grain]] * launches, scratch)
    made.keep = (args, arrays)
    return made


def test_every_unit_runs_once_for_any_thread_count(threads):
    x = np.random.default_rng(0).standard_normal(100_003)
    for count in (1, 2, 5):
        threads(count)
        out = np.zeros_like(x)
        made = program(SQUARE, "square", (x, out), x.size, 100)
        for _ in range(50):
            out[:] = 0
            assert made.run() == 0
            np.testing.assert_array_equal(out, x * x)


def test_each_thread_has_scratch_of_its_own(threads):
    threads(4)
    x = np.random.default_rng(1).standard_normal((5000, 64))
    out = np.zeros(5000)
    made = program(SCRATCH, "sums", (x, out), 5000, 10, scratch=64 * 8)
    for _ in range(30):
        out[:] = 0
        made.run()
        np.testing.assert_allclose(out, x.sum(1), rtol=1e-10, atol=1e-12)


def test_raising_the_thread_count_grows_the_scratch(threads):
    threads(1)
    x = np.ones((500, 64))
    out = np.zeros(500)
    made = program(SCRATCH, "sums", (x, out), 500, 1, scratch=64 * 8)
    made.run()
    threads(6)
    made.run()
    made.run()
    assert (out == 64).all()


def test_the_error_word_is_returned_and_zeroed_by_the_next_run():
    kernel = toolchain.compile_kernel(ERROR, "check")
    made = driver.Program([])
    args = np.array([0, 7])
    made = driver.Program([[kernel.address, args.ctypes.data, 1, 1]])
    args[0] = made.error_address
    assert made.run() == 7
    args[1] = 0
    assert made.run() == 0


def test_several_python_threads_run_programs_at_once(threads):
    threads(3)
    x = np.random.default_rng(2).standard_normal(20_000)
    outs = [np.zeros_like(x) for _ in range(4)]
    wrong = []

    def work(out):
        made = program(SQUARE, "square", (x, out), x.size, 500)
        for _ in range(200):
            out[:] = 0
            made.run()
            if not np.array_equal(out, x * x):
                wrong.append(1)

    crew = [threading.Thread(target=work, args=(out,)) for out in outs]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("count", [0, -1, 2.0, True, 5000])
def test_a_thread_count_that_makes_no_sense_is_refused(count):
    with pytest.raises(ValueError, match="the number of threads must be from 1 to 1024, given"):
        driver.set_num_threads(count)


def best_microseconds(f, repeat=2000):
    best = 1e9
    for _ in range(repeat):
        start = time.perf_counter_ns()
        f()
        best = min(best, time.perf_counter_ns() - start)
    return best / 1e3


def test_a_hundred_empty_kernels_take_at_most_two_microseconds():
    made = program(EMPTY, "empty", (), 1, 1, launches=100)
    assert best_microseconds(made.run) <= 2.0


def test_entry_from_python_takes_at_most_half_a_microsecond():
    run, address = driver.run_function(), program(EMPTY, "empty", (), 1, 1).address
    assert best_microseconds(lambda: run(address)) <= 0.5


def script(text):
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


SETUP = f"""
import os, sys, time, threading, numpy as np
from tracecc.backends.cpu import driver, toolchain
kernel = toolchain.compile_kernel('''{SQUARE}''', "square")
x = np.arange(200000.0); out = np.zeros_like(x)
args = np.array([x.ctypes.data, out.ctypes.data])
driver.set_num_threads(3)
made = driver.Program([[kernel.address, args.ctypes.data, x.size, 1000]])
made.run(); made.run()
def workers():
    return sum(t.name == "tracecc worker" for t in threading.enumerate())
"""


def test_the_interpreter_exits_cleanly_and_workers_start_with_the_first_parallel_launch():
    text = SETUP.replace("made.run(); made.run()", "")
    assert script(text + "print(workers()); made.run(); print(workers())") == ["0", "2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_workers_of_its_own():
    text = SETUP + (
        "sys.stdout.flush()\npid = os.fork()\nout[:] = 0\n"
        "before = len(driver._driver._threads)\nmade.run(); made.run()\n"
        "ok = (out == x * x).all() and len(driver._driver._threads) == 2\n"
        "if pid == 0: os._exit(0 if ok and before == 0 else 1)\n"
        "print(ok, os.waitpid(pid, 0)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_idle_workers_use_no_processor_time():
    text = (
        SETUP
        + "start = time.process_time(); threading.Event().wait(0.3)\n"
        + "print(time.process_time() - start)"
    )
    assert float(script(text)[0]) < 0.02


def test_kernels_run_without_the_interpreter_lock():
    spin = """
def spin(args, begin, end, scratch):
    flag = i64_ptr(args, 0)
    n = i64(0)
    while flag[0] == 0 and n < 1 << 34:
        n += 1
        call_kernel(i64_arg(args, 1), args, begin, end, scratch)
    flag[1] = n
"""
    empty = toolchain.compile_kernel(EMPTY, "empty")
    flag = np.zeros(2, np.int64)
    args = np.array([flag.ctypes.data, empty.address])
    kernel = toolchain.compile_kernel(spin, "spin")
    made = driver.Program([[kernel.address, args.ctypes.data, 1, 1]])
    thread = threading.Thread(target=made.run)
    thread.start()
    flag[0] = 1  # Only reached while the kernel spins because it holds no lock.
    thread.join(30)
    assert not thread.is_alive()
    assert flag[1] < 1 << 34


# Memory.


def test_output_memory_returns_when_the_last_view_dies():
    pool = memory.OutputPool()
    first = pool.empty((64, 64), np.float32)
    address, view = first.ctypes.data, first[3:]
    del first
    assert pool.empty((64, 64), np.float32).ctypes.data != address
    assert pool.free_bytes == pool.owned_bytes // 2
    del view
    assert pool.free_bytes == pool.owned_bytes
    owned = pool.owned_bytes
    for _ in range(100):
        pool.empty((64, 64), np.float32)
    assert pool.owned_bytes == owned


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 1000, 1000)])
def test_pool_arrays_are_aligned_contiguous_and_writable(shape):
    array = memory.OutputPool().empty(shape, np.float64)
    array[...] = 1
    assert (array.shape, array.sum()) == (shape, array.size)
    assert array.flags.c_contiguous
    assert array.ctypes.data % memory.ALIGNMENT == 0


def test_the_pool_keeps_no_more_than_its_limit():
    pool = memory.OutputPool(limit=1 << 20)
    arrays = [pool.empty((1 << 17,), np.float64) for _ in range(4)]
    del arrays
    assert pool.free_bytes <= 1 << 20
    assert pool.owned_bytes <= 1 << 20


def test_the_pool_serves_threads():
    pool = memory.OutputPool()
    wrong = []

    def work(number):
        for _ in range(2000):
            array = pool.empty((100,), np.int64)
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    crew = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert wrong == []


def test_arena_blocks_are_reused_and_never_shared():
    arena = memory.Arena(1000)
    a, b = arena.acquire(), arena.acquire()
    assert a.ctypes.data != b.ctypes.data
    address = a.ctypes.data
    arena.release(a)
    assert arena.acquire().ctypes.data == address
    assert address % memory.ALIGNMENT == 0
