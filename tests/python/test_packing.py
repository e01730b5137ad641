"""Packed = unpacked: log-probs and gradients, against transformers' own forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from asked import EVERYTHING, forward_spec, train_spec
from conftest import as_batch, random_batch, unpack
from gr2_worker.model import packing


def reference_logprobs(engine, batch):
    """One plain sequence at a time through the stock causal-LM forward."""
    model = engine.model("").lm.model
    out = []
    for prompt, response in unpack(batch):
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        out.append(logits[at, ids[0, len(prompt) :]])
    return torch.cat(out)


@pytest.mark.parametrize("model_type", ["qwen3", "llama", "qwen2"])
@pytest.mark.parametrize("micro_batch_tokens", [1, 64, 4096])
def test_forward_equals_unpacked(make_engine, model_type, micro_batch_tokens):
    engine = make_engine(model_type=model_type)
    batch = random_batch(3, groups=6)
    result = engine.forward("", forward_spec(batch, micro_batch_tokens=micro_batch_tokens, want_entropy=True))
    got, entropy = result.logprobs, result.entropy
    with torch.no_grad():
        want = reference_logprobs(engine, batch).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert entropy is not None and (entropy > 0).all()


@pytest.mark.parametrize("sizes", [1, 5])
def test_gradient_equals_unpacked(make_engine, sizes):
    engine = make_engine()
    batch = random_batch(5, groups=5, max_size=sizes)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=batch.num_targets).astype(np.float32)
    weights[rng.random(len(weights)) < 0.4] = 0
    result = engine.forward_backward("", "", train_spec(batch, weights, EVERYTHING, micro_batch_tokens=80))
    model = engine.model("").lm.model
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loss = -(torch.from_numpy(weights) * reference_logprobs(engine, batch)).sum()
    loss.backward()
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, atol=2e-5, rtol=1e-4)


def test_plan_covers_every_wanted_target_once_within_the_bound():
    batch = random_batch(9, groups=12, max_size=6)
    wanted = np.random.default_rng(1).random(batch.num_targets) < 0.5
    plan = packing.plan(packing.build_group_trees(batch, wanted), 96)
    covered = np.sort(np.concatenate([m.targets.numpy() for m in plan]))
    np.testing.assert_array_equal(covered, np.flatnonzero(wanted))
    assert all(m.input_ids_BT.numel() <= 96 for m in plan)


def test_shared_prompts_are_computed_once():
    batch = random_batch(2, groups=1, max_size=1, prompt=(40, 40), response=(3, 3))
    prompt, response = unpack(batch)[0]
    group = type(batch)(
        np.concatenate([prompt, *[response] * 8]).astype(np.int32),
        np.array([40]),
        np.array([8]),
        np.full(8, 3),
    )
    (micro,) = packing.plan(packing.build_group_trees(group, np.ones(24, dtype=bool)), 4096)
    assert micro.input_ids_BT.numel() == 40 + 8 * 2


def test_plain_sequences_need_no_mask():
    batch = as_batch(unpack(random_batch(4)))
    trees = packing.build_group_trees(batch, np.ones(batch.num_targets, bool))
    assert all(m.blocks is None for m in packing.plan(trees, 4096))
