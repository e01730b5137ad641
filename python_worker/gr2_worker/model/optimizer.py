"""AdamW of one model: parameter groups, gradient clipping, state as named tensors.

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- w - lr (m_hat / (sqrt(v_hat) + eps) + wd w)

Weight decay is decoupled and not applied to norms, biases and embeddings (a tied output layer counts as embedding).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gr2_worker.errors import FailedPrecondition
from gr2_worker.model.lora import RowEmbedding
from gr2_worker.types import AdamWParams


class AdamW:
    """Wraps torch's fused AdamW over float32 master weights."""

    def __init__(self, model: nn.Module) -> None:
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        embeddings = {
            id(p)
            for m in model.modules()
            if isinstance(m, nn.Embedding | RowEmbedding)
            for p in m.parameters(recurse=False)
        }
        decayed = [p for p in self._named.values() if p.ndim >= 2 and id(p) not in embeddings]
        plain = [p for p in self._named.values() if p.ndim < 2 or id(p) in embeddings]
        groups = [
            {"params": params, "decays": decays} for params, decays in ((decayed, True), (plain, False)) if params
        ]
        self._adamw = torch.optim.AdamW(groups, fused=True)
        self.step_count = 0

    def zero_grad(self) -> None:
        """Drops the accumulated gradient."""
        self._adamw.zero_grad(set_to_none=True)

    def snapshot_gradient(self) -> dict[str, Tensor]:
        """A copy of the accumulated gradient; {} if there is none."""
        return {name: p.grad.detach().clone() for name, p in self._named.items() if p.grad is not None}

    def restore_gradient(self, snapshot: dict[str, Tensor]) -> None:
        """Undoes what was accumulated since `snapshot`."""
        for name, parameter in self._named.items():
            parameter.grad = snapshot.get(name)

    def step(self, params: AdamWParams) -> float:
        """One step with the accumulated gradient, which it clears. Returns the gradient's norm before clipping."""
        gradients = [p.grad for p in self._named.values() if p.grad is not None]
        if not gradients:
            raise FailedPrecondition("no gradient accumulated: call ForwardBackward first")
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        if not math.isfinite(value):
            self.zero_grad()
            raise FailedPrecondition(
                "the gradient is not finite; it was cleared: lower learning_rate, or max_grad_norm, or the weights"
            )
        if params.max_grad_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(list(self._named.values()), params.max_grad_norm, norm)
        for group in self._adamw.param_groups:
            group["lr"] = params.learning_rate
            group["betas"] = (params.beta1, params.beta2)
            group["eps"] = params.eps
            group["weight_decay"] = params.weight_decay if group["decays"] else 0.0
        self._adamw.step()
        self.zero_grad()
        self.step_count += 1
        return value

    def state(self) -> dict[str, Tensor]:
        """`<parameter>.<exp_avg|exp_avg_sq|step>` -> tensor; empty before the first step."""
        tensors = {}
        for name, parameter in self._named.items():
            for key, value in self._adamw.state.get(parameter, {}).items():
                tensors[f"{name}.{key}"] = value.detach().contiguous()
        return tensors

    def load_state(self, tensors: dict[str, Tensor], step_count: int) -> None:
        """Restores `state()`. Raises FailedPrecondition if it does not fit."""
        state: dict[Tensor, dict[str, Any]] = {}
        unused = set(tensors)
        for name, parameter in self._named.items():
            entry = {}
            for key in ("exp_avg", "exp_avg_sq", "step"):
                tensor = tensors.get(f"{name}.{key}")
                if tensor is None:
                    continue
                unused.discard(f"{name}.{key}")
                if key != "step" and tensor.shape != parameter.shape:
                    raise FailedPrecondition(f"optimizer state of {name} differs in shape from the parameter")
                # A fused optimizer keeps its step counters on the parameters' device.
                entry[key] = tensor.to(device=parameter.device).clone()
            if entry:
                if len(entry) != 3:
                    raise FailedPrecondition(f"optimizer state of {name} is incomplete")
                state[parameter] = entry
        if unused:
            raise FailedPrecondition(f"optimizer state has unknown parameters, e.g. {min(unused)}")
        self._adamw.state.clear()
        self._adamw.state.update(state)
        self.step_count = step_count
        self.zero_grad()
