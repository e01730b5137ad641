"""The one thread that all verbs run on, in sequence: torch keeps a pool of intra-op threads per calling thread, and
determinism needs one order. A caller that goes away is noticed between micro-batches and decode steps.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import torch

from gr2_worker import errors
from gr2_worker.types import CancelCheck

# Trailing metadata of every verb: how long it computed, without the time in the queue.
COMPUTE_SECONDS = "gr2-compute-seconds"
Emit = Callable[[Any], None]
Verb = Callable[[CancelCheck, Emit], None]


class ComputeThread:
    """Runs verbs in sequence and hands their output to the waiting gRPC threads."""

    def __init__(self, num_threads: int) -> None:
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix="gr2-compute", initializer=_prepare, initargs=(num_threads,)
        )
        started(self._executor, 1)
        self._stopping = threading.Event()
        self.busy_seconds = 0.0

    def run(self, verb: Verb, context: grpc.ServicerContext) -> Iterator[Any]:
        """Queues a verb; yields what it emits and raises what it raises."""
        gone = threading.Event()
        if self._stopping.is_set():
            raise errors.Unavailable("the worker is shutting down")
        if not context.add_callback(gone.set):
            raise errors.Cancelled("the caller has gone away")
        events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

        def check() -> None:
            if gone.is_set():
                raise errors.Cancelled("the caller has gone away")

        def job() -> None:
            started = time.perf_counter()
            try:
                check()
                verb(check, lambda event: events.put(("event", event)))
                last: tuple[str, Any] = ("end", None)
            except BaseException as error:
                last = ("error", error)
            seconds = time.perf_counter() - started
            self.busy_seconds += seconds
            events.put(("seconds", seconds))
            events.put(last)

        try:
            self._executor.submit(job)
        except RuntimeError as error:
            raise errors.Unavailable("the worker is shutting down") from error
        while True:
            kind, value = events.get()
            if kind == "event":
                yield value
            elif kind == "seconds":
                context.set_trailing_metadata(((COMPUTE_SECONDS, repr(value)),))
            elif kind == "error":
                raise value
            else:
                return

    def stop(self) -> None:
        """Refuses new verbs and waits for the current one."""
        self._stopping.set()
        self._executor.shutdown(wait=True, cancel_futures=False)


def started(executor: ThreadPoolExecutor, threads: int) -> ThreadPoolExecutor:
    """Starts all of a pool's threads now: if memory has run out later, starting one fails and a call hangs."""
    barrier = threading.Barrier(threads + 1)
    for _ in range(threads):
        executor.submit(barrier.wait)
    barrier.wait()
    return executor


def _prepare(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)
