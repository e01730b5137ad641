"""Sentence embeddings, with the model folder named by GR2_TEST_EMBED_MODEL (tests
that need a model skip without it).
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gr2_worker.errors import NotFound
from gr2_worker.items.embed import embed_texts

MODEL = os.environ.get("GR2_TEST_EMBED_MODEL", "")
needs_model = pytest.mark.skipif(not MODEL, reason="GR2_TEST_EMBED_MODEL names no embedding model folder")

TEXTS = [
    "Toy Story",
    "",
    "a",
    "Hair care, conditioners " * 30,
    "GoldenEye (1995)",
    "Toy Story",
    "été 🙂",
    "shampoo for fine hair",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c", ""])
def test_a_missing_folder_is_named(path: str) -> None:
    with pytest.raises(NotFound, match="no embedding model"):
        embed_texts(path, ["x"], 0, True, "cpu")


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=str(tmp_path)):
        embed_texts(str(tmp_path), ["x"], 0, True, "cpu")


@needs_model
def test_rows_follow_the_texts_and_order_changes_nothing() -> None:
    rows = embed_texts(MODEL, TEXTS, 3, True, "cpu")
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), rows.shape[1])
    np.testing.assert_array_equal(rows[0], rows[5])
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = embed_texts(MODEL, [TEXTS[i] for i in order], 3, True, "cpu")
    np.testing.assert_array_equal(shuffled, rows[order])


@needs_model
def test_batch_size_changes_rounding_only() -> None:
    np.testing.assert_allclose(
        embed_texts(MODEL, TEXTS, 1, True, "cpu"), embed_texts(MODEL, TEXTS, 64, True, "cpu"), atol=1e-5
    )


@needs_model
def test_normalised_rows_have_length_one_and_meaning() -> None:
    rows = embed_texts(MODEL, ["hair shampoo", "conditioner for hair", "a science fiction film"], 8, True, "cpu")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


@needs_model
def test_no_texts_give_no_rows() -> None:
    assert embed_texts(MODEL, [], 64, True, "cpu").shape == (0, embed_texts(MODEL, ["x"], 64, True, "cpu").shape[1])
