"""The policy loss against TRL's own `loss_type="dapo"` on the same tensors: value and gradient.

Skipped where trl is not installed; it is no requirement: `pip install trl datasets` into an environment that has the
worker's packages, and run this file there.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from gr2_worker.scoring.losses import LossInputs, policy

grpo = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")

LOW, HIGH = 0.2, 0.28


def trl_loss(logps, old, ref, advantages, mask, beta):
    """GRPOTrainer._compute_loss with the log-probs given instead of computed by a model."""
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, torch.zeros_like(logps), None)
    trainer.args = SimpleNamespace(
        use_bias_correction_kl=False, delta=None, steps_per_generation=1, router_aux_loss_coef=0.0, loss_type="dapo"
    )
    trainer.accelerator.num_processes = 1
    trainer.accelerator.gather = lambda x: x
    for name, value in {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": beta,
        "loss_type": "dapo",
        "epsilon_low": LOW,
        "epsilon_high": HIGH,
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
    }.items():
        setattr(trainer, name, value)
    trainer.model.training = True
    prompts = torch.ones(len(logps), 3, dtype=torch.long)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    return grpo.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_loss_and_gradient_equal_trls_dapo(beta):
    generator = torch.Generator().manual_seed(0)
    rows, length = 16, 12
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    mask = (torch.arange(length)[None, :] < lengths[:, None]).long()
    old = -3 * torch.rand(rows, length, generator=generator)
    logps = (old + 0.4 * torch.randn(rows, length, generator=generator)).requires_grad_()
    ref = old + 0.2 * torch.randn(rows, length, generator=generator)
    advantages = torch.randn(rows, generator=generator)
    theirs = trl_loss(logps, old, ref, advantages, mask, beta)
    (their_gradient,) = torch.autograd.grad(theirs, logps)

    real = mask.bool()
    flat = logps.detach()[real].requires_grad_()
    inputs = LossInputs(
        advantages[:, None].expand_as(old)[real], old[real], ref[real], clip_low=LOW, clip_high=HIGH, kl_coef=beta
    )
    loss, metrics = policy(flat, inputs)
    ours = (loss / mask.sum()).sum()  # token weights 1 / all tokens (rl/groups.ts, `token`)
    (our_gradient,) = torch.autograd.grad(ours, flat)

    assert metrics["clip_low_share"] > 0 and metrics["clip_high_share"] > 0
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(our_gradient, their_gradient[real], atol=1e-7, rtol=1e-5)
    assert (their_gradient[~real] == 0).all()
