"""A prefix cache changes no result, only what is computed; and it never outlives the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import forward_spec, permutation_constraint, sample_params
from conftest import VOCAB, spec
from gr2_worker.engine import Engine
from gr2_worker.errors import InvalidRequest, ResourceExhausted
from gr2_worker.model.prefix_cache import BLOCK
from gr2_worker.types import GroupBatch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_families import FAMILIES as LANGUAGE_MODELS

FAMILIES = {**LANGUAGE_MODELS, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}}
# Two layers, two key-value heads of 8: keys and values per token in float32.
TOKEN_BYTES = 2 * 2 * 2 * 8 * 4
ROOM = 4096 * TOKEN_BYTES


def engines(family="qwen3", tokens=4096, **extra):
    """The same frozen model with a cache of so many tokens, and without one."""
    pair = []
    for size in (tokens * TOKEN_BYTES, 0):
        engine = Engine(torch.device("cpu"))
        plain = spec(family, trainable=False, **{**FAMILIES[family], **extra})
        engine.load_model("", replace(plain, prefix_cache_bytes=size))
        pair.append(engine)
    return pair


def words(rng, length):
    return rng.integers(0, VOCAB, size=length).astype(np.int32)


def groups(prompts, responses):
    """Each prompt with its own responses."""
    tokens = [part for p, own in zip(prompts, responses, strict=True) for part in (p, *own)]
    return GroupBatch(
        np.concatenate(tokens).astype(np.int32),
        np.asarray([len(p) for p in prompts]),
        np.asarray([len(own) for own in responses]),
        np.asarray([len(r) for own in responses for r in own]),
    )


def candidates(rng, count=5, length=3):
    return [words(rng, length) for _ in range(count)]


def same_scores(pair, batch, micro_batch_tokens=4096):
    """Scores with the cache equal those without; returns the tokens reused."""
    cached, plain = pair
    before = cached.model("").reused_tokens
    asked = forward_spec(batch, want_entropy=True, micro_batch_tokens=micro_batch_tokens)
    mine, other = cached.forward("", asked), plain.forward("", asked)
    for got, want in ((mine.logprobs, other.logprobs), (mine.entropy, other.entropy)):
        np.testing.assert_allclose(got, want, atol=1e-5)
    return cached.model("").reused_tokens - before


@pytest.mark.parametrize("family", FAMILIES)
def test_returning_users_of_every_family(family):
    """Beginnings of several lengths, longer than the windows; responses hang on what is cached and on what is not."""
    pair = engines(family)
    rng = np.random.default_rng(0)
    histories = [words(rng, n) for n in (16, 33, 50, 7)]
    assert same_scores(pair, groups(histories, [candidates(rng) for _ in histories])) == 0
    # The last token of a prompt is always computed: of 16 tokens one block is left, which is too short to be worth it.
    assert same_scores(pair, groups(histories, [candidates(rng) for _ in histories])) == 0 + 32 + 48 + 0
    longer = [np.concatenate([h, words(rng, n)]) for h, n in zip(histories, (1, 9, 3, 30), strict=True)]
    assert same_scores(pair, groups(longer, [candidates(rng, n) for n in (1, 2, 1, 4)])) == 16 + 32 + 48 + 0
    # A shorter prompt than the one held, and two that part from one another in the middle.
    parted = np.concatenate([longer[1][:30], words(rng, 20)])
    assert same_scores(pair, groups([longer[1][:40], parted], [candidates(rng), candidates(rng, 1)])) == 32 + 24


def test_pieces_of_a_request_that_does_not_fit_at_once():
    pair = engines()
    rng = np.random.default_rng(1)
    histories = [words(rng, n) for n in (40, 70, 24, 90)]
    for reused in (0, 32 + 64 + 16 + 88):
        batch = groups(histories, [candidates(rng, 8) for _ in histories])
        assert same_scores(pair, batch, micro_batch_tokens=64) == reused


def test_whole_sequences_and_constraints_use_it_too():
    cached, plain = engines()
    rng = np.random.default_rng(2)
    prompt = words(rng, 45)
    sequences = [np.asarray([a, b], dtype=np.int32) for a, b in ((1, 2), (1, 3), (4, 5), (6, 7))]
    for whole in (True, False):
        constraint = permutation_constraint(
            np.asarray([4]),
            np.full(4, 2),
            np.concatenate(sequences),
            np.zeros(4, np.float32),
            1.0,
            whole_sequences=whole,
        )
        order = np.concatenate([sequences[j] for j in rng.permutation(4)])
        asked = forward_spec(groups([prompt], [[order]]), constraint)
        for _ in range(2):
            np.testing.assert_allclose(cached.forward("", asked).logprobs, plain.forward("", asked).logprobs, atol=1e-5)
    assert cached.model("").reused_tokens == 3 * 40


def test_the_oldest_is_evicted_and_memory_does_not_grow():
    """Room for 96 tokens: three prompts of 32."""
    pair = engines(tokens=96)
    held = pair[0].model("").prefixes
    rng = np.random.default_rng(3)
    prompts = [words(rng, 33) for _ in range(4)]

    def ask(*which):
        return same_scores(pair, groups([prompts[i] for i in which], [candidates(rng) for _ in which]))

    size = held._keys_NLKD.numel()
    assert [ask(0), ask(1), ask(2)] == [0, 0, 0]
    assert ask(0) == 32  # now 1 is the oldest
    assert ask(3) == 0
    assert len(held) == 96
    assert [ask(2), ask(0), ask(3)] == [32, 32, 32]
    assert ask(1) == 0
    assert held._keys_NLKD.numel() == size
    # A request that needs all of it, and more: its own blocks are never evicted.
    assert ask(0, 1, 2, 3) == 32 + 32 + 32
    assert len(held) == 96


def test_a_prompts_end_is_evicted_before_its_start():
    pair = engines(tokens=48)
    rng = np.random.default_rng(4)
    long = words(rng, 41)
    same_scores(pair, groups([long], [candidates(rng)]))  # 40 of 48
    same_scores(pair, groups([words(rng, 25)], [candidates(rng)]))  # 24 more: the last 16 of the first go
    assert same_scores(pair, groups([long], [candidates(rng)])) == 24


def test_new_weights_empty_it(tmp_path):
    cached, _ = engines()
    other = Engine(torch.device("cpu"))
    other.load_model("", spec(seed=2))
    other.save_state("", str(tmp_path / "state"), False)
    rng = np.random.default_rng(5)
    batch = groups([words(rng, 60)], [candidates(rng)])
    before = cached.forward("", forward_spec(batch)).logprobs
    cached.load_state("", str(tmp_path / "state"), False)
    assert len(cached.model("").prefixes) == 0
    after = cached.forward("", forward_spec(batch)).logprobs
    assert cached.model("").reused_tokens == 0
    assert not np.allclose(before, after, atol=1e-2)
    np.testing.assert_allclose(after, other.forward("", forward_spec(batch)).logprobs, atol=1e-5)


def test_impossible_input_is_refused():
    engine = Engine(torch.device("cpu"))
    with pytest.raises(InvalidRequest, match="trainable = false"):
        engine.load_model("", replace(spec(trainable=True), prefix_cache_bytes=ROOM))
    frozen = spec(trainable=False)
    with pytest.raises(
        InvalidRequest, match=f"= 100 is too little for 8 tokens of this model, which take {8 * TOKEN_BYTES}"
    ):
        engine.load_model("", replace(frozen, prefix_cache_bytes=100))
    with pytest.raises(ResourceExhausted, match="lower prefix_cache_bytes"):
        engine.load_model("", replace(frozen, prefix_cache_bytes=1 << 60))
    engine.load_model("", frozen)
    assert engine.model("").prefixes is None


def test_a_failed_request_leaves_nothing_half_written(monkeypatch):
    pair = engines()
    rng = np.random.default_rng(6)
    batch = groups([words(rng, 60)], [candidates(rng)])
    held = pair[0].model("").prefixes
    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", _failing(torch.from_numpy, at=lambda a: len(a) == 56))
        with pytest.raises(OSError):
            pair[0].forward("", forward_spec(batch))
    assert len(held) == 0
    assert [same_scores(pair, batch), same_scores(pair, batch)] == [0, 56]


def _failing(function, at):
    def called(argument):
        if at(argument):
            raise OSError("on purpose")
        return function(argument)

    return called


# ---------------------------------------------------------------- sampling


def draw(engine, **params):
    items = [i for part in engine.sample("", sample_params(**params)) for i in part]
    return sorted(items, key=lambda i: (i.prompt, i.sample))


def same_draws(pair, **params):
    """Responses with the cache equal those without; returns the tokens reused."""
    cached, plain = pair
    before = cached.model("").reused_tokens
    for got, want in zip(draw(cached, **params), draw(plain, **params), strict=True):
        assert (got.prompt, got.sample, got.tokens.tolist()) == (want.prompt, want.sample, want.tokens.tolist())
        np.testing.assert_allclose(got.logprobs, want.logprobs, atol=3e-5)
    return cached.model("").reused_tokens - before


def test_a_cache_too_small_for_the_common_prefix_saves_nothing():
    pair = engines(tokens=8)
    rng = np.random.default_rng(10)
    begin = words(rng, 70)
    prompts = [np.concatenate([begin, words(rng, n)]) for n in (3, 9)]
    for _ in range(2):
        assert same_draws(pair, prompts=prompts, num_samples=1, max_new_tokens=4, seed=1) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_after_cached_prefixes(family):
    pair = engines(family)
    rng = np.random.default_rng(7)
    begin = words(rng, 70)  # long enough to be computed once for all
    prompts = [np.concatenate([begin, words(rng, n)]) for n in (3, 9, 20)]
    settings = {"num_samples": 2, "max_new_tokens": 10, "seed": 1}
    # All three begin with the same 70 tokens: 64 are held when the prompts are looked up, having been computed once.
    assert same_draws(pair, prompts=prompts, **settings) == 3 * 64 - 70
    assert same_draws(pair, prompts=prompts, **settings) == 72 + 72 + 88
    others = [words(rng, 40), prompts[2][:83], np.concatenate([prompts[1], words(rng, 11)]), words(rng, 5)]
    assert same_draws(pair, prompts=others, **settings) == 0 + 80 + 72 + 0
    assert (
        same_draws(pair, prompts=others, **{**settings, "temperature": 0.0}, max_batch_tokens=150) == 32 + 80 + 88 + 0
    )


def test_a_ranking_after_reasoning_does_not_compute_its_prompt_again(monkeypatch):
    cached, plain = engines()
    rng = np.random.default_rng(8)
    sequences = [np.asarray([a, b], dtype=np.int32) for a, b in ((1, 2), (1, 3), (4, 5), (6, 7))]
    constraint = permutation_constraint(
        np.asarray([4, 4]),
        np.full(8, 2),
        np.concatenate([*sequences, *sequences]),
        np.zeros(8, np.float32),
        1.0,
        trigger=(9,),
        terminator=(8,),
        whole_sequences=True,
        max_free_tokens=4,
    )
    asked = {
        "prompts": [words(rng, 50), words(rng, 29)],
        "num_samples": 1,
        "max_new_tokens": 20,
        "temperature": 0.0,
        "constraint": constraint,
    }
    fed = []
    hidden = cached.model("").lm.hidden
    monkeypatch.setattr(
        cached.model("").lm,
        "hidden",
        lambda ids, *a, **k: (k.get("past") and fed.append(ids.numel())) or hidden(ids, *a, **k),
    )
    assert same_draws((cached, plain), **asked) == 0  # a prompt counts once, when it comes
    assert sum(fed[1:]) < 2 * (2 + 5 + 5 + 8)  # ends of the prompts, reasonings, sequences
    assert same_draws((cached, plain), **asked) == 48 + 24
    at_once = replace(constraint, trigger=(), max_free_tokens=0)
    assert same_draws((cached, plain), **{**asked, "constraint": at_once}) == 48 + 24


# ---------------------------------------------------------------- anything at all

PAIR = engines("gemma3_text", tokens=160)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_sequence_of_requests_scores_as_without_a_cache(data):
    """Prompts are built from three stories, cut and continued anywhere; the cache of 160 tokens is used throughout."""
    rng = np.random.default_rng(9)
    stories = [words(rng, 80) for _ in range(3)]
    piece = st.tuples(st.integers(0, 2), st.integers(1, 80), st.integers(0, 2), st.integers(0, 20))
    prompts = [
        np.concatenate([stories[a][:n], stories[b][40 : 40 + m]])
        for a, n, b, m in data.draw(st.lists(piece, min_size=1, max_size=4))
    ]
    responses = [candidates(rng, data.draw(st.integers(1, 4))) for _ in prompts]
    reused = same_scores(PAIR, groups(prompts, responses), data.draw(st.sampled_from([32, 4096])))
    assert reused % BLOCK == 0 and 0 <= reused < sum(map(len, prompts))
    assert len(PAIR[0].model("").prefixes) <= 160
