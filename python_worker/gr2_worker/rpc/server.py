"""The listening process: address, threads, health, graceful shutdown. The verbs are in service.py."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import torch
from gr2.v1 import worker_pb2_grpc as pb_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gr2_worker import errors
from gr2_worker.engine import Engine
from gr2_worker.rpc.access import Access, Gatekeeper
from gr2_worker.rpc.compute import ComputeThread, started
from gr2_worker.rpc.service import WorkerService

SERVICE = "gr2.v1.Worker"
UNRESTRICTED = Access()
GRPC_THREADS = 16


def keep_freed_memory() -> None:
    """Asks glibc not to hand large freed blocks back to the kernel: page faults cost about a tenth of CPU training."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no mallopt
    if mallopt is not None:
        # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD (malloc.h), in bytes except the first.
        for option, value in ((-8, 1), (-3, 1 << 25), (-1, 1 << 30), (-2, 1 << 26)):
            mallopt(option, value)


class Server:
    """A listening worker. `address` is what clients dial."""

    def __init__(self, address: str, device: str = "auto", num_threads: int = 0, access: Access = UNRESTRICTED) -> None:
        """address: "host:port" (port 0 = any free one) or "unix:/path". num_threads 0 = torch's default.

        access: see access.make_access, which refuses an address that needs more.
        Raises OSError if the address cannot be bound, FailedPrecondition if the device is missing.
        """
        keep_freed_memory()
        self._finished = threading.Event()
        threads = num_threads if num_threads > 0 else torch.get_num_threads()
        self.engine = Engine(pick_device(device))
        self.compute = ComputeThread(threads)
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.http2.max_ping_strikes", 0),
        ]
        pool = started(ThreadPoolExecutor(GRPC_THREADS, thread_name_prefix="gr2-grpc"), GRPC_THREADS)
        self._server = grpc.server(pool, interceptors=[Gatekeeper(access)], options=options)
        service = WorkerService(self.engine, self.compute, threads, self.request_stop, access)
        pb_grpc.add_WorkerServicer_to_server(service, self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.address = self._bind(address)
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def _bind(self, address: str) -> str:
        if address.startswith("unix:") and os.path.exists(address[5:]):
            os.unlink(address[5:])  # a socket left behind by a worker that was killed
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: the port is in use or not allowed") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return address if address.startswith("unix:") else f"{address.rsplit(':', 1)[0]}:{port}"

    def request_stop(self) -> None:
        """Requests a graceful shutdown; returns at once. Safe in signal handlers and callbacks."""
        self._finished.set()

    def wait(self) -> None:
        """Blocks until asked to stop, then drains: no new calls, the current verb finishes."""
        while not self._finished.wait(timeout=3600):
            pass
        self.stop()

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Drains and closes the port."""
        self._finished.set()
        self._health.enter_graceful_shutdown()
        ended = self._server.stop(grace_seconds)
        self.compute.stop()
        ended.wait()
        if self.address.startswith("unix:"):
            try:
                os.unlink(self.address[5:])
            except OSError:
                pass


def pick_device(name: str) -> torch.device:
    """ "auto" = the first CUDA device if there is one. Raises FailedPrecondition or InvalidRequest."""
    if name not in ("auto", "cpu", "cuda"):
        raise errors.InvalidRequest(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise errors.FailedPrecondition("device cuda was asked for, but torch sees no CUDA device")
    if name == "cpu" or not torch.cuda.is_available():
        # This makes CPU kernels reproducible bit for bit; on CUDA some have no deterministic version.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return torch.device("cpu")
    return torch.device("cuda:0")
