"""On-policy distillation with what the worker offers: the student's KL to a larger teacher falls, exactly measured."""

from __future__ import annotations

import numpy as np
import torch
from asked import adamw_params, forward_spec, sample_params, train_spec
from conftest import VOCAB, as_batch, spec
from gr2_worker.engine import Engine
from gr2_worker.types import Distill, Policy

PROMPTS = [np.asarray([3 + p, 7, 11], dtype=np.int32) for p in range(8)]
STEP = adamw_params(learning_rate=3e-3, max_grad_norm=1.0)
LENGTH = 6


def answers(engine: Engine, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four answers per prompt, as (prompt, response), in a fixed order."""
    params = sample_params(prompts=PROMPTS, num_samples=4, max_new_tokens=LENGTH, temperature=1.0, seed=seed)
    items = [item for part in engine.sample("", params) for item in part]
    items.sort(key=lambda item: (item.prompt, item.sample))
    return [(PROMPTS[item.prompt], item.tokens) for item in items]


def exact_kl(engine: Engine, prefixes: list[np.ndarray], forward: bool) -> float:
    """Mean over prefixes of KL(student || teacher), or forward: KL(teacher || student), over the whole vocabulary."""
    total = 0.0
    for prefix in prefixes:
        ids = torch.from_numpy(prefix.astype(np.int64))[None]
        logs = []
        for name in ("", "teacher"):
            lm = engine.model(name).lm
            with torch.no_grad():
                hidden = lm.hidden(ids, torch.arange(ids.shape[1])[None])[0, -1:]
                logs.append(torch.log_softmax(lm.logits(hidden), dim=-1))
        student, teacher = reversed(logs) if forward else logs
        assert student.shape[-1] == VOCAB
        total += float((student.exp() * (student - teacher)).sum())
    return total / len(prefixes)


def both_models() -> tuple[Engine, list[np.ndarray]]:
    """A student, a larger teacher, and prefixes that the student writes."""
    engine = Engine(torch.device("cpu"))
    engine.load_model("", spec(seed=1))
    engine.load_model("teacher", spec(seed=2, trainable=False, hidden_size=48, num_hidden_layers=3))
    return engine, [np.concatenate([prompt, response[:3]]) for prompt, response in answers(engine, 99)]


def test_the_reverse_kl_to_the_teacher_falls() -> None:
    engine, prefixes = both_models()
    before = exact_kl(engine, prefixes, forward=False)
    for step in range(40):
        batch = as_batch(answers(engine, step))
        student = engine.forward("", forward_spec(batch)).logprobs
        teacher = engine.forward("teacher", forward_spec(batch)).logprobs
        advantages = np.clip(teacher - student, -5, 5)
        weights = np.full(batch.num_targets, 1 / batch.num_targets, dtype=np.float32)
        loss = Policy(advantages, student, teacher, 0.2, 0.28, 0.1)
        engine.forward_backward("", f"fb-{step}", train_spec(batch, weights, loss))
        engine.optim_step("", f"os-{step}", STEP)
    after = exact_kl(engine, prefixes, forward=False)
    assert before > 0.5  # two random models disagree
    assert after < 0.6 * before


def test_the_forward_kl_to_the_teacher_falls() -> None:
    engine, prefixes = both_models()
    before = exact_kl(engine, prefixes, forward=True)
    said = []
    for step in range(40):
        batch = as_batch(answers(engine, step))
        top = engine.forward("teacher", forward_spec(batch, top_k=12)).top
        assert top is not None
        weights = np.full(batch.num_targets, 1 / batch.num_targets, dtype=np.float32)
        result = engine.forward_backward("", f"fb-{step}", train_spec(batch, weights, Distill(top)))
        np.testing.assert_allclose(result.loss, result.metrics["forward_kl"], rtol=1e-5)
        said.append(result.loss)
        engine.optim_step("", f"os-{step}", STEP)
    after = exact_kl(engine, prefixes, forward=True)
    assert before > 0.5
    assert after < 0.6 * before
    assert np.mean(said[-5:]) < 0.6 * np.mean(said[:5])
