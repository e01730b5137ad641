"""A client of `gr2 serve` in Python: one request, then a thought as it comes.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=examples --grpc_python_out=examples gr2/v1/rerank.proto
    python examples/rerank_client.py [HOST:PORT]
"""

import sys

import grpc
from gr2.v1 import rerank_pb2 as pb
from gr2.v1 import rerank_pb2_grpc


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50061"
    with grpc.insecure_channel(address) as channel:
        service = rerank_pb2_grpc.RerankServiceStub(channel)
        model = service.GetModel(pb.GetModelRequest(), timeout=5)
        print(f"model {model.version}, at most {model.limits.max_candidates} candidates")

        request = pb.RerankRequest(
            history=[pb.HistoryItem(text="Toy Story (1995)"), pb.HistoryItem(item_id="50")],
            candidates=[
                pb.Candidate(id="a", text="Heat (1995)", score=2.5),
                pb.Candidate(id="b", text="GoldenEye (1995)", score=1.5),
                pb.Candidate(id="c", text="A film nobody has seen yet", score=0.5),
            ],
            mode=pb.MODE_DIRECT,
            deadline_ms=1000,
        )
        # With a token: metadata=[("authorization", "Bearer TOKEN")]
        answer = service.Rerank(request, timeout=5)
        if answer.fallback:
            print(f"my own order came back: {pb.FallbackReason.Name(answer.fallback)}")
        for place, candidate in enumerate(answer.ranking, start=1):
            print(f"{place}. {candidate.id} {candidate.score:.3f}")

        request.mode = pb.MODE_THINK
        request.deadline_ms = 10_000
        for event in service.RerankStream(pb.RerankStreamRequest(request=request), timeout=15):
            if event.WhichOneof("event") == "thought":
                print(event.thought, end="", flush=True)
            else:
                print()
                print([candidate.id for candidate in event.answer.ranking])


if __name__ == "__main__":
    main()
