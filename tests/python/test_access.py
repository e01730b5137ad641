"""A worker's door: what got in before, tried again. Attacks are named for what they did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from conftest import architecture, tokenizer_json
from gr2.v1 import worker_pb2 as pb
from gr2.v1 import worker_pb2_grpc as pb_grpc
from gr2_worker.errors import InvalidRequest, PermissionDenied
from gr2_worker.rpc.access import Access, is_local, make_access, read_token
from gr2_worker.rpc.server import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc

PYTHON_WORKER = Path(__file__).resolve().parents[2] / "python_worker"
TOKEN = "a-secret-of-the-operator"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return Path(os.path.realpath(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    return Path(os.path.realpath(tmp_path_factory.mktemp("outside")))


@pytest.fixture(scope="module")
def server(root):
    server = Server("127.0.0.1:0", "cpu", 1, Access(TOKEN, (root,)))
    yield server
    server.stop(1)


@pytest.fixture(scope="module")
def serving(root):
    server = Server("127.0.0.1:0", "cpu", 1, Access("", (root,), serving=True))
    yield server
    server.stop(1)


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield pb_grpc.WorkerStub(channel)


KNOWN = (("authorization", f"Bearer {TOKEN}"),)


def load(stub, model_id="m", trainable=True, metadata=KNOWN, seed=1):
    return stub.LoadModel(
        pb.LoadModelRequest(
            model_id=model_id,
            scratch=pb.ScratchModel(architecture_json=architecture(), tokenizer_json=tokenizer_json()),
            trainable=trainable,
            seed=seed,
            dtype=pb.DTYPE_FLOAT32,
        ),
        metadata=metadata,
    )


def code(call, *arguments, metadata=KNOWN):
    with pytest.raises(grpc.RpcError) as error:
        answer = call(*arguments, metadata=metadata)
        if hasattr(answer, "__iter__"):
            list(answer)
    return error.value.code()


# ---------------------------------------------------------------- who may call


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/tmp/w.sock", True),
        ("127.0.0.1:5", True),
        ("127.8.8.8:5", True),
        ("[::1]:5", True),
        ("localhost:5", True),
        ("0.0.0.0:5", False),
        ("[::]:5", False),
        (":5", False),
        ("10.0.0.1:5", False),
        ("127.evil.com:5", False),
        ("ipv4:127.0.0.1:5", False),  # a scheme of gRPC's: not clearly loopback
        ("localhost.evil.com:5", False),
    ],
)
def test_only_what_is_clearly_local_is(address, local):
    assert is_local(address) == local


def test_a_worker_beyond_loopback_does_not_start_without_token_and_root(tmp_path):
    token = tmp_path / "worker.token"
    token.write_text(f"{TOKEN}\n")

    def start(*more):
        return subprocess.run(
            [sys.executable, "-m", "gr2_worker", "--address", "0.0.0.0:0", "--device", "cpu", *more],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(PYTHON_WORKER)},
        )

    for more, reason in (
        ([], "--token-file"),
        (["--root", str(tmp_path)], "--token-file"),
        (["--token-file", str(token)], "--root"),
        (["--token-file", str(token), "--root", "/"], "would not confine"),
        (["--token-file", str(token), "--root", str(tmp_path / "none")], "no such folder"),
        (["--token-file", str(tmp_path / "none"), "--root", str(tmp_path)], "cannot be read"),
    ):
        done = start(*more)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr.strip().splitlines()[-1]
    given = make_access("0.0.0.0:0", str(token), [str(tmp_path)], True)
    assert given == Access(TOKEN, (Path(os.path.realpath(tmp_path)),), True)


def test_a_token_is_long_enough_to_be_one(tmp_path):
    file = tmp_path / "t"
    for bad in ("", "short", "x" * 15, "with a space in the middle", "é" * 20):
        file.write_text(bad)
        with pytest.raises(ValueError, match="at least 16"):
            read_token(str(file))
    file.write_text(f"  {'x' * 16}\n")
    assert read_token(str(file)) == "x" * 16


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", TOKEN),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer wrong"), ("authorization", f"Bearer {TOKEN}")),
        (("x-authorization", f"Bearer {TOKEN}"),),
    ],
)
def test_nothing_answers_without_the_token(server, stub, metadata):
    calls = [
        (stub.GetInfo, pb.GetInfoRequest()),
        (stub.LoadModel, pb.LoadModelRequest()),
        (stub.SaveState, pb.SaveStateRequest()),
        (stub.ExportModel, pb.ExportModelRequest()),
        (stub.Shutdown, pb.ShutdownRequest()),
        (stub.Sample, pb.SampleRequest()),  # a stream
    ]
    for call, request in calls:
        assert code(call, request, metadata=metadata) == grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert code(check, health_pb2.HealthCheckRequest(), metadata=metadata) == grpc.StatusCode.UNAUTHENTICATED


def test_the_token_opens(stub):
    assert stub.GetInfo(pb.GetInfoRequest(), metadata=KNOWN).device == "cpu"


# ---------------------------------------------------------------- where it reads and writes


def export_request(path, **files):
    return pb.ExportModelRequest(
        model_id="m", path=str(path), dtype=pb.DTYPE_FLOAT32, files={"gr2_export.json": b"{}", **files}
    )


def test_no_file_is_written_outside_the_roots(stub, root, outside):
    load(stub)
    link = root / "link"
    link.symlink_to(outside, target_is_directory=True)
    for path in (outside / "site-packages", link, link / "x", root / ".." / outside.name / "x", root.parent):
        for call, request in (
            (stub.ExportModel, export_request(path)),
            (stub.SaveState, pb.SaveStateRequest(model_id="m", path=str(path))),
        ):
            assert code(call, request) == grpc.StatusCode.PERMISSION_DENIED, path
    assert list(outside.iterdir()) == []
    link.unlink()
    sibling = root.with_name(root.name + "-too")  # begins like the root
    assert code(stub.SaveState, pb.SaveStateRequest(model_id="m", path=str(sibling))) == (
        grpc.StatusCode.PERMISSION_DENIED
    )
    stub.SaveState(pb.SaveStateRequest(model_id="m", path=str(root / "state")), metadata=KNOWN)
    assert (root / "state" / "gr2_state.json").is_file()


def test_an_export_writes_only_documents(stub, root):
    load(stub)
    for name in (
        "evil.pth",
        "authorized_keys",
        "../evil.json",
        "..",
        "/tmp/evil.json",
        "a/b.json",
        "a\\b.json",
        ".hidden.json",
        "sitecustomize.py",
        "config.json",
        "x.json\n",
        "tokenizer_config.json",
    ):
        assert code(stub.ExportModel, export_request(root / "out", **{name: b"x"})) == (
            grpc.StatusCode.INVALID_ARGUMENT
        ), name
    assert not (root / "out").exists()
    stub.ExportModel(export_request(root / "out", **{"README.md": b"x"}), metadata=KNOWN)
    assert (root / "out" / "README.md").read_bytes() == b"x"


def test_no_file_is_read_outside_the_roots(stub, root, outside):
    load(stub)
    for path in (outside, "/etc", "org/model", "~/x", "", "relative"):
        if path:
            pretrained = pb.LoadModelRequest(pretrained=pb.PretrainedModel(path=str(path)), dtype=pb.DTYPE_FLOAT32)
            assert code(stub.LoadModel, pretrained) == grpc.StatusCode.PERMISSION_DENIED, path
        for call, request in (
            (stub.LoadState, pb.LoadStateRequest(model_id="m", path=str(path))),
            (stub.Embed, pb.EmbedRequest(model_path=str(path), texts=["a"], batch_size=1)),
        ):
            assert code(call, request) == grpc.StatusCode.PERMISSION_DENIED, path
    gguf = pb.PretrainedModel(path=str(root), gguf_file=f"../{outside.name}/x.gguf")
    assert (
        code(stub.LoadModel, pb.LoadModelRequest(pretrained=gguf, dtype=pb.DTYPE_FLOAT32))
        == grpc.StatusCode.PERMISSION_DENIED
    )
    with pytest.raises(InvalidRequest):
        Access("", (root,)).path(f"{root}/a\0b")
    with pytest.raises(PermissionDenied):
        Access("", (root,)).path(".")
    assert Access().path("anything") == "anything"


# ---------------------------------------------------------------- serving


def test_a_serving_worker_neither_trains_nor_writes(serving, root):
    with grpc.insecure_channel(serving.address) as channel:
        stub = pb_grpc.WorkerStub(channel)
        denied = grpc.StatusCode.PERMISSION_DENIED
        for verb, request in (
            ("TrainTokenizer", pb.TrainTokenizerRequest()),
            ("ForwardBackward", pb.ForwardBackwardRequest()),
            ("OptimStep", pb.OptimStepRequest()),
            ("Factorize", pb.FactorizeRequest()),
            ("FitSemanticIds", pb.FitSemanticIdsRequest()),
            ("SaveState", pb.SaveStateRequest(model_id="m", path=str(root / "stolen"))),
            ("ExportModel", export_request(root / "stolen")),
            ("Shutdown", pb.ShutdownRequest()),
        ):
            assert code(getattr(stub, verb), request, metadata=()) == denied, verb
        with pytest.raises(grpc.RpcError) as error:
            load(stub, trainable=True, metadata=())
        assert error.value.code() == denied
        assert not (root / "stolen").exists()
        load(stub, trainable=False, metadata=())
        assert forward(stub, ()).logprobs


# ---------------------------------------------------------------- which weights answered


def forward(stub, metadata=KNOWN):
    batch = pb.GroupBatch(tokens=i4(1, 2), prompt_lengths=i4(1), group_sizes=i4(1), response_lengths=i4(1))
    return stub.Forward(pb.ForwardRequest(model_id="m", batch=batch, temperature=1), metadata=metadata)


def i4(*values):
    return b"".join(value.to_bytes(4, "little") for value in values)


def test_answers_name_the_weights_that_computed_them(stub, root):
    load(stub)
    stub.SaveState(pb.SaveStateRequest(model_id="m", path=str(root / "good")), metadata=KNOWN)
    load(stub, seed=2)
    stub.SaveState(pb.SaveStateRequest(model_id="m", path=str(root / "noise")), metadata=KNOWN)

    def restore(name):
        return stub.LoadState(pb.LoadStateRequest(model_id="m", path=str(root / name)), metadata=KNOWN)

    good = restore("good")
    assert forward(stub).weights_id == good.weights_id != ""
    noise = restore("noise")  # under the same id, as the attack did
    assert forward(stub).weights_id == noise.weights_id
    seen = {good.weights_id, noise.weights_id, restore("good").weights_id}  # loaded again is another load
    load(stub)
    seen.add(forward(stub).weights_id)
    assert len(seen) == 4
    before = forward(stub).weights_id
    batch = pb.GroupBatch(tokens=i4(1, 2), prompt_lengths=i4(1), group_sizes=i4(1), response_lengths=i4(1))
    loss = pb.Loss(cross_entropy=pb.CrossEntropyLoss())
    weights = b"\x00\x00\x80\x3f"  # 1.0
    stub.ForwardBackward(
        pb.ForwardBackwardRequest(model_id="m", batch=batch, weights=weights, loss=loss, temperature=1), metadata=KNOWN
    )
    stub.OptimStep(
        pb.OptimStepRequest(model_id="m", request_id="1", learning_rate=0.1, beta1=0.9, beta2=0.95, eps=1e-8),
        metadata=KNOWN,
    )
    assert forward(stub).weights_id != before
