"""Shared tiny models: hidden 32, 2 layers, one torch thread."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python_worker"))

from asked import load_spec
from gr2_worker.engine import Engine
from gr2_worker.generation.trie import checked_trie
from gr2_worker.types import GroupBatch, LoadSpec, Trie
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)

VOCAB = 61


def tokenizer_json(size: int = VOCAB) -> bytes:
    return Tokenizer(WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0")).to_str().encode()


def architecture(model_type: str = "qwen3", **extra: object) -> str:
    base = {
        "model_type": model_type,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,  # sharp enough for orderings to mean something
    }
    if model_type == "qwen2":
        del base["head_dim"]
    return json.dumps({**base, **extra})


def spec(model_type: str = "qwen3", trainable: bool = True, seed: int = 1, **extra: object) -> LoadSpec:
    return load_spec(
        architecture_json=architecture(model_type, **extra),
        tokenizer_json=tokenizer_json(),
        trainable=trainable,
        seed=seed,
    )


@pytest.fixture
def engine() -> Engine:
    engine = Engine(torch.device("cpu"))
    engine.load_model("", spec())
    return engine


@pytest.fixture
def make_engine() -> Callable[..., Engine]:
    def make(**kwargs: object) -> Engine:
        engine = Engine(torch.device("cpu"))
        engine.load_model("", spec(**kwargs))  # type: ignore[arg-type]
        return engine

    return make


def random_batch(
    seed: int,
    groups: int = 4,
    max_size: int = 4,
    prompt: tuple[int, int] = (3, 20),
    response: tuple[int, int] = (1, 12),
) -> GroupBatch:
    rng = np.random.default_rng(seed)
    prompt_lengths = rng.integers(*prompt, size=groups, endpoint=True)
    sizes = rng.integers(1, max_size, size=groups, endpoint=True)
    response_lengths = rng.integers(*response, size=int(sizes.sum()), endpoint=True)
    total = int(prompt_lengths.sum() + response_lengths.sum())
    return GroupBatch(
        rng.integers(0, VOCAB, size=total).astype(np.int32),
        prompt_lengths.astype(np.int64),
        sizes.astype(np.int64),
        response_lengths.astype(np.int64),
    )


def unpack(batch: GroupBatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prompt, response) of every response, in order."""
    pairs = []
    for r in range(batch.num_responses):
        g = int(batch.group_of_response[r])
        p, s = int(batch.prompt_starts[g]), int(batch.response_starts[r])
        pairs.append((batch.tokens[p : p + batch.prompt_lengths[g]], batch.tokens[s : s + batch.response_lengths[r]]))
    return pairs


def as_batch(pairs: list[tuple[np.ndarray, np.ndarray]]) -> GroupBatch:
    """A batch of groups of size 1."""
    return GroupBatch(
        np.concatenate([np.concatenate(p) for p in pairs]).astype(np.int32),
        np.asarray([len(p) for p, _ in pairs], dtype=np.int64),
        np.ones(len(pairs), dtype=np.int64),
        np.asarray([len(r) for _, r in pairs], dtype=np.int64),
    )


def make_trie(sequences: list[tuple[int, ...]]) -> Trie:
    """A trie built the slow way: nodes are prefixes, by length, then by their place among sorted prefixes."""
    order = sorted(range(len(sequences)), key=lambda row: sequences[row])
    prefixes = sorted({s[:n] for s in sequences for n in range(len(s) + 1)}, key=lambda p: (len(p), p))
    children = [[p for p in prefixes if len(p) == len(node) + 1 and p[:-1] == node] for node in prefixes]
    under = [[i for i, row in enumerate(order) if sequences[row][: len(node)] == node] for node in prefixes]
    return checked_trie(
        np.cumsum([0, *map(len, children)]),
        np.asarray([p[-1] for some in children for p in some], dtype=np.int64),
        np.asarray([rows[0] for rows in under]),
        np.asarray([rows[-1] + 1 for rows in under]),
        np.asarray(order),
    )
