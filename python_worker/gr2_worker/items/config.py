"""Settings of a semantic-ID fit, checked; field names are those of the proto message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gr2_worker.errors import InvalidRequest


@dataclass(frozen=True)
class QuantizerConfig:
    """Field names of the proto message. The values here suit tests; the orchestrator sends every field."""

    method: Literal["rqvae", "rqkmeans"] = "rqvae"
    levels: int = 4
    codes: int = 256
    latent_dim: int = 32  # rqkmeans: 0 = the embeddings as they are
    hidden_dims: tuple[int, ...] = (256, 128)  # rqvae: encoder; the decoder mirrors it
    epochs: int = 40  # rqvae; of rqkmeans, the bound on Lloyd iterations a level
    batch_size: int = 256
    learning_rate: float = 1e-3
    commitment: float = 0.25
    ema_decay: float = 0.97
    kmeans_init: bool = True
    random_last_level: bool = True
    diversity_weight: float = 0.1
    dead_code_reset_epochs: int = 5
    contrastive_weight: float = 0.0
    contrastive_temperature: float = 0.1
    seed: int = 0

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
                f"quantizer ema_decay is {self.ema_decay}; it must lie in [0, 1), 0 = learn by gradient"
            )
