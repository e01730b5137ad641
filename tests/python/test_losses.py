"""Losses against NumPy, with gradients by finite differences of the NumPy version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gr2_worker.scoring.losses import LossInputs, MetricSums, cross_entropy, distill, policy


def numpy_policy(logp, old, adv, ref, low, high, kl_coef):
    ratio = np.exp(logp - old)
    loss = -np.minimum(ratio * adv, np.clip(ratio, 1 - low, 1 + high) * adv)
    return loss + kl_coef * (np.exp(ref - logp) - (ref - logp) - 1)


def inputs(old, adv, ref, low, high, kl):
    as_tensor = [torch.tensor(x, dtype=torch.float64) for x in (adv, old, ref)]
    return LossInputs(*as_tensor, clip_low=low, clip_high=high, kl_coef=kl)


def test_cross_entropy():
    logp = torch.tensor([-0.5, -2.0], requires_grad=True)
    loss, metrics = cross_entropy(logp, LossInputs())
    loss.sum().backward()
    assert loss.tolist() == [0.5, 2.0] and logp.grad.tolist() == [-1, -1] and metrics["nll"] == 2.5


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_policy_matches_numpy_with_gradients(kl_coef):
    rng = np.random.default_rng(0)
    old, ref = rng.normal(-2, 1, 200), rng.normal(-2, 1, 200)
    logp = old + rng.normal(0, 0.4, 200)
    adv = rng.normal(size=200)
    tensor = torch.tensor(logp, requires_grad=True)
    loss, metrics = policy(tensor, inputs(old, adv, ref, 0.2, 0.28, kl_coef))
    np.testing.assert_allclose(loss.detach().numpy(), numpy_policy(logp, old, adv, ref, 0.2, 0.28, kl_coef))
    loss.sum().backward()
    step = 1e-6
    numeric = [numpy_policy(logp + s, old, adv, ref, 0.2, 0.28, kl_coef) for s in (step, -step)]
    np.testing.assert_allclose(tensor.grad.numpy(), (numeric[0] - numeric[1]) / (2 * step), atol=1e-5)
    ratio = np.exp(logp - old)
    assert metrics["clip_low_share"] == ((ratio < 0.8) & (adv < 0)).sum() > 0
    assert metrics["clip_high_share"] == ((ratio > 1.28) & (adv > 0)).sum() > 0


def test_clip_edges():
    # (ratio, advantage) -> whether a gradient flows: only where the clip would make the objective better than it is.
    cases = [(1.5, 1, 0), (1.2, 1, 1), (0.5, 1, 1), (0.5, -1, 0), (0.9, -1, 1), (1.5, -1, 1), (1.5, 0, 0)]
    ratio, adv, flows = (np.asarray(x, dtype=float) for x in zip(*cases, strict=True))
    old = np.zeros(len(cases))
    logp = torch.tensor(np.log(ratio), requires_grad=True)
    loss, _ = policy(logp, inputs(old, adv, old, 0.2, 0.28, 0.0))
    loss.sum().backward()
    np.testing.assert_array_equal((logp.grad != 0).numpy().astype(float), flows)
    np.testing.assert_allclose(logp.grad.numpy(), -ratio * adv * flows)


def test_extreme_ratio_stays_finite():
    logp = torch.tensor([0.0, -500.0], requires_grad=True, dtype=torch.float64)
    loss, _ = policy(logp, inputs([-500.0, 0.0], [-1.0, 1.0], [0.0, 0.0], 0.2, 0.28, 0.1))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logp.grad).all()


def test_distill_is_the_kl_of_the_given_and_the_rest():
    # Teacher: .5 and .25 given, so .25 is the rest; student: .25, .25 and .5. KL = .5 ln 2 + 0 + .25 ln .5 = .25 ln 2.
    # The second target has one alternative given and nothing else open; the third is the teacher's own distribution.
    nothing = -np.inf
    teacher = torch.tensor([[0.5, 0.25], [1.0, 0.0], [0.5, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.25, 0.25, 0.5], [1.0, 0.3, 0.0], [0.5, 0.25, 0.25]], dtype=torch.float64).log()
    assert teacher[1, 1] == nothing and student[1, 2] == nothing
    student.requires_grad_()
    loss, metrics = distill(student, LossInputs(teacher_logprobs=teacher))
    np.testing.assert_allclose(loss.detach().numpy(), [0.25 * np.log(2), 0, 0], atol=1e-12)
    loss.sum().backward()  # d loss / d log p_i = -q_i
    np.testing.assert_allclose(student.grad.numpy(), [[-0.5, -0.25, -0.25], [-1, 0, 0], [-0.5, -0.25, -0.25]])
    assert metrics["forward_kl"] == pytest.approx(0.25 * np.log(2)) and metrics["teacher_rest"] == pytest.approx(0.5)


def test_distill_rises_to_the_whole_kl_with_k_and_is_never_negative():
    rng = np.random.default_rng(0)
    teacher, student = (torch.tensor(rng.normal(0, 2, (50, 9))).log_softmax(dim=1) for _ in range(2))
    whole = (teacher.exp() * (teacher - student)).sum(dim=1)
    before = torch.zeros(50, dtype=torch.float64)
    for k in range(1, 10):
        top, at = teacher.topk(k, dim=1)
        given = student.gather(1, at)
        rest = (1 - given.exp().sum(dim=1, keepdim=True)).clamp(min=0).log()
        loss, _ = distill(
            torch.cat([given, rest if k < 9 else rest.fill_(-np.inf)], 1), LossInputs(teacher_logprobs=top)
        )
        assert (loss > before - 1e-12).all() and (loss < whole + 1e-12).all()
        before = loss
    torch.testing.assert_close(before, whole)


def test_metrics_add_up_over_micro_batches():
    sums = MetricSums()
    sums.add({"nll": 3.0, "ratio_max": 1.0})
    sums.add({"nll": 1.0, "ratio_max": 0.5})
    assert sums.summarise(4) == {"tokens": 4.0, "nll": 1.0, "ratio_max": 1.0}
    assert MetricSums().summarise(0) == {"tokens": 0.0}
