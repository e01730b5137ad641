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


def test_policy_metrics_are_sums_with_their_arithmetic():
    # ratios 4, .5, 1 (old = 0); reference = 0, so k3 = 1 / ratio - 1 + ln ratio.
    logp = torch.tensor([4.0, 0.5, 1.0], dtype=torch.float64).log()
    loss, metrics = policy(logp, inputs([0, 0, 0], [1.0, -1.0, 1.0], [0, 0, 0], 0.2, 0.2, 0.5))
    assert set(metrics) == {"clip_low_share", "clip_high_share", "ratio", "ratio_max", "kl_old", "kl"}
    assert metrics["ratio"].item() == pytest.approx(5.5) and metrics["ratio_max"].item() == pytest.approx(4)
    assert metrics["clip_low_share"] == 1 and metrics["clip_high_share"] == 1
    # kl_old = sum of ratio - 1 - ln ratio = (3 - ln 4) + (-.5 + ln 2) + 0
    assert metrics["kl_old"].item() == pytest.approx(2.5 - np.log(2))
    # kl = (1/4 - 1 + ln 4) + (2 - 1 - ln 2) + 0
    assert metrics["kl"].item() == pytest.approx(0.25 + np.log(2))
    kl = [0.25 - 1 + np.log(4), 2 - 1 - np.log(2), 0]
    np.testing.assert_allclose(loss.numpy(), np.array([-1.2, 0.8, -1]) + 0.5 * np.array(kl))


def test_policy_counts_no_clip_at_the_edge_or_without_an_advantage():
    logp = torch.tensor([0.5, 1.5, 0.25, 1.75], dtype=torch.float64).log()  # exact: exp(log .5) = .5
    _, metrics = policy(logp, inputs([0, 0, 0, 0], [-1.0, 1.0, 0.0, 0.0], [0, 0, 0, 0], 0.5, 0.5, 0.0))
    assert metrics["clip_low_share"] == 0 and metrics["clip_high_share"] == 0
    assert "kl" not in metrics


def test_policy_without_tokens_has_a_maximum_of_zero():
    empty = torch.zeros(0)
    loss, metrics = policy(empty, LossInputs(empty, empty))
    assert len(loss) == 0 and metrics["ratio_max"].shape == () and metrics["ratio_max"] == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_log_ratios_are_cut_at_twenty_either_way(sign):
    far = torch.tensor([sign * 30.0], dtype=torch.float64)
    _, metrics = policy(far, inputs([0.0], [1.0], [0.0], 0.2, 0.2, 0.1))
    assert metrics["ratio"].item() == pytest.approx(np.exp(sign * 20.0))
    # The reference's ratio is the inverse: exp(-+20) +- 20 - 1.
    assert metrics["kl"].item() == pytest.approx(np.exp(-sign * 20.0) + sign * 20.0 - 1)


def test_missing_inputs_are_named():
    one = torch.zeros(1)
    for given in (LossInputs(), LossInputs(advantages=one), LossInputs(old_logprobs=one)):
        with pytest.raises(ValueError, match=r"^the policy loss needs advantages and old log-probs$"):
            policy(one, given)
    with pytest.raises(ValueError, match=r"^kl_coef > 0 needs reference log-probs$"):
        policy(one, LossInputs(one, one, kl_coef=0.1))
    policy(one, LossInputs(one, one, kl_coef=0.0))
    with pytest.raises(ValueError, match=r"^the distill loss needs the teacher's log-probs$"):
        distill(one[:, None], LossInputs())


def test_select_takes_the_same_tokens_of_every_input():
    rows = [torch.arange(4.0) + 10 * k for k in range(3)]
    whole = LossInputs(*rows, clip_low=0.1, clip_high=0.3, kl_coef=0.7, teacher_logprobs=torch.arange(8.0).view(4, 2))
    some = whole.select(torch.tensor([3, 1]))
    for part, row in zip((some.advantages, some.old_logprobs, some.reference_logprobs), rows, strict=True):
        assert part is not None and part.tolist() == [row[3].item(), row[1].item()]
    assert (some.clip_low, some.clip_high, some.kl_coef) == (0.1, 0.3, 0.7)
    assert some.teacher_logprobs is not None and some.teacher_logprobs.tolist() == [[6, 7], [2, 3]]
    assert LossInputs().select(torch.tensor([0])) == LossInputs()


def test_means_over_one_token_are_the_sums():
    sums = MetricSums()
    sums.add({"nll": 3.0})
    assert sums.summarise(1) == {"tokens": 1.0, "nll": 3.0}
