"""Other processes that compile kernels beside this one: Numba holds the interpreter lock.

The processes run `compile_worker.py` and live for one batch of kernels. Nothing depends on them:
what a worker does not finish, because it is slow to start or ends early, is compiled here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tracecc import config

if TYPE_CHECKING:
    from tracecc.backends.cpu.toolchain import Kernel

FEWEST = 6  # missing kernels that are worth a process, which takes half a second to start
AHEAD = 2  # kernels a worker is given at once, so that it need not wait for the next one
PATIENCE = 20.0  # seconds without a result after which workers are given up


class Worker:
    """One process.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self) -> None:
        script = pathlib.Path(__file__).with_name("compile_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is this process's to handle
        )
        self.send([str(folder) for folder in sys.path])

    def send(self, message: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()


class Pool:
    """The workers of a batch, started once enough kernels are missing."""

    def __init__(self) -> None:
        self._missing = 0
        self._workers: list[Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the workers; what they hold is compiled here."""
        for worker in self._workers:
            worker.end()

    def expect(self) -> None:
        """A kernel is missing."""
        self._missing += 1
        if self._missing == FEWEST:
            with contextlib.suppress(OSError):
                for _ in range(processes() - 1):
                    self._workers.append(Worker())

    def run(self, kernels: Sequence[Kernel]) -> None:
        """Compiles kernels, the first ones first.

        Raises:
            what compiling one of them here raises.
        """
        queue = _Queue(kernels)
        for worker in self._workers:
            threading.Thread(target=_feed, args=(worker, queue), daemon=True).start()
        while not queue.finished():
            kernel = queue.take(here=True)
            if kernel is not None:
                kernel.compile()
                queue.done()
            elif not queue.wait(PATIENCE):
                self.end()


class _Queue:
    """Kernels that wait, and how many are being compiled."""

    def __init__(self, kernels: Sequence[Kernel]):
        self._waiting = deque(kernels)
        self._refused: list[Kernel] = []
        self._taken = 0
        self._change = threading.Condition()

    def take(self, *, here: bool = False) -> Kernel | None:
        """The next kernel, if there is one; those that a worker refused only for this process."""
        with self._change:
            source = self._refused if here and self._refused else self._waiting
            if not source:
                return None
            self._taken += 1
            return source.pop() if source is self._refused else self._waiting.popleft()

    def done(self) -> None:
        """A kernel that was taken is compiled."""
        self.refuse([])

    def refuse(self, kernels: Collection[Kernel]) -> None:
        """Kernels that were taken are to be compiled by this process."""
        with self._change:
            self._taken -= len(kernels) or 1
            self._refused.extend(kernels)
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Waits for something to take, or for the end; False if the time was over before."""
        with self._change:
            return self._change.wait_for(lambda: bool(self._refused) or not self._taken, seconds)

    def finished(self) -> bool:
        with self._change:
            return not (self._waiting or self._refused or self._taken)


def _feed(worker: Worker, queue: _Queue) -> None:
    """Hands kernels to a worker until there are none; those it does not finish go back."""
    held: deque[Kernel] = deque()
    try:
        worker.receive()  # it is ready
        while True:
            while len(held) < AHEAD and (kernel := queue.take()) is not None:
                held.append(kernel)
                worker.send(kernel.job)
            if not held:
                return
            code, seconds = worker.receive()
            kernel = held.popleft()
            if code is None:
                queue.refuse([kernel])
            else:
                kernel.finish(code, seconds)
                queue.done()
    except Exception:  # whatever went wrong there, this process can do the work
        if held:
            queue.refuse(held)


def processes() -> int:
    """How many processes compile at once, this one among them."""
    if config.get("TRACECC_COMPILE_PROCESSES"):
        wanted = config.get_int("TRACECC_COMPILE_PROCESSES")
    else:
        wanted = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    # In a frozen or embedding program the executable is not an interpreter.
    name = pathlib.Path(sys.executable or "").name.lower()
    interpreter = name.startswith("python") and not getattr(sys, "frozen", False)
    return max(1, wanted) if interpreter else 1
