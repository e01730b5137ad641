"""Earlier tokens that a forward pass attends to, and the keys and values it computes: the seam between a model's layers
and the prefix cache (prefix_cache.py). Without a Past a forward pass has neither.

Shape legend: T tokens of the pass, flat; P tokens computed before; L layers, K key-value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Earlier:
    """Tokens computed before."""

    keys_PLKD: Tensor
    values_PLKD: Tensor
    positions_P: Tensor  # int64


@dataclass(frozen=True)
class Past:
    """Keys and values of tokens computed before, if any, and those that the running pass computes."""

    earlier: Earlier | None = None
    computed: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # per layer: keys and values [T, K, D]

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
        """Stores the next layer's keys and values [B, K, T / B, D]; returns the earlier tokens', [P, K, D] each."""
        layer = len(self.computed)
        self.computed.append((key.transpose(1, 2).flatten(0, 1), value.transpose(1, 2).flatten(0, 1)))
        return None if self.earlier is None else (self.earlier.keys_PLKD[:, layer], self.earlier.values_PLKD[:, layer])

    def positions(self, positions_T: Tensor) -> Tensor:
        """Positions [T + P] of all tokens, given those of the pass."""
        return positions_T if self.earlier is None else torch.cat([positions_T, self.earlier.positions_P])

    def all(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [T + P, K, D]: those of this pass, then the earlier ones."""
        keys, values = self.computed[layer]
        if self.earlier is None:
            return keys, values
        earlier = self.earlier
        return torch.cat([keys, earlier.keys_PLKD[:, layer]]), torch.cat([values, earlier.values_PLKD[:, layer]])
