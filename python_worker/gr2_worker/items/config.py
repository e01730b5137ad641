"""Settings of a semantic-ID fit, checked; field names are those of the proto message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gr2_worker.errors import InvalidRequest


@dataclass(frozen=True)
class QuantizerConfig:
    """Field names and meanings of the proto message. Defaults are the orchestrator's (src/config/schema/items.ts)."""

    method: Literal["rqvae", "rqkmeans"]
    levels: int
    codes: int
    latent_dim: int  # rqkmeans: 0 = the embeddings as they are
    hidden_dims: tuple[int, ...]  # rqvae: encoder; the decoder mirrors it
    epochs: int  # rqvae; for rqkmeans, the bound on Lloyd iterations per level
    batch_size: int
    learning_rate: float
    commitment: float
    ema_decay: float
    kmeans_init: bool
    random_last_level: bool
    diversity_weight: float
    dead_code_reset_epochs: int
    contrastive_weight: float
    contrastive_temperature: float
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(int(d) for d in self.hidden_dims))
        if self.method not in ("rqvae", "rqkmeans"):
            raise InvalidRequest(f"quantizer method is {self.method!r}; known are 'rqvae' and 'rqkmeans'")
        positive = ["levels", "codes", "epochs"]
        if self.method == "rqvae":  # "rqkmeans" does without these, so they may be left at proto's 0
            positive += ["latent_dim", "batch_size", "learning_rate"]
            positive += ["contrastive_temperature"] if self.contrastive_weight > 0 else []
        for name in positive:
            if not getattr(self, name) > 0:
                raise InvalidRequest(f"quantizer {name} is {getattr(self, name)}; it must be positive")
        if any(d < 1 for d in self.hidden_dims):
            raise InvalidRequest(f"quantizer hidden_dims are {list(self.hidden_dims)}; each must be at least 1")
        for name in ("commitment", "diversity_weight", "contrastive_weight", "dead_code_reset_epochs"):
            if not getattr(self, name) >= 0:
                raise InvalidRequest(f"quantizer {name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.ema_decay < 1:
            raise InvalidRequest(
                f"quantizer ema_decay is {self.ema_decay}; it must be in [0, 1), 0 = learn by gradient"
            )
