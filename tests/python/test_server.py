"""Round trips over gRPC: every verb of the training loop, duplicate request ids, status codes, cancellation, boot."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import VOCAB, architecture, tokenizer_json
from gr2.v1 import worker_pb2 as pb
from gr2.v1 import worker_pb2_grpc as pb_grpc
from gr2_worker import types
from gr2_worker.items.config import QuantizerConfig
from gr2_worker.rpc.server import Server
from gr2_worker.trees import TreesConfig
from grpc_health.v1 import health_pb2, health_pb2_grpc

PYTHON_WORKER = Path(__file__).resolve().parents[2] / "python_worker"


def i4(*values):
    return np.asarray(values, dtype="<i4").tobytes()


def f4(*values):
    return np.asarray(values, dtype="<f4").tobytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(f"unix:{tmp_path_factory.mktemp('s')}/w.sock", "cpu", 1)
    yield server
    server.stop(1)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return pb_grpc.WorkerStub(channel)


@pytest.fixture
def loaded(stub):
    return stub.LoadModel(
        pb.LoadModelRequest(
            scratch=pb.ScratchModel(architecture_json=architecture(), tokenizer_json=tokenizer_json()),
            added_tokens=["<|sid_begin|>", "<s_a_0>", "w3"],
            trainable=True,
            seed=3,
            pad_vocab_multiple=8,
            dtype=pb.DTYPE_FLOAT32,
        )
    )


def batch(tokens=(1, 2, 3, 4, 5, 6, 7, 8), prompts=(3,), sizes=(2,), responses=(2, 3)):
    return pb.GroupBatch(
        tokens=i4(*tokens), prompt_lengths=i4(*prompts), group_sizes=i4(*sizes), response_lengths=i4(*responses)
    )


def train(request_id="", weights=(1, 1, 1, 1, 1), **extra):
    return pb.ForwardBackwardRequest(
        request_id=request_id,
        batch=batch(),
        weights=f4(*weights),
        **{"loss": pb.Loss(cross_entropy=pb.CrossEntropyLoss()), "temperature": 1, **extra},
    )


def refused(call, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == code, caught.value.details()
    assert text in caught.value.details()


def test_health_and_info(channel, stub, loaded):
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="gr2.v1.Worker"))
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    info = stub.GetInfo(pb.GetInfoRequest())
    assert info.device == "cpu" and info.num_threads == 1 and list(info.model_ids) == ["policy"]
    assert info.busy_seconds > 0 and info.memory_used_bytes > 0


def test_load_reports_the_vocabulary(loaded):
    assert list(loaded.added_token_ids) == [VOCAB, VOCAB + 1, 3]
    assert loaded.vocab_size == 64 and loaded.hidden_size == 32 and loaded.max_positions == 256
    assert b"<|sid_begin|>" in loaded.tokenizer_json and loaded.eos_token_id == -1


def test_training_loop_and_duplicate_request_ids(stub, loaded):
    first = stub.ForwardBackward(train("fb-1", want_logprobs=True))
    again = stub.ForwardBackward(train("fb-1", want_logprobs=True))
    assert again == first and len(first.logprobs) == 4 * 5
    forward = stub.Forward(pb.ForwardRequest(batch=batch(), want_entropy=True, temperature=1))
    np.testing.assert_allclose(np.frombuffer(forward.logprobs, "<f4"), np.frombuffer(first.logprobs, "<f4"), atol=1e-6)
    assert first.loss == pytest.approx(-np.frombuffer(first.logprobs, "<f4").sum(), rel=1e-6)
    step = pb.OptimStepRequest(request_id="s-1", learning_rate=1e-2, beta1=0.9, beta2=0.95, eps=1e-8)
    one, two = stub.OptimStep(step), stub.OptimStep(step)
    assert one == two and one.step == 1 and one.weight_version == 2
    # The gradient was added once only: its norm equals that of a single call with the same weights.
    stub.LoadModel(
        pb.LoadModelRequest(
            scratch=pb.ScratchModel(architecture_json=architecture(), tokenizer_json=tokenizer_json()),
            added_tokens=["<|sid_begin|>", "<s_a_0>", "w3"],
            trainable=True,
            seed=3,
            pad_vocab_multiple=8,
            dtype=pb.DTYPE_FLOAT32,
        )
    )
    stub.ForwardBackward(train("fb-1"))  # ids of a replaced model are forgotten
    assert stub.OptimStep(step).grad_norm == pytest.approx(one.grad_norm, rel=1e-6)


def test_forward_gives_what_distill_takes(stub, loaded):
    top = stub.Forward(pb.ForwardRequest(batch=batch(), top_k=3, temperature=1))
    assert (top.top_ids.rows, top.top_ids.cols, len(top.top_ids.data)) == (5, 3, 4 * 15)
    logprobs = np.frombuffer(top.top_logprobs.data, "<f4").reshape(5, 3)
    assert (np.diff(logprobs, axis=1) <= 0).all() and (logprobs.max(axis=1) >= np.frombuffer(top.logprobs, "<f4")).all()
    distill = pb.DistillLoss(ids=top.top_ids, logprobs=top.top_logprobs)
    result = stub.ForwardBackward(train(loss=pb.Loss(distill=distill)))
    assert abs(result.loss) < 1e-6 and result.metrics["forward_kl"] == pytest.approx(result.loss / 5, abs=1e-7)

    def wrong(**change):
        changed = pb.Loss(distill=pb.DistillLoss(**{"ids": top.top_ids, "logprobs": top.top_logprobs, **change}))
        return lambda: stub.ForwardBackward(train(loss=changed))

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    refused(wrong(ids=pb.IntMatrix(rows=5, cols=1, data=i4(1, 2, 3, 4, 5))), invalid, "expected 5 rows")
    above = pb.Matrix(rows=5, cols=3, data=f4(*[0.5] * 15))
    refused(wrong(logprobs=above), invalid, "must be log-probabilities")
    padded = pb.IntMatrix(rows=5, cols=3, data=i4(*[1, 2, -1] * 5))
    refused(wrong(ids=padded), invalid, "-inf exactly where the id is negative")


def test_sample_and_beam_search(stub, loaded):
    request = pb.SampleRequest(
        prompt_tokens=i4(1, 2, 3, 4, 5),
        prompt_lengths=i4(2, 3),
        num_samples=3,
        max_new_tokens=4,
        temperature=1,
        top_p=1,
    )
    parts = list(stub.Sample(request))
    items = [i for p in parts for i in p.items]
    assert sorted((i.prompt, i.sample) for i in items) == [(p, s) for p in range(2) for s in range(3)]
    assert parts[-1].done == parts[-1].total == 6
    assert all(i.finish_reason == pb.FINISH_REASON_LENGTH and len(i.tokens) == len(i.logprobs) == 16 for i in items)
    found = stub.BeamSearch(
        pb.BeamSearchRequest(
            prompt_tokens=i4(1, 2, 3, 4, 5), prompt_lengths=i4(2, 3), beam_width=4,
            trie=pb.TokenTrie(  # 1 2, 1 3, 4 4
                edge_starts=i4(0, 2, 4, 5, 5, 5, 5), edge_tokens=i4(1, 4, 2, 3, 4),
                row_starts=i4(0, 0, 2, 0, 1, 2), row_ends=i4(3, 2, 3, 1, 2, 3), rows=i4(0, 1, 2),
            ),
            excluded=i4(1), excluded_lengths=i4(0, 1),
        )
    )  # fmt: skip
    rows = np.frombuffer(found.rows.data, "<i4").reshape(2, 4)
    assert sorted(rows[0].tolist()) == [-1, 0, 1, 2] and sorted(rows[1].tolist()) == [-1, -1, 0, 2]


def test_a_prefix_cache_reports_what_it_saved(stub, loaded):
    def load(**more):
        scratch = pb.ScratchModel(architecture_json=architecture(), tokenizer_json=tokenizer_json())
        stub.LoadModel(
            pb.LoadModelRequest(
                dtype=pb.DTYPE_FLOAT32, model_id="cached", scratch=scratch, prefix_cache_bytes=1 << 20, **more
            )
        )

    load()
    prompt = i4(*range(1, 41))
    one = pb.GroupBatch(
        tokens=prompt + i4(7, 8, 9), prompt_lengths=i4(40), group_sizes=i4(2), response_lengths=i4(1, 2)
    )
    asked = pb.ForwardRequest(model_id="cached", batch=one, temperature=1)
    first, again = stub.Forward(asked), stub.Forward(asked)
    assert [first.reused_prompt_tokens, again.reused_prompt_tokens] == [
        0,
        32,
    ]  # whole blocks of 8 except the last token
    np.testing.assert_allclose(np.frombuffer(first.logprobs, "<f4"), np.frombuffer(again.logprobs, "<f4"), atol=1e-5)
    sample = pb.SampleRequest(
        model_id="cached",
        prompt_tokens=prompt + i4(5),
        prompt_lengths=i4(41),
        max_new_tokens=3,
        stream_tokens=True,
        num_samples=1,
        top_p=1,
    )
    assert [p.reused_prompt_tokens for p in stub.Sample(sample) if p.items] == [40]
    refused(lambda: load(trainable=True), grpc.StatusCode.INVALID_ARGUMENT, "trainable = false")


def test_every_answer_says_how_long_it_was_computed(stub, loaded):
    before = stub.GetInfo(pb.GetInfoRequest()).busy_seconds
    _, unary = stub.Forward.with_call(pb.ForwardRequest(batch=batch(), temperature=1))
    stream = stub.Sample(
        pb.SampleRequest(prompt_tokens=i4(1, 2), prompt_lengths=i4(2), max_new_tokens=3, num_samples=1, top_p=1)
    )
    list(stream)
    seconds = [float(dict(call.trailing_metadata())["gr2-compute-seconds"]) for call in (unary, stream)]
    busy = stub.GetInfo(pb.GetInfoRequest()).busy_seconds - before
    assert min(seconds) > 0 and sum(seconds) == pytest.approx(busy)


def test_state_round_trip(stub, loaded, tmp_path):
    stub.ForwardBackward(train())
    stub.OptimStep(pb.OptimStepRequest(learning_rate=1e-2, beta1=0.9, beta2=0.95, eps=1e-8))
    saved = stub.SaveState(pb.SaveStateRequest(path=str(tmp_path / "a"), include_optimizer=True, metadata={"of": "x"}))
    before = stub.Forward(pb.ForwardRequest(batch=batch(), temperature=1)).logprobs
    stub.ForwardBackward(train())
    stub.OptimStep(pb.OptimStepRequest(learning_rate=1e-2, beta1=0.9, beta2=0.95, eps=1e-8))
    assert stub.Forward(pb.ForwardRequest(batch=batch(), temperature=1)).logprobs != before
    restored = stub.LoadState(pb.LoadStateRequest(path=str(tmp_path / "a"), include_optimizer=True))
    assert restored.sha256 == saved.sha256 and restored.step == 1 and restored.metadata == {"of": "x"}
    assert stub.Forward(pb.ForwardRequest(batch=batch(), temperature=1)).logprobs == before
    again = stub.LoadModel(
        pb.LoadModelRequest(
            model_id="copy", pretrained=pb.PretrainedModel(path=str(tmp_path / "a")), dtype=pb.DTYPE_FLOAT32
        )
    )
    assert again.tokenizer_json == loaded.tokenizer_json and again.vocab_size == loaded.vocab_size
    assert stub.Forward(pb.ForwardRequest(model_id="copy", batch=batch(), temperature=1)).logprobs == before
    stub.UnloadModel(pb.UnloadModelRequest(model_id="copy"))


def test_status_codes(stub, loaded, tmp_path):
    codes = grpc.StatusCode
    bad = pb.GroupBatch(tokens=i4(1, 2), prompt_lengths=i4(1), group_sizes=i4(1), response_lengths=i4(2))
    refused(
        lambda: stub.Forward(pb.ForwardRequest(batch=bad, temperature=1)), codes.INVALID_ARGUMENT, "lengths add up to 3"
    )
    odd = pb.GroupBatch(tokens=b"123", prompt_lengths=i4(1), group_sizes=i4(1), response_lengths=i4(2))
    refused(lambda: stub.Forward(pb.ForwardRequest(batch=odd, temperature=1)), codes.INVALID_ARGUMENT, "multiple of 4")
    big = pb.ForwardRequest(batch=batch((1, 2, 3, 4, 5, 6, 7, 999)), temperature=1)
    refused(lambda: stub.Forward(big), codes.INVALID_ARGUMENT, "vocabulary of 64")
    refused(lambda: stub.ForwardBackward(train(weights=(1,))), codes.INVALID_ARGUMENT, "weights has 1")
    refused(lambda: stub.ForwardBackward(train(loss=pb.Loss())), codes.INVALID_ARGUMENT, "loss is missing")
    refused(
        lambda: stub.Forward(pb.ForwardRequest(model_id="x", batch=batch(), temperature=1)), codes.NOT_FOUND, "policy"
    )
    refused(
        lambda: stub.OptimStep(pb.OptimStepRequest(learning_rate=1, beta1=0.9, beta2=0.95, eps=1e-8)),
        codes.FAILED_PRECONDITION,
        "ForwardBackward",
    )
    refused(lambda: stub.LoadState(pb.LoadStateRequest(path=str(tmp_path / "none"))), codes.NOT_FOUND, "no saved state")
    refused(lambda: stub.SaveState(pb.SaveStateRequest(path="/proc/x")), codes.FAILED_PRECONDITION, "cannot write")
    missing = pb.LoadModelRequest(model_id="m", pretrained=pb.PretrainedModel(path="/nowhere"), dtype=pb.DTYPE_FLOAT32)
    refused(lambda: stub.LoadModel(missing), codes.NOT_FOUND, "/nowhere")
    violating = pb.ForwardRequest(
        batch=batch(),
        constraint=pb.PermutationConstraint(
            sequence_counts=i4(2), sequence_lengths=i4(1, 1), sequence_tokens=i4(4, 6), prior=f4(0, 0), scale=1
        ),
        temperature=1,
    )
    refused(
        lambda: stub.Forward(violating), codes.INVALID_ARGUMENT, "response 0 violates the constraint at its token 1"
    )


def test_non_finite_loss_clears_the_gradient(stub, loaded):
    stub.ForwardBackward(train())
    policy = pb.PolicyLoss(
        advantages=f4(np.inf, 1, 1, 1, 1), old_logprobs=f4(0, 0, 0, 0, 0), clip_low=0.2, clip_high=0.2
    )
    request = train(loss=pb.Loss(policy=policy))
    refused(lambda: stub.ForwardBackward(request), grpc.StatusCode.FAILED_PRECONDITION, "lower learning_rate")
    refused(
        lambda: stub.OptimStep(pb.OptimStepRequest(learning_rate=1, beta1=0.9, beta2=0.95, eps=1e-8)),
        grpc.StatusCode.FAILED_PRECONDITION, "no gradient",
    )  # fmt: skip


def test_there_are_no_defaults(stub, loaded):
    """A number that is left out travels as 0, an enum as its first value: where that means nothing, it is refused."""
    step = {"learning_rate": 1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    draw = {"prompt_tokens": i4(1), "prompt_lengths": i4(1), "num_samples": 1, "max_new_tokens": 1, "top_p": 1}
    model = pb.PretrainedModel(path="/nowhere")
    for call, request, name in (
        (stub.Forward, pb.ForwardRequest(batch=batch()), "temperature"),
        (stub.ForwardBackward, train(temperature=0), "temperature"),
        (stub.OptimStep, pb.OptimStepRequest(**{**step, "eps": 0}), "eps"),
        (lambda r: list(stub.Sample(r)), pb.SampleRequest(**{**draw, "num_samples": 0}), "num_samples"),
        (lambda r: list(stub.Sample(r)), pb.SampleRequest(**{**draw, "top_p": 0}), "top_p"),
        (stub.Embed, pb.EmbedRequest(model_path="/nowhere", texts=["a"]), "batch_size"),
        (stub.LoadModel, pb.LoadModelRequest(model_id="m", pretrained=model), "dtype 0"),
        (lambda r: list(stub.FitSemanticIds(r)), pb.FitSemanticIdsRequest(), "quantizer method 0"),
    ):
        refused(lambda call=call, request=request: call(request), grpc.StatusCode.INVALID_ARGUMENT, name)


def test_the_types_of_requests_have_no_defaults():
    kinds = [kind for kind in vars(types).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) > 15
    assert [
        f"{kind.__name__}.{field.name}"
        for kind in [*kinds, QuantizerConfig, TreesConfig]
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    ] == []


def test_cancel_frees_the_worker(stub, loaded):
    request = pb.SampleRequest(
        prompt_tokens=i4(*[1] * 10), prompt_lengths=i4(10), num_samples=64, max_new_tokens=240, temperature=1, top_p=1
    )
    call = stub.Sample(request)
    threading.Timer(0.1, call.cancel).start()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    started = time.perf_counter()
    stub.Forward(pb.ForwardRequest(batch=batch(), temperature=1), timeout=20)
    assert time.perf_counter() - started < 1.0


def environment():
    return {**os.environ, "PYTHONPATH": str(PYTHON_WORKER)}


def test_main_binds_and_drains():
    command = [sys.executable, "-m", "gr2_worker", "--address", "127.0.0.1:0", "--device", "cpu", "--threads", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as worker:
        address = worker.stdout.readline().strip()
        assert address.startswith("127.0.0.1:") and not address.endswith(":0")
        with grpc.insecure_channel(address) as channel:
            assert pb_grpc.WorkerStub(channel).GetInfo(pb.GetInfoRequest()).device == "cpu"
        taken = subprocess.run([*command[:4], address], capture_output=True, text=True, env=environment())
        assert taken.returncode == 1 and "in use" in taken.stderr.strip().splitlines()[-1]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_boot_answers_with_json(tmp_path):
    script = (
        "import json, sys\nfrom gr2_worker.boot import boot\n"
        f"a = boot(json.dumps({{'address': 'unix:{tmp_path}/b.sock', 'device': 'cpu', 'threads': 1}}))\n"
        "b = boot('{}')\nc = boot('[')\nd = boot('{\"nonsense\": 1}')\n"
        "print(json.dumps([json.loads(x) for x in (a, b, c, d)]))\n"
        "import grpc\nfrom gr2.v1 import worker_pb2 as pb, worker_pb2_grpc as g\n"
        "with grpc.insecure_channel(json.loads(a)['address']) as ch: g.WorkerStub(ch).Shutdown(pb.ShutdownRequest())\n"
        "import time; time.sleep(30); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    first, second, broken, unknown = json.loads(done.stdout)
    assert first["ok"] and first == second
    assert not broken["ok"] and not unknown["ok"] and "keys" in unknown["error"]


def test_port_in_use_is_an_error():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(OSError, match="cannot listen"):
            Server(f"127.0.0.1:{held.getsockname()[1]}", "cpu", 1)
