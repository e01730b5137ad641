"""Sampling: parity with transformers' generate(), with Forward's log-probs, and with itself under other batching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import forward_spec, permutation_constraint, sample_params
from conftest import VOCAB
from gr2_worker.errors import Cancelled, InvalidRequest
from gr2_worker.generation import prefill
from gr2_worker.types import GroupBatch


def make_prompts(seed, count, low=3, high=20):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, size=int(rng.integers(low, high))).astype(np.int32) for _ in range(count)]


def draw(engine, params):
    items = [i for part in engine.sample("", params) for i in part]
    assert len(items) == len(params.prompts) * params.num_samples
    return {(i.prompt, i.sample): i for i in items}


def make_batch(prompts, drawn, num_samples):
    tokens, lengths = [], []
    for p, prompt in enumerate(prompts):
        tokens.append(prompt)
        for s in range(num_samples):
            tokens.append(drawn[p, s].tokens)
            lengths.append(len(drawn[p, s].tokens))
    return GroupBatch(
        np.concatenate(tokens).astype(np.int32),
        np.asarray([len(p) for p in prompts], dtype=np.int64),
        np.full(len(prompts), num_samples, dtype=np.int64),
        np.asarray(lengths, dtype=np.int64),
    )


def make_constraint(prompts, seed=0, items=4, trigger=(), scale=0.7, free=(), max_sequences=0):
    """Random semantic IDs of 3 codes from a small alphabet, so that prefixes are shared."""
    rng = np.random.default_rng(seed)
    counts, tokens, prior = [], [], []
    for p in range(len(prompts)):
        count = 0 if p in free else items
        chosen = rng.choice(27, size=count, replace=False)
        counts.append(count)
        tokens += [[10 + c // 9, 20 + c // 3 % 3, 30 + c % 3] for c in chosen.tolist()]
        prior += rng.normal(size=count).tolist()
    return permutation_constraint(
        np.asarray(counts, dtype=np.int64),
        np.full(len(tokens), 3, dtype=np.int64),
        np.asarray(tokens, dtype=np.int32).reshape(-1),
        np.asarray(prior, dtype=np.float32),
        scale=scale,
        trigger=trigger,
        separator=(40,),
        terminator=(41, 42),
        max_sequences=max_sequences,
    )


@pytest.mark.parametrize("model_type", ["qwen3", "llama", "qwen2"])
def test_greedy_equals_generate(make_engine, model_type):
    engine = make_engine(model_type=model_type, trainable=False)
    prompts = make_prompts(0, 5)
    drawn = draw(engine, sample_params(prompts, 1, 24, temperature=0.0, stop_tokens=(7,)))
    model = engine.model("").lm.model
    model.set_attn_implementation("sdpa")
    for p, prompt in enumerate(prompts):
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=7, pad_token_id=0
        )
        np.testing.assert_array_equal(drawn[p, 0].tokens, out[0, len(prompt) :].numpy())
        assert drawn[p, 0].stopped == (7 in drawn[p, 0].tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
@pytest.mark.parametrize("kind", ["free", "constrained", "trigger", "mixed"])
def test_sampler_logprobs_equal_forward(engine, temperature, kind):
    prompts = make_prompts(1, 6)
    constraint = {
        "free": None,
        "constrained": make_constraint(prompts),
        "trigger": make_constraint(prompts, trigger=(5,), scale=2.0),
        "mixed": make_constraint(prompts, free=(1, 4), max_sequences=2),
    }[kind]
    params = sample_params(prompts, 3, 40, temperature=temperature, seed=3, stop_tokens=(9,), constraint=constraint)
    drawn = draw(engine, params)
    batch = make_batch(prompts, drawn, 3)
    got = engine.forward("", forward_spec(batch, constraint, temperature=temperature or 1.0)).logprobs
    want = np.concatenate([drawn[p, s].logprobs for p in range(6) for s in range(3)])
    np.testing.assert_allclose(got, want, atol=2e-5)
    if kind == "constrained":
        assert all(i.stopped and len(i.tokens) == 4 * 3 + 3 + 2 for i in drawn.values())


def test_result_does_not_depend_on_batching(engine):
    prompts = make_prompts(2, 7)
    constraint = make_constraint(prompts, trigger=(5,))

    def go(bound):
        return draw(
            engine,
            sample_params(prompts, 4, 30, seed=5, stop_tokens=(9,), constraint=constraint, max_batch_tokens=bound),
        )

    whole, again, split, tiny = go(100_000), go(100_000), go(200), go(1)
    for key, item in whole.items():
        for other in (split[key], tiny[key]):
            np.testing.assert_array_equal(item.tokens, other.tokens)
            np.testing.assert_allclose(item.logprobs, other.logprobs, atol=1e-5)
        np.testing.assert_array_equal(item.logprobs, again[key].logprobs)  # bit-identical
    assert len({tuple(i.tokens.tolist()) for i in whole.values()}) > 10


def test_frequencies_follow_the_model(engine):
    prompt = make_prompts(3, 1)
    drawn = draw(engine, sample_params(prompt, 4000, 1, temperature=1.0, seed=1))
    counts = np.bincount([int(i.tokens[0]) for i in drawn.values()], minlength=VOCAB) / 4000
    batch = GroupBatch(
        np.concatenate([prompt[0], np.arange(VOCAB, dtype=np.int32)]),
        np.asarray([len(prompt[0])]),
        np.asarray([VOCAB]),
        np.ones(VOCAB, dtype=np.int64),
    )
    probs = np.exp(engine.forward("", forward_spec(batch)).logprobs)
    assert probs.sum() == pytest.approx(1, abs=1e-4)
    assert np.abs(counts - probs).max() < 5 * np.sqrt(0.25 / 4000)


def test_top_p_keeps_the_nucleus(engine):
    prompt = make_prompts(3, 1)
    drawn = draw(engine, sample_params(prompt, 500, 1, temperature=1.0, top_p=0.5, seed=1))
    batch = GroupBatch(
        np.concatenate([prompt[0], np.arange(VOCAB, dtype=np.int32)]),
        np.asarray([len(prompt[0])]),
        np.asarray([VOCAB]),
        np.ones(VOCAB, dtype=np.int64),
    )
    probs = np.exp(engine.forward("", forward_spec(batch)).logprobs)
    order = np.argsort(-probs)
    nucleus = order[: int(np.searchsorted(np.cumsum(probs[order]), 0.5)) + 1]
    seen = {int(i.tokens[0]): float(i.logprobs[0]) for i in drawn.values()}
    assert set(seen) <= set(nucleus.tolist())
    for token, logprob in seen.items():
        assert logprob == pytest.approx(np.log(probs[token] / probs[nucleus].sum()), abs=1e-4)


def test_drawn_tokens_are_reported_as_they_are_drawn(engine):
    prompts = make_prompts(3, 3)
    token_wise = make_constraint(prompts, trigger=(5,))
    for constraint in (None, token_wise, replace(token_wise, whole_sequences=True, max_free_tokens=6)):
        told = {}

        def watch(drawn, told=told):
            for t in drawn:
                tokens = told.setdefault((t.prompt, t.sample), [])
                assert t.index == len(tokens)  # one by one, in order
                tokens.append(t.token)

        params = sample_params(prompts, 2, 40, seed=5, stop_tokens=(9,), constraint=constraint)
        items = [i for part in engine.sample("", params, watch=watch) for i in part]
        assert len(items) == 6
        for item in items:
            free = told[item.prompt, item.sample]
            assert item.tokens.tolist()[: len(free)] == free
            if constraint is None or not constraint.whole_sequences:
                assert len(free) == len(item.tokens)
            else:
                assert free[-1] in (5, 9)  # up to the trigger: the ranking comes whole; or a stop token


def test_cancel_between_steps(engine):
    calls = 0

    def check():
        nonlocal calls
        calls += 1
        if calls > 5:
            raise Cancelled("gone")

    with pytest.raises(Cancelled):
        list(engine.sample("", sample_params(make_prompts(0, 2), 2, 50), check))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "model_type", ["qwen3", "gemma", "gemma2"]
)  # the worker's own decoder, and transformers' modules
def test_the_common_prefix_is_computed_once(make_engine, monkeypatch, model_type, temperature):
    engine = make_engine(model_type=model_type, trainable=False)
    rng = np.random.default_rng(5)
    instructions = rng.integers(0, VOCAB, size=70)
    own = [rng.integers(0, VOCAB, size=n) for n in (12, 1, 9, 9)]
    own[3][:4] = own[2][:4]  # two prompts agree for longer than all do
    prompts = [np.concatenate([instructions, rest]).astype(np.int32) for rest in own]
    params = sample_params(prompts, 3, 20, temperature=temperature, seed=2, stop_tokens=(7, 9))
    fed = []
    whole = engine.model("").lm.model.get_decoder().embed_tokens
    whole.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0].shape))
    shared = draw(engine, params)
    assert fed[:2] == [(1, 70), (4, 12)]  # then the prompts' own tokens, padded
    monkeypatch.setattr(prefill, "MIN_COMMON", 71)
    fed.clear()
    apart = draw(engine, params)
    assert fed[0] == (4, 82)
    for key, item in apart.items():
        np.testing.assert_array_equal(shared[key].tokens, item.tokens)
        np.testing.assert_allclose(shared[key].logprobs, item.logprobs, atol=2e-5)


def test_the_common_prefix_leaves_every_prompt_a_token():
    a = np.arange(100, dtype=np.int32)
    other = np.concatenate([a[:80], [0, 1]]).astype(np.int32)
    assert prefill.common_length([a, a]) == 99
    assert prefill.common_length([a, a[:70]]) == 69
    assert prefill.common_length([a, other, a]) == 80
    assert prefill.common_length([a]) == 0
    assert prefill.common_length([a, a[:40]]) == 0  # too short to pay


def test_too_long_is_refused(engine):
    with pytest.raises(InvalidRequest, match="256 positions"):
        list(engine.sample("", sample_params(make_prompts(0, 2), 2, 5000)))
