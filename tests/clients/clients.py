"""Runs every Python client against the service and prints one line of JSON per client.

Each client ranks the same three documents with the service's token, and then tries a wrong token, which has to end in
an error of the client's own and not in an answer. The service turns the order around: of documents 0, 1, 2 the right
answer is 2, 1, 0 with scores 0.3, 0.2, 0.1.

Usage: clients.py HTTP_URL GRPC_ADDRESS TOKEN
"""

import importlib.metadata
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}

URL, GRPC, TOKEN = sys.argv[1:4]
QUERY = "Toy Story (1995)\nHeat (1995)"
DOCUMENTS = ["Sabrina (1995)", "GoldenEye (1995)", "Casino (1995)"]
EXPECTED = [(2, 0.3), (1, 0.2), (0, 0.1)]

Ranking = list[tuple[int, float]]


class Client(NamedTuple):
    """A client as the table names it, the package it comes from, and the API that it speaks."""

    name: str
    package: str
    speaks: str
    rank: Callable[[str], Ranking]
    refuses: bool = True


def position(text: str) -> int:
    return DOCUMENTS.index(text)


def cohere_v2(token: str) -> Ranking:
    import cohere

    client = cohere.ClientV2(api_key=token, base_url=URL)
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    return [(r.index, r.relevance_score) for r in answer.results]


def cohere_v1(token: str) -> Ranking:
    import cohere

    client = cohere.Client(api_key=token, base_url=URL)
    answer = client.rerank(model="rerank-english-v3.0", query=QUERY, documents=DOCUMENTS, return_documents=True)
    assert [r.document.text for r in answer.results] == DOCUMENTS[::-1]
    return [(r.index, r.relevance_score) for r in answer.results]


def voyage(token: str) -> Ranking:
    import voyageai

    client = voyageai.Client(api_key=token, base_url=f"{URL}/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5")
    assert [r.document for r in answer.results] == DOCUMENTS[::-1]
    return [(r.index, r.relevance_score) for r in answer.results]


def rerankers(provider: str, model: str, path: str = "/v1/rerank") -> Callable[[str], Ranking]:
    def rank(token: str) -> Ranking:
        from rerankers.models.api_rankers import APIRanker

        ranker = APIRanker(model, api_key=token, api_provider=provider, verbose=0, url=f"{URL}{path}")
        return [(r.doc_id, r.score) for r in ranker.rank(QUERY, DOCUMENTS).results]

    return rank


def litellm(model: str, path: str = "", **more: Any) -> Callable[[str], Ranking]:
    def rank(token: str) -> Ranking:
        import litellm

        litellm.suppress_debug_info = True
        answer = litellm.rerank(
            model=model, query=QUERY, documents=DOCUMENTS, api_key=token, api_base=f"{URL}{path}", top_n=3, **more
        )
        return [(r["index"], r["relevance_score"]) for r in answer.results]

    return rank


def langchain_cohere(token: str) -> Ranking:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    reranker = CohereRerank(model="rerank-v3.5", cohere_api_key=token, base_url=URL)
    ranked = reranker.compress_documents([Document(d) for d in DOCUMENTS], QUERY)
    return [(position(d.page_content), d.metadata["relevance_score"]) for d in ranked]


def llama_index(make: Callable[[str], Any]) -> Callable[[str], Ranking]:
    def rank(token: str) -> Ranking:
        from llama_index.core.schema import NodeWithScore, TextNode

        nodes = [NodeWithScore(node=TextNode(text=d), score=0.0) for d in DOCUMENTS]
        ranked = make(token).postprocess_nodes(nodes, query_str=QUERY)
        return [(position(n.node.get_content()), n.score) for n in ranked]

    return rank


def llama_index_cohere(token: str) -> Any:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return CohereRerank(api_key=token, base_url=URL, top_n=3)


def llama_index_jina(token: str) -> Any:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return JinaRerank(api_key=token, base_url=f"{URL}/v1", top_n=3)


def llama_index_tei(token: str) -> Any:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return TextEmbeddingInference(base_url=URL, auth_token=f"Bearer {token}", top_n=3)


def haystack(make: Callable[[Any], Any]) -> Callable[[str], Ranking]:
    def rank(token: str) -> Ranking:
        from haystack import Document
        from haystack.utils import Secret

        ranker = make(Secret.from_token(token))
        if hasattr(ranker, "warm_up"):
            ranker.warm_up()
        ranked = ranker.run(query=QUERY, documents=[Document(content=d) for d in DOCUMENTS], top_k=3)["documents"]
        return [(position(d.content), d.score) for d in ranked]

    return rank


def haystack_cohere(secret: Any) -> Any:
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return CohereRanker(api_key=secret, api_base_url=URL)


def haystack_jina(secret: Any) -> Any:
    from haystack_integrations.components.rankers.jina import JinaRanker

    return JinaRanker(api_key=secret, base_url=f"{URL}/v1/rerank")


def haystack_tei(secret: Any) -> Any:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return HuggingFaceTEIRanker(url=URL, token=secret, max_retries=1)


def infinity_client(token: str) -> Ranking:
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    client = AuthenticatedClient(base_url=URL, token=token, raise_on_unexpected_status=True)
    body = RerankInput(query=QUERY, documents=DOCUMENTS, return_documents=True, model="m")
    answer = rerank.sync(client=client, body=body)
    assert [r.document for r in answer.results] == DOCUMENTS[::-1]
    return [(r.index, r.relevance_score) for r in answer.results]


def grpc_health(_: str) -> Ranking:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(GRPC) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "gr2.v1.RerankService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    return EXPECTED


def grpc_reflection(token: str) -> Ranking:
    """A client that knows no proto: it asks the service for its methods and messages, and calls one."""
    import grpc
    from google.protobuf import descriptor_pool, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(GRPC) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "gr2.v1.RerankService" in database.get_services()
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("gr2.v1.RerankService").FindMethodByName("Rerank")
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary("/gr2.v1.RerankService/Rerank", request.SerializeToString, response.FromString)
        candidates = [{"id": str(i), "text": d} for i, d in enumerate(DOCUMENTS)]
        answer = call(
            request(history=[{"text": t} for t in QUERY.split("\n")], candidates=candidates),
            metadata=[("authorization", f"Bearer {token}")],
            timeout=10,
        )
        return [(int(r.id), r.score) for r in answer.ranking]


def metrics(token: str) -> Ranking:
    """Prometheus' own two parsers read /metrics without a complaint, and find what was counted."""
    import urllib.request

    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as prometheus

    for parse, accept in ((prometheus, "text/plain"), (openmetrics, "application/openmetrics-text; version=1.0.0")):
        headers = {"Authorization": f"Bearer {token}", "Accept": accept}
        with urllib.request.urlopen(urllib.request.Request(f"{URL}/metrics", headers=headers)) as answer:
            assert answer.headers["content-type"].startswith(accept.split(";")[0])
            families = list(parse(answer.read().decode()))
        assert all(f.documentation for f in families), [f.name for f in families if not f.documentation]
        calls = next(f for f in families if f.name.removesuffix("_total") == "gr2_requests")
        assert sum(s.value for s in calls.samples if s.name == "gr2_requests_total") > 0
    return EXPECTED


CLIENTS = [
    Client("cohere, ClientV2", "cohere", "Cohere v2", cohere_v2),
    Client("cohere, Client", "cohere", "Cohere v1", cohere_v1),
    Client("langchain-cohere, CohereRerank", "langchain-cohere", "Cohere v2", langchain_cohere),
    Client(
        "llama-index, CohereRerank",
        "llama-index-postprocessor-cohere-rerank",
        "Cohere v2",
        llama_index(llama_index_cohere),
    ),
    Client("llama-index, JinaRerank", "llama-index-postprocessor-jinaai-rerank", "Jina", llama_index(llama_index_jina)),
    Client(
        "llama-index, TextEmbeddingInference",
        "llama-index-postprocessor-tei-rerank",
        "TEI",
        llama_index(llama_index_tei),
    ),
    Client("haystack, CohereRanker", "cohere-haystack", "Cohere v2", haystack(haystack_cohere)),
    Client("haystack, JinaRanker", "jina-haystack", "Jina", haystack(haystack_jina)),
    Client("haystack, HuggingFaceTEIRanker", "huggingface-api-haystack", "TEI", haystack(haystack_tei)),
    Client("litellm, cohere", "litellm", "Cohere v2", litellm("cohere/rerank-v3.5", "/v2/rerank")),
    Client("litellm, jina_ai", "litellm", "Jina", litellm("jina_ai/jina-reranker-v2", "/v1/rerank")),
    Client("litellm, huggingface", "litellm", "TEI", litellm("huggingface/m")),
    Client("litellm, hosted_vllm", "litellm", "vLLM", litellm("hosted_vllm/m")),
    Client("litellm, infinity", "litellm", "Infinity", litellm("infinity/m", "/infinity")),
    Client("litellm, voyage", "litellm", "Voyage", litellm("voyage/rerank-2.5", "/v1/rerank")),
    Client("rerankers, cohere", "rerankers", "Cohere v1", rerankers("cohere", "rerank-english-v3.0")),
    Client("rerankers, jina", "rerankers", "Jina", rerankers("jina", "jina-reranker-v2")),
    Client("rerankers, voyage", "rerankers", "Voyage", rerankers("voyage", "rerank-lite-1")),
    Client("rerankers, TEI", "rerankers", "TEI", rerankers("text-embeddings-inference", "m", "/rerank")),
    Client("voyageai, Client", "voyageai", "Voyage", voyage),
    Client("infinity-client", "infinity-client", "Infinity", infinity_client),
    Client("grpc reflection", "grpcio-reflection", "gRPC", grpc_reflection),
    Client("grpc health", "grpcio-health-checking", "gRPC", grpc_health, refuses=False),
    Client("prometheus_client, both parsers", "prometheus_client", "/metrics", metrics),
]


def find_fault(client: Client) -> str:
    """What is wrong with a client's answers, or "" if nothing is."""
    try:
        ranking = client.rank(TOKEN)
    except ModuleNotFoundError:  # a client without what it needs is not installed
        raise
    except Exception as e:  # whatever a client does is a result
        return f"{type(e).__name__}: {e}"[:300]
    if [i for i, _ in ranking] != [i for i, _ in EXPECTED] or any(
        abs(got - want) > 1e-6 for (_, got), (_, want) in zip(ranking, EXPECTED, strict=True)
    ):
        return f"it answered {ranking}, not {EXPECTED}"
    if client.refuses:
        try:
            ranking = client.rank(f"{TOKEN}x")
        except Exception:
            return ""
        return f"with a wrong token it answered {ranking}"
    return ""


def main() -> None:
    for client in CLIENTS:
        try:
            version = importlib.metadata.version(client.package)
            fault = find_fault(client)
            outcome = {"version": version, "state": "failed" if fault else "passed", "fault": fault}
        except (importlib.metadata.PackageNotFoundError, ModuleNotFoundError) as e:
            outcome = {"version": "", "state": "skipped", "fault": f"not installed: {e}"}
        sys.stdout.write(
            json.dumps({"name": client.name, "package": client.package, "speaks": client.speaks, **outcome}) + "\n"
        )
        sys.stdout.flush()


main()
