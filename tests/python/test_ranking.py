"""Choosing among whole sequences: against a plain Plackett-Luce reference, forward, gradient and sampling."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import EVERYTHING, forward_spec, sample_params, train_spec
from gr2_worker.errors import InvalidRequest
from gr2_worker.scoring.plackett_luce import choice_logprobs, draw_order
from gr2_worker.types import GroupBatch
from test_sampler import draw, make_batch, make_constraint, make_prompts


def whole(prompts, **extra):
    return replace(make_constraint(prompts, **extra), whole_sequences=True)


def entry_sequences(constraint, entry):
    start = int(constraint.sequence_counts[:entry].sum())
    count = int(constraint.sequence_counts[entry])
    return constraint.sequence_tokens.reshape(-1, 3)[start : start + count], constraint.prior[start : start + count]


def reference_scores(engine, constraint, entry, context, temperature):
    """s_j by one unpacked Forward a sequence."""
    spelled, prior = entry_sequences(constraint, entry)
    out = []
    for tokens, p in zip(spelled, prior, strict=True):
        one = np.ones(1, dtype=np.int64)
        batch = GroupBatch(
            np.concatenate([context, tokens]).astype(np.int32), one * len(context), one, one * len(tokens)
        )
        logprobs = engine.forward("", forward_spec(batch)).logprobs
        out.append((constraint.scale * logprobs.sum() + p) / temperature)
    return np.asarray(out)


def reference_logprobs(scores, order):
    left = list(range(len(scores)))
    out = []
    for j in order:
        s = np.asarray([scores[i] for i in left])
        out.append(scores[j] - (s.max() + np.log(np.exp(s - s.max()).sum())))
        left.remove(j)
    return out


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("trigger", [(), (7,)])
def test_sampled_rankings_have_the_reference_log_probs(engine, temperature, trigger):
    prompts = make_prompts(1, 3)
    constraint = replace(whole(prompts, trigger=trigger), max_free_tokens=6)
    params = sample_params(prompts, 3, 40, temperature=temperature, seed=5, constraint=constraint)
    drawn = draw(engine, params)
    for (p, _), item in drawn.items():
        assert item.stopped
        tokens = item.tokens.tolist()
        start = tokens.index(7) + 1 if trigger else 0
        context = np.concatenate([prompts[p], item.tokens[:start]])
        scores = reference_scores(engine, constraint, p, context, temperature)
        spelled = [tuple(s) for s in entry_sequences(constraint, p)[0].tolist()]
        places = [start + 4 * k for k in range(len(spelled))]
        order = [spelled.index(tuple(tokens[at : at + 3])) for at in places]
        assert sorted(order) == list(range(len(spelled)))
        np.testing.assert_allclose(item.logprobs[places], reference_logprobs(scores, order), atol=2e-5)
        others = np.setdiff1d(np.arange(start, len(tokens)), places)
        assert (item.logprobs[others] == 0).all()
        assert tokens[-2:] == [41, 42]


@pytest.mark.parametrize("trigger", [(), (7,)])
def test_sampler_log_probs_equal_forward(engine, trigger):
    prompts = make_prompts(2, 4)
    constraint = replace(whole(prompts, trigger=trigger, free=(2,)), max_free_tokens=5)
    params = sample_params(prompts, 2, 30, temperature=0.8, seed=3, constraint=constraint, stop_tokens=(9,))
    drawn = draw(engine, params)
    batch = make_batch(prompts, drawn, 2)
    logprobs = engine.forward("", forward_spec(batch, constraint, temperature=0.8)).logprobs
    sampled = np.concatenate([drawn[p, s].logprobs for p in range(len(prompts)) for s in range(2)])
    np.testing.assert_allclose(logprobs, sampled, atol=2e-5)


def test_micro_batches_do_not_change_loss_or_gradient(engine):
    prompts = make_prompts(3, 6)
    constraint = replace(whole(prompts, trigger=(7,)), max_free_tokens=4)
    drawn = draw(engine, sample_params(prompts, 2, 40, temperature=1.0, seed=1, constraint=constraint))
    batch = make_batch(prompts, drawn, 2)
    weights = np.random.default_rng(0).random(batch.num_targets).astype(np.float32)
    model = engine.model("").lm.model
    found = []
    for budget in (40, 100_000):
        result = engine.forward_backward(
            "", "", train_spec(batch, weights, EVERYTHING, constraint, micro_batch_tokens=budget, want_logprobs=True)
        )
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        engine.model("").optimizer.zero_grad()
        found.append((result.loss, gradient.clone(), result.logprobs))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(found[0][2], found[1][2], atol=1e-5)
    assert found[0][0] == pytest.approx(-float((weights * found[0][2]).sum()), rel=1e-4)


def test_gradient_of_a_choice_equals_finite_differences(engine):
    prompts = make_prompts(4, 1)
    constraint = whole(prompts)
    item = draw(engine, sample_params(prompts, 1, 40, temperature=1.0, seed=2, constraint=constraint))[0, 0]
    batch = make_batch(prompts, {(0, 0): item}, 1)
    weights = np.ones(batch.num_targets, dtype=np.float32)
    parameter = engine.model("").lm.model.model.norm.weight
    engine.forward_backward("", "", train_spec(batch, weights, EVERYTHING, constraint))
    gradient = parameter.grad.clone()
    step = 1e-2
    for i in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[i] += sign * step
            values.append(-engine.forward("", forward_spec(batch, constraint)).logprobs.sum())
            with torch.no_grad():
                parameter[i] -= sign * step
        assert float(gradient[i]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-2, rel=2e-2)


def test_the_trigger_is_forced_when_the_free_part_has_used_up_its_tokens(engine):
    prompts = make_prompts(5, 3)
    constraint = replace(whole(prompts, trigger=(50, 51)), max_free_tokens=4)
    for item in draw(engine, sample_params(prompts, 2, 60, temperature=1.0, seed=8, constraint=constraint)).values():
        tokens = item.tokens.tolist()
        at = tokens.index(50)
        assert at <= 4 and tokens[at + 1] == 51 and item.stopped
        if at == 4:
            assert (item.logprobs[4:6] == 0).all()


def test_greedy_takes_the_best_scores_first(engine):
    prompts = make_prompts(6, 3)
    constraint = whole(prompts, max_sequences=2)
    for (p, _), item in draw(engine, sample_params(prompts, 1, 40, temperature=0.0, constraint=constraint)).items():
        scores = reference_scores(engine, constraint, p, prompts[p], 1.0)
        best = np.argsort(-scores, kind="stable")[:2]
        spelled = entry_sequences(constraint, p)[0]
        assert item.tokens.tolist() == [*spelled[best[0]], 40, *spelled[best[1]], 41, 42]


def test_draws_follow_plackett_luce():
    scores = np.asarray([0.5, -0.3, 1.2, -np.inf])
    rng = np.random.default_rng(0)
    counts: dict[tuple[int, ...], int] = {}
    n = 20_000
    for _ in range(n):
        order = tuple(draw_order(scores, rng.random(4), 3).tolist())
        counts[order] = counts.get(order, 0) + 1
    for order in itertools.permutations(range(3)):
        expected = math.exp(sum(reference_logprobs(scores[:3], order)))
        assert counts.get(order, 0) / n == pytest.approx(expected, abs=4 * math.sqrt(expected / n))


def test_choice_log_probs_of_padded_and_partial_orders():
    scores = torch.tensor([[0.5, -0.3, 1.2], [0.1, 0.2, -torch.inf]])
    logprobs, entropy = choice_logprobs(scores, torch.tensor([[2, 0, 1], [1, 0, -1]]))
    np.testing.assert_allclose(logprobs[0], reference_logprobs([0.5, -0.3, 1.2], [2, 0, 1]), atol=1e-6)
    np.testing.assert_allclose(logprobs[1, :2], reference_logprobs([0.1, 0.2], [1, 0]), atol=1e-6)
    assert logprobs[1, 2] == 0 and entropy[1, 2] == 0 and torch.isfinite(entropy).all()


def test_a_sequence_cut_short_is_refused(engine):
    prompts = make_prompts(7, 1)
    constraint = whole(prompts)
    first = entry_sequences(constraint, 0)[0][0]
    one = np.ones(1, dtype=np.int64)
    batch = GroupBatch(np.concatenate([prompts[0], first[:2]]).astype(np.int32), one * len(prompts[0]), one, one * 2)
    with pytest.raises(InvalidRequest, match="ends inside a sequence"):
        engine.forward("", forward_spec(batch, constraint))
