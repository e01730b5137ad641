"""Beam search against exhaustive scoring, and the trie it is given:
unique, valid, sorted, nothing excluded, never a dead end.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from asked import forward_spec
from conftest import VOCAB, make_trie, spec
from gr2_worker.engine import Engine
from gr2_worker.errors import InvalidRequest
from gr2_worker.generation.trie import checked_trie
from gr2_worker.types import BeamParams, GroupBatch, never_cancelled
from hypothesis import given, settings
from hypothesis import strategies as st

NONE = np.zeros(0, dtype=np.int64)

equal_lengths = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.tuples(*[st.integers(0, 6)] * n), min_size=1, max_size=25, unique=True)
)
# Ending in a token used nowhere else, no sequence is a prefix of another.
mixed_lengths = st.lists(
    st.lists(st.integers(0, 3), max_size=3).map(lambda s: (*s, 9)), min_size=1, max_size=15, unique=True
)
catalogues = st.one_of(equal_lengths, mixed_lengths)


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = Engine(torch.device("cpu"))
    engine.load_model("", spec(trainable=False))
    return engine


def make_prompts(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, VOCAB, size=int(rng.integers(1, 9))).astype(np.int32) for _ in range(count)]


def exhaustive(engine: Engine, prompts: list[np.ndarray], items: list[tuple[int, ...]]) -> np.ndarray:
    """[prompts, items] log p(item | prompt), by Forward."""
    lengths = [len(item) for item in items]
    batch = GroupBatch(
        np.concatenate([np.concatenate([p, *map(np.asarray, items)]) for p in prompts]).astype(np.int32),
        np.asarray([len(p) for p in prompts]),
        np.full(len(prompts), len(items)),
        np.asarray(lengths * len(prompts)),
    )
    logprobs = engine.forward("", forward_spec(batch)).logprobs
    starts = np.cumsum([0, *lengths[:-1]])
    return np.stack([np.add.reduceat(row.astype(np.float64), starts) for row in logprobs.reshape(len(prompts), -1)])


@settings(max_examples=60, deadline=None)
@given(catalogues, st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_results_are_valid_unique_sorted_and_exact_when_wide(engine, items, width, seed):
    rng = np.random.default_rng(seed)
    prompts = make_prompts(rng, 4)
    excluded = [rng.choice(len(items), size=int(rng.integers(0, len(items) + 1)), replace=False) for _ in prompts]
    excluded[3] = np.delete(np.arange(len(items)), rng.integers(len(items)))  # all but one
    result = engine.beam_search("", BeamParams(prompts, make_trie(items), width, excluded), never_cancelled)
    brute = exhaustive(engine, prompts, items)
    for p in range(len(prompts)):
        rows = result.rows[p][result.rows[p] >= 0]
        found = len(rows)
        open_rows = np.setdiff1d(np.arange(len(items)), excluded[p])
        assert len(set(rows.tolist())) == found and set(rows.tolist()) <= set(open_rows.tolist())
        # No node is ever without an open child, so a beam is lost only to a better one.
        assert found == min(width, len(open_rows))
        assert (result.rows[p][found:] == -1).all() and np.isneginf(result.logprobs[p][found:]).all()
        assert (np.diff(result.logprobs[p][:found]) <= 0).all()
        np.testing.assert_allclose(result.logprobs[p][:found], brute[p][rows], atol=1e-4)
        if width >= len(items):
            np.testing.assert_allclose(result.logprobs[p][:found], -np.sort(-brute[p][open_rows]), atol=1e-4)


def test_no_generation_setting_of_the_model_matters(engine):
    rng = np.random.default_rng(0)
    items = [(a, b) for a in range(5) for b in range(5)]
    params = BeamParams(make_prompts(rng, 3), make_trie(items), 7, [NONE] * 3)
    before = engine.beam_search("", params)
    odd = engine.model("").lm.model.generation_config
    saved = odd.to_dict()
    odd.update(
        do_sample=True, temperature=0.01, top_p=0.1, top_k=1, num_beams=3, length_penalty=-5.0, repetition_penalty=9.0,
        no_repeat_ngram_size=1, bad_words_ids=[[1], [2]], suppress_tokens=[0, 3], forced_eos_token_id=4,
        max_length=1, max_new_tokens=1, min_new_tokens=1, renormalize_logits=True,
    )  # fmt: skip
    try:
        after = engine.beam_search("", params)
    finally:
        odd.update(**saved)
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.logprobs, after.logprobs)


def test_a_malformed_trie_is_refused() -> None:
    # root -1-> a, root -4-> leaf of row 2; a -2-> row 0, a -3-> row 1
    good = {
        "edge_starts_N1": [0, 2, 4, 4, 4, 4],
        "edge_tokens_E": [1, 4, 2, 3],
        "row_starts_N": [0, 0, 2, 0, 1],
        "row_ends_N": [3, 2, 3, 1, 2],
        "rows_I": [0, 1, 2],
    }

    def check(**change: list[int]) -> object:
        return checked_trie(**{name: np.asarray(a, dtype=np.int64) for name, a in {**good, **change}.items()})

    built = make_trie([(1, 2), (1, 3), (4,)])
    for name, array in good.items():
        np.testing.assert_array_equal(getattr(built, name), array)
    assert check() is not None and built.num_levels == 2
    for message, change in (
        ("has no items", {"rows_I": []}),
        ("do not fit", {"row_ends_N": [3, 2, 3, 1]}),
        ("not ascending from 0", {"edge_starts_N1": [0, 2, 4, 3, 4, 4]}),
        ("one edge for each node", {"edge_tokens_E": [1, 4, 2]}),
        ("before its parent", {"edge_starts_N1": [0, 1, 1, 2, 4, 4]}),
        ("ascending within a node", {"edge_tokens_E": [4, 1, 2, 3]}),
        ("ascending within a node", {"edge_tokens_E": [1, 4, 2, 2]}),
        ("root does not cover", {"row_ends_N": [2, 2, 3, 1, 2]}),
        ("under its children", {"row_starts_N": [0, 0, 1, 0, 1]}),
        ("under its children", {"row_ends_N": [3, 2, 3, 2, 2]}),
        ("every item once", {"rows_I": [0, 1, 1]}),
        ("every item once", {"rows_I": [0, 1, 3]}),
        ("same sequence", {"edge_starts_N1": [0, 2, 2, 2], "edge_tokens_E": [1, 4], "row_starts_N": [0, 0, 2],
                           "row_ends_N": [3, 2, 3]}),
        ("sequence is empty", {"edge_starts_N1": [0, 0], "edge_tokens_E": [], "row_starts_N": [0], "row_ends_N": [1],
                               "rows_I": [0]}),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=message):
            check(**change)


def test_impossible_requests_are_refused(engine):
    trie = make_trie([(1, 2), (1, 3)])
    good = BeamParams([np.asarray([1], dtype=np.int32)], trie, 1, [NONE])
    for match, change in (
        ("beam_width", {"beam_width": 0}),
        ("vocabulary", {"trie": make_trie([(1, VOCAB)])}),
        ("excluded rows of prompt 0", {"excluded": [np.asarray([2])]}),
    ):
        with pytest.raises(InvalidRequest, match=match):
            engine.beam_search("", dataclasses.replace(good, **change))
