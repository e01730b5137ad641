"""A model whose tokens are items (SASRec as a small GPT-2): it learns, and beam search over it is the full ranking."""

from __future__ import annotations

import json

import numpy as np
import torch
from asked import EVERYTHING, adamw_params, load_spec, train_spec
from conftest import make_trie, tokenizer_json
from gr2_worker.engine import Engine
from gr2_worker.types import BeamParams, GroupBatch

ITEMS = 40


def item_model(dropout: float = 0.0) -> Engine:
    architecture = {
        "model_type": "gpt2",
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "n_inner": 16,
        "n_positions": 9,
        "activation_function": "relu",
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "attn_pdrop": dropout,
        "tie_word_embeddings": True,
    }
    engine = Engine(torch.device("cpu"))
    spec = load_spec(json.dumps(architecture), tokenizer_json(ITEMS), trainable=True, seed=3)
    engine.load_model("sasrec", spec)
    return engine


def sequences(rng: np.random.Generator, count: int, length: int = 8) -> np.ndarray:
    """next = last + 7 (mod 40)."""
    rows = np.empty((count, length), dtype=np.int32)
    rows[:, 0] = rng.integers(0, ITEMS, count)
    for k in range(1, length):
        rows[:, k] = (rows[:, k - 1] + 7) % ITEMS
    return rows


def train(engine: Engine, steps: int) -> list[float]:
    rng = np.random.default_rng(0)
    losses = []
    for step in range(steps):
        rows = sequences(rng, 16)
        ones = np.ones(16, dtype=np.int64)
        batch = GroupBatch(rows.reshape(-1), ones, ones, np.full(16, 7, dtype=np.int64))
        weights = np.full(16 * 7, 1 / (16 * 7), dtype=np.float32)
        losses.append(engine.forward_backward("sasrec", "", train_spec(batch, weights, EVERYTHING, seed=step)).loss)
        engine.optim_step("sasrec", "", adamw_params(1e-2, beta2=0.98))
    return losses


def rank(engine: Engine, prompts: list[np.ndarray], width: int, exclude: bool) -> tuple[np.ndarray, np.ndarray]:
    trie = make_trie([(item,) for item in range(ITEMS)])
    excluded = [p.astype(np.int64) if exclude else np.zeros(0, dtype=np.int64) for p in prompts]
    result = engine.beam_search("sasrec", BeamParams(prompts, trie, width, excluded))
    return result.rows, result.logprobs


def test_learns_what_follows() -> None:
    engine = item_model(dropout=0.1)
    losses = train(engine, 200)
    assert losses[0] > 3.5  # ln 40 = 3.69
    last = np.arange(ITEMS, dtype=np.int32)
    rows, _ = rank(engine, [np.array([k], dtype=np.int32) for k in last], 1, exclude=False)
    assert (rows[:, 0] == (last + 7) % ITEMS).mean() >= 0.95


def test_ranking_is_the_sorted_softmax_without_the_history() -> None:
    engine = item_model()
    train(engine, 5)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, ITEMS, n).astype(np.int32) for n in (1, 3, 8, 5, 8)]
    model = engine.model("sasrec").lm.model
    for exclude in (False, True):
        for width in (1, 10, ITEMS):
            rows, logprobs = rank(engine, prompts, width, exclude)
            for prompt, found, scores in zip(prompts, rows, logprobs, strict=True):
                with torch.no_grad():
                    expected = model(torch.from_numpy(prompt).long()[None]).logits[0, -1].log_softmax(-1)
                seen = set(prompt.tolist()) if exclude else set()
                order = [i for i in expected.argsort(descending=True).tolist() if i not in seen][:width]
                assert found[: len(order)].tolist() == order
                assert (found[len(order) :] == -1).all()
                np.testing.assert_allclose(scores[: len(order)], expected[order].numpy(), atol=1e-5)


def test_equal_scores_come_in_catalogue_order() -> None:
    """All vectors equal: every item is as likely as any other, and the cut through the tie keeps the first rows."""
    engine = item_model()
    with torch.no_grad():
        engine.model("sasrec").lm.model.get_input_embeddings().weight.fill_(0.1)
    rows, _ = rank(engine, [np.array([4, 0], dtype=np.int32)], 5, exclude=True)
    assert rows[0].tolist() == [1, 2, 3, 5, 6]
