"""Properties of the permutation automaton."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from asked import forward_spec, permutation_constraint, sample_params
from conftest import VOCAB, spec
from gr2_worker.engine import Engine
from gr2_worker.errors import InvalidRequest
from gr2_worker.scoring.constraints import Automaton, compile_constraint
from gr2_worker.types import GroupBatch
from hypothesis import given, settings
from hypothesis import strategies as st


def constraint(sequences, prior=None, **extra):
    """A constraint of one entry."""
    fields = {"scale": 1.0, "separator": (40,), "terminator": (41,), **extra}
    return permutation_constraint(
        np.asarray([len(sequences)]),
        np.asarray([len(s) for s in sequences], dtype=np.int64),
        np.asarray([t for s in sequences for t in s], dtype=np.int32),
        np.asarray(prior if prior is not None else [0.0] * len(sequences), dtype=np.float32),
        **fields,
    )


# Distinct sequences of one length are prefix-free, and so are those that end in a token of their own.
equal_lengths = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.tuples(*[st.integers(0, 3)] * n), min_size=1, max_size=7, unique=True)
)
mixed_lengths = st.lists(
    st.lists(st.integers(0, 2), max_size=3).map(lambda s: (*s, 9)), min_size=1, max_size=7, unique=True
)
sequence_sets = st.one_of(equal_lengths, mixed_lengths)


@settings(max_examples=150, deadline=None)
@given(
    sequence_sets,
    st.integers(0, 2**32 - 1),
    st.integers(0, 8),
    st.sampled_from([(), (40,), (40, 2)]),
    st.sampled_from([(), (41,), (1, 41)]),
    st.sampled_from([(), (7,), (7, 7, 8)]),
)
def test_any_walk_spells_a_valid_permutation(sequences, seed, limit, separator, terminator, trigger):
    compiled = compile_constraint(
        constraint(
            sequences, separator=separator, terminator=terminator, trigger=trigger, max_sequences=limit
        ), 1, VOCAB,
    )  # fmt: skip
    automaton = Automaton(compiled, np.zeros(1, dtype=np.int64))
    rng = np.random.default_rng(seed)
    for token in trigger:
        assert not automaton.allowed().constrained_R[0]
        automaton.advance(np.asarray([token], dtype=np.int32))
    walked: list[int] = []
    while not automaton.done_R[0]:
        allowed = automaton.allowed()
        count = int(allowed.count_R[0])
        assert allowed.constrained_R[0] and count >= 1
        options = [int(allowed.forced_R[0])] if count == 1 else [t for t in allowed.tokens_RJ[0].tolist() if t >= 0]
        assert len(options) == len(set(options)) == count
        walked.append(int(rng.choice(options)))
        wrong = next(t for t in range(VOCAB) if t not in options)
        assert not automaton.select(np.zeros(1, dtype=np.int64)).advance(np.asarray([wrong], dtype=np.int32))[0]
        assert automaton.advance(np.asarray(walked[-1:], dtype=np.int32))[0]
    assert not automaton.advance(np.asarray([0], dtype=np.int32))[0]
    expected = min(limit or len(sequences), len(sequences))
    body = walked[: len(walked) - len(terminator)]
    assert tuple(walked[len(body) :]) == terminator
    emitted: list[tuple[int, ...]] = []
    at = 0
    while at < len(body):
        if emitted:
            assert tuple(body[at : at + len(separator)]) == separator
            at += len(separator)
        emitted.append(next(s for s in sequences if tuple(body[at : at + len(s)]) == s))
        at += len(emitted[-1])
    assert len(set(emitted)) == len(emitted) == expected


@pytest.fixture(scope="module")
def uniform_engine():
    """A model whose logits are all equal."""
    engine = Engine(torch.device("cpu"))
    engine.load_model("", spec())
    with torch.no_grad():
        engine.model("").lm.model.model.norm.weight.zero_()
    return engine


def test_prior_alone_reproduces_plackett_luce(uniform_engine):
    sequences = [(1, 2), (1, 3), (4, 2), (4, 4), (5, 1)]
    prior = np.asarray([0.3, -1.0, 2.0, 0.0, 0.7])
    rows = list(itertools.permutations(range(5)))
    responses = [
        [t for position, j in enumerate(row) for t in ((40,) if position else ()) + sequences[j]] + [41] for row in rows
    ]
    batch = GroupBatch(
        np.asarray([9, *itertools.chain.from_iterable(responses)], dtype=np.int32),
        np.asarray([1]), np.asarray([len(rows)]), np.full(len(rows), len(responses[0])),
    )  # fmt: skip
    logprobs = uniform_engine.forward("", forward_spec(batch, constraint(sequences, prior))).logprobs
    got = logprobs.reshape(len(rows), -1).astype(np.float64).sum(axis=1)
    want = []
    for row in rows:
        left, total = list(range(5)), 0.0
        for j in row:
            total += prior[j] - math.log(sum(math.exp(prior[k]) for k in left))
            left.remove(j)
        want.append(total)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.exp(got).sum() == pytest.approx(1, abs=1e-4)
    drawn = [
        item.tokens
        for part in uniform_engine.sample("", sample_params([np.asarray([9], dtype=np.int32)], 3000, 20,
                                                           constraint=constraint(sequences, prior)))
        for item in part
    ]  # fmt: skip
    first = np.asarray([sequences.index(tuple(d[:2].tolist())) for d in drawn])
    share = np.bincount(first, minlength=5) / len(drawn)
    np.testing.assert_allclose(share, np.exp(prior) / np.exp(prior).sum(), atol=0.04)


def test_huge_priors_do_not_overflow():
    compiled = compile_constraint(constraint([(1, 2), (1, 3), (4, 2)], [1e4, -1e4, 9990]), 1, VOCAB)
    allowed = Automaton(compiled, np.zeros(1, dtype=np.int64)).allowed()
    np.testing.assert_allclose(np.sort(allowed.bias_RJ[0])[1:], [9990, 1e4])


@pytest.mark.parametrize(
    ("sequences", "extra", "match"),
    [
        ([(1, 2), (1, 2)], {}, "equal to, or a prefix"),
        ([(1,), (1, 2)], {}, "equal to, or a prefix"),
        ([(1, VOCAB)], {}, "outside the vocabulary"),
        ([(1,)], {"scale": 0.0}, "scale"),
        ([(1,)], {"trigger": (-4,)}, "outside the vocabulary"),
    ],
)
def test_malformed_constraints(sequences, extra, match):
    with pytest.raises(InvalidRequest, match=match):
        compile_constraint(constraint(sequences, **extra), 1, VOCAB)


def test_violations_name_response_and_token(uniform_engine):
    cases = [([1, 2, 41, 5], 3), ([1, 2, 40, 1], 2), ([4], 0), ([1, 2, 41], None), ([1], None)]
    for response, token in cases:
        batch = GroupBatch(
            np.asarray([9, 1, *response], dtype=np.int32), np.asarray([1]), np.asarray([2]),
            np.asarray([1, len(response)]),
        )  # fmt: skip
        one = forward_spec(batch, constraint([(1, 2), (1, 3)], max_sequences=1))
        if token is None:
            uniform_engine.forward("", one)
        else:
            with pytest.raises(InvalidRequest, match=f"response 1 .* token {token} "):
                uniform_engine.forward("", one)
