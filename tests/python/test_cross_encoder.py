"""The cross-encoder on a tiny BERT of its own: it learns what can be learned, and twice the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gr2_worker.cross_encoder import CrossEncoderConfig, fit_cross_encoder
from gr2_worker.errors import InvalidRequest, NotFound
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ["red", "green", "blue", "car", "boat", "tree"]
CONFIG = CrossEncoderConfig(epochs=40, learning_rate=3e-3, batch_groups=4, max_tokens=16, seed=3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def fit(
    encoder: Path, queries: list[str], targets: list[int], config: CrossEncoderConfig = CONFIG
) -> tuple[NDArray[np.float32], list[tuple[int, int, float | None]]]:
    """Three candidates a group: red, green and blue things; the true one has the colour of the query."""
    said: list[tuple[int, int, float | None]] = []
    scores = fit_cross_encoder(
        str(encoder),
        queries,
        ["red car", "green boat", "blue tree"],
        np.full(len(queries), 3, np.int32),
        np.tile(np.arange(3, dtype=np.int32), len(queries)),
        np.array(targets, np.int32),
        config,
        "cpu",
        lambda done, total, loss: said.append((done, total, loss)),
    )
    return scores, said


def test_learns_which_candidate_goes_with_a_query(encoder: Path) -> None:
    colours = [k % 3 for k in range(48)]
    queries = [WORDS[c] for c in colours] + WORDS[:3]
    scores, said = fit(encoder, queries, [*colours, -1, -1, -1])
    assert scores.shape == (9,)
    assert scores.reshape(3, 3).argmax(axis=1).tolist() == [0, 1, 2]
    assert said[-1] == (40 * 48 + 3, 40 * 48 + 3, None)
    losses = [loss for _, _, loss in said if loss is not None]
    assert len(losses) == 40 * 48 / 4
    assert losses[0] == pytest.approx(np.log(3), abs=0.3)  # knows nothing yet
    assert losses[-1] < 0.5


def test_is_the_same_twice_and_leaves_the_random_state_alone(encoder: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, _ = fit(encoder, ["red", "green", "blue"], [0, 1, -1])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    second, _ = fit(encoder, ["red", "green", "blue"], [0, 1, -1])
    assert first.tobytes() == second.tobytes()


def test_without_groups_to_learn_from_it_still_scores(encoder: Path) -> None:
    scores, _ = fit(encoder, ["red"], [-1])
    assert scores.shape == (3,) and np.isfinite(scores).all()


def test_says_what_is_wrong(encoder: Path) -> None:
    with pytest.raises(NotFound, match="no text encoder"):
        fit(encoder / "absent", ["red"], [-1])
    with pytest.raises(InvalidRequest, match="outside its group"):
        fit(encoder, ["red"], [3])
    with pytest.raises(InvalidRequest, match="an entry per group"):
        fit(encoder, ["red"], [0, 1])
