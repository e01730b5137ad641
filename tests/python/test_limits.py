"""What the worker says when the machine gives out: memory, disk, a kill in the middle of a save."""

from __future__ import annotations

import resource
import signal
import socket

import grpc
import numpy as np
import pytest
import torch
from asked import forward_spec
from conftest import random_batch
from gr2_worker.errors import FailedPrecondition, ResourceExhausted
from gr2_worker.memory import is_out_of_memory, memory_guard
from gr2_worker.rpc import server, service

PETABYTE = 1 << 50


@pytest.mark.parametrize("allocate", [lambda: torch.empty(PETABYTE), lambda: np.ones(PETABYTE)], ids=["torch", "numpy"])
def test_a_failed_allocation_names_what_to_lower(allocate):
    with (
        pytest.raises(ResourceExhausted, match="out of memory: lower micro_batch_tokens"),
        memory_guard("micro_batch_tokens"),
    ):
        allocate()


def test_other_faults_are_not_mistaken_for_memory():
    with pytest.raises(RuntimeError, match="shapes"), memory_guard("x"):
        raise RuntimeError("shapes do not match")
    assert not is_out_of_memory(ValueError("can't allocate memory"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))


def test_a_verb_without_a_guard_reports_memory_too():
    class Context:
        def abort(self, code, details):
            raise RuntimeError(code, details)

    with pytest.raises(RuntimeError) as caught:
        service._abort(Context(), MemoryError())
    assert caught.value.args == (grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory")


def test_the_engine_keeps_working_after_running_out_of_memory(engine, monkeypatch):
    before = engine.forward("", forward_spec(random_batch(1))).logprobs
    with monkeypatch.context() as patch:
        patch.setattr(engine.model("").lm, "hidden", lambda *a, **k: torch.empty(PETABYTE))
        with pytest.raises(ResourceExhausted):
            engine.forward("", forward_spec(random_batch(1)))
    after = engine.forward("", forward_spec(random_batch(1))).logprobs
    assert np.array_equal(before, after)


def test_a_disk_that_fills_up_keeps_the_saved_state(engine, tmp_path):
    folder = tmp_path / "state"
    saved = engine.save_state("", str(folder), True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(FailedPrecondition, match=r"cannot write .*state: .*File too large"):
            engine.save_state("", str(folder), True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert engine.load_state("", str(folder), True).sha256 == saved.sha256


def test_a_save_removes_what_a_killed_one_left(engine, tmp_path):
    (tmp_path / ".state.abc.partial").mkdir()
    (tmp_path / ".state.abcdefgh.old").mkdir()
    (tmp_path / ".other.abc.partial").mkdir()
    engine.save_state("", str(tmp_path / "state"), False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.abc.partial", "state"]


def test_a_taken_port_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
            server.Server(f"127.0.0.1:{port}", "cpu", 1)
