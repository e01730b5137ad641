"""Per-token losses: pure functions of log-probabilities. No model, no batching, no reduction.

    cross_entropy   loss_t = -log p_t
    policy          loss_t = -min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t) + kl_coef * k3_t
                    rho_t  = exp(logp_t - old_t),   k3_t = exp(ref_t - logp_t) - (ref_t - logp_t) - 1
                    (DAPO eq. 8; the KL estimator of GRPO)
    distill         loss_t = sum_{i in top-k of the teacher} q_i (log q_i - log p_i) + q_rest (log q_rest - log p_rest)
                    (forward KL to a teacher q on the student's own tokens: Diffusion-GR2)

All tokens that the teacher does not name form one more alternative, "rest". So the loss is the KL between two
distributions over k + 1 outcomes: never negative, 0 only where both agree, and a lower bound of the full KL that
approaches it as k grows. If q alone were renormalised over the k, the student's mass would be pulled into them; if both
were, mass outside would go unnoticed.

Every function has one signature: `(logprobs [n], inputs) -> (loss [n], metrics)`; for `distill` logprobs are [n, k +
1], those of the teacher's alternatives and of the rest. Metrics are *sums over tokens*, except names that end in
`_max`; `summarise` turns
what several micro-batches gave into means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# exp() of a larger log-ratio says no more than "far outside any clip range" and would overflow float32.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class LossInputs:
    """Per-token inputs, each [n] float32 and aligned with the log-probs, or None if the loss does not use it."""

    advantages: Tensor | None = None
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    clip_low: float = 0.0
    clip_high: float = 0.0
    kl_coef: float = 0.0
    teacher_logprobs: Tensor | None = None  # [n, k]; -inf = no such alternative

    def select(self, index: Tensor) -> LossInputs:
        """The inputs of some tokens only; index [m] int64."""

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(0, index)

        return LossInputs(
            pick(self.advantages),
            pick(self.old_logprobs),
            pick(self.reference_logprobs),
            self.clip_low,
            self.clip_high,
            self.kl_coef,
            pick(self.teacher_logprobs),
        )


Metrics = dict[str, Tensor]
LossFn = Callable[[Tensor, LossInputs], tuple[Tensor, Metrics]]


def cross_entropy(logprobs: Tensor, inputs: LossInputs) -> tuple[Tensor, Metrics]:
    """Negative log-likelihood; metrics: nll."""
    loss = -logprobs
    return loss, {"nll": loss.detach().sum()}


def policy(logprobs: Tensor, inputs: LossInputs) -> tuple[Tensor, Metrics]:
    """Clipped policy-gradient surrogate; metrics: clip_low_share, clip_high_share, ratio, ratio_max, kl, kl_old."""
    if inputs.advantages is None or inputs.old_logprobs is None:
        raise ValueError("the policy loss needs advantages and old log-probs")
    advantages = inputs.advantages
    log_ratio = (logprobs - inputs.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - inputs.clip_low, 1.0 + inputs.clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        metrics = {
            "clip_low_share": ((ratio < 1.0 - inputs.clip_low) & (advantages < 0)).sum(),
            "clip_high_share": ((ratio > 1.0 + inputs.clip_high) & (advantages > 0)).sum(),
            "ratio": ratio.sum(),
            "ratio_max": ratio.max() if len(ratio) else ratio.new_zeros(()),
            "kl_old": (ratio - 1.0 - log_ratio).sum(),
        }
    if inputs.kl_coef > 0:
        if inputs.reference_logprobs is None:
            raise ValueError("kl_coef > 0 needs reference log-probs")
        log_reference_ratio = (inputs.reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        kl = log_reference_ratio.exp() - log_reference_ratio - 1.0
        loss = loss + inputs.kl_coef * kl
        metrics["kl"] = kl.detach().sum()
    return loss, metrics


def distill(logprobs: Tensor, inputs: LossInputs) -> tuple[Tensor, Metrics]:
    """Forward KL over the teacher's top-k and the rest; metrics:
    forward_kl, teacher_rest (the teacher's mass outside the top-k).

    A rest of -inf: neither of them had any other alternative.
    """
    if inputs.teacher_logprobs is None:
        raise ValueError("the distill loss needs the teacher's log-probs")
    given = inputs.teacher_logprobs.exp()
    rest = (1.0 - given.sum(dim=1, keepdim=True)).clamp(min=0.0)
    rest = rest.masked_fill(torch.isneginf(logprobs[:, -1:]), 0.0)
    teacher = torch.cat([given, rest], dim=1)
    log_teacher = torch.cat([inputs.teacher_logprobs, rest.log()], dim=1)
    gap = (log_teacher - logprobs).masked_fill(teacher == 0, 0.0)
    loss = (teacher * gap).sum(dim=1)
    return loss, {"forward_kl": loss.detach().sum(), "teacher_rest": rest.sum()}


LOSSES: dict[str, LossFn] = {"cross_entropy": cross_entropy, "policy": policy, "distill": distill}


class MetricSums:
    """Adds up the metrics of micro-batches."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def add(self, metrics: dict[str, Tensor] | dict[str, float]) -> None:
        """Adds sums; keeps the larger one of names that end in `_max`."""
        for name, value in metrics.items():
            number = float(value)
            if name.endswith("_max"):
                self._sums[name] = max(number, self._sums.get(name, number))
            else:
                self._sums[name] = self._sums.get(name, 0.0) + number

    def summarise(self, tokens: int) -> dict[str, float]:
        """Means over `tokens` (maxima as they are), plus `tokens` itself."""
        means = {n: v if n.endswith("_max") else v / max(tokens, 1) for n, v in self._sums.items()}
        return {"tokens": float(tokens), **means}
