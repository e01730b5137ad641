"""LoRA: the trained part on top of a frozen model, and how both are merged.

    linear layers   PEFT: W x + alpha / r * B A x  (2106.09685), on the layers whose names were given
    added tokens one trained row each, in the embedding and in the output layer (the same row if they are tied), so that
    a table of a hundred thousand rows is neither copied nor given a gradient because of a thousand

All trained weights are float32, whatever type the frozen model is stored in.
Not here: loading (lm.py), files (checkpoint.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gr2_worker.errors import InvalidRequest
from gr2_worker.types import LoraSpec

ADAPTER = "default"  # PEFT's name for the only adapter
# Number of frozen values per tensor in the fingerprint of a base model.
FINGERPRINT_VALUES = 64


@dataclass(frozen=True)
class Adapter:
    """The trained additions to a frozen model."""

    spec: LoraSpec
    names: frozenset[str]  # of the trained parameters
    fingerprint: str  # of the frozen layers: trained parameters mean nothing on top of others


class _Rows(nn.Module):
    """Trained rows of a table, by token id."""

    trained_row_V: Tensor  # int64: index among the trained rows; -1 = frozen

    def __init__(self, base: nn.Module, rows: nn.Parameter, ids_A: Tensor) -> None:
        super().__init__()
        self.base = base
        self.rows = rows
        trained_row = torch.full((len(base.weight),), -1, dtype=torch.int64)  # type: ignore[arg-type]
        trained_row[ids_A] = torch.arange(len(ids_A))
        self.register_buffer("trained_row_V", trained_row, persistent=False)
        self.register_buffer("ids_A", ids_A, persistent=False)

    def replaced(self, frozen: Tensor, ids: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """`frozen` [..., C], the base's rows of `ids` [...], with the trained ones in their place."""
        at = self.trained_row_V[ids]
        trained = (F.embedding(at.clamp(min=0), self.rows) * scale).to(frozen.dtype)
        return torch.where((at >= 0)[..., None], trained, frozen)


class RowEmbedding(_Rows):
    """An embedding with trained rows."""

    @property
    def num_embeddings(self) -> int:
        return len(self.trained_row_V)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., C]."""
        scale = getattr(self.base, "embed_scale", 1.0)  # Gemma
        return self.replaced(self.base(ids), ids, scale)


class RowHead(_Rows):
    """An output layer with trained rows."""

    ids_A: Tensor

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[return-value]

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., C] -> logits [..., V]."""
        logits = self.base(hidden)
        trained = F.linear(hidden, self.rows, None if self.bias is None else self.bias[self.ids_A])
        return logits.index_copy(-1, self.ids_A, trained.to(logits.dtype))

    def rows_at(self, tokens: Tensor) -> Tensor:
        """Rows [..., C] of some tokens."""
        return self.replaced(F.embedding(tokens, self.base.weight), tokens)  # type: ignore[arg-type]


def attach(model: Any, spec: LoraSpec, token_ids: list[int], seed: int) -> Adapter:
    """Adds LoRA layers and trained rows to the model (in place). Raises InvalidRequest."""
    from peft import LoraConfig, inject_adapter_in_model

    _check_targets(model, spec)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=list(spec.targets), bias="none"
    )
    fingerprint = _fingerprint(model)
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    if token_ids:
        _train_rows(model, sorted(set(token_ids)))
    names = frozenset(n for n, _ in model.named_parameters() if ".lora_" in n or n.endswith(".rows"))
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.data = parameter.data.float()
    return Adapter(spec, names, fingerprint)


def _check_targets(model: Any, spec: LoraSpec) -> None:
    if spec.rank < 1 or spec.alpha <= 0 or not 0 <= spec.dropout < 1:
        raise InvalidRequest(f"lora needs rank >= 1, alpha > 0 and dropout in [0, 1), got {spec}")
    head = model.get_output_embeddings()
    linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    unknown = sorted(set(spec.targets) - linear)
    if unknown or not spec.targets:
        raise InvalidRequest(
            f"lora target modules match no layer: {', '.join(unknown) or '(none given)'}; "
            f"this model's linear layers are {', '.join(sorted(linear))}"
        )


def _train_rows(model: Any, ids: list[int]) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    ids_A = torch.tensor(ids, device=embedding.weight.device)
    rows = nn.Parameter(embedding.weight.detach()[ids_A].float())
    head_rows = rows if head.weight is embedding.weight else nn.Parameter(head.weight.detach()[ids_A].float())
    model.set_input_embeddings(RowEmbedding(embedding, rows, ids_A))
    model.set_output_embeddings(RowHead(head, head_rows, ids_A))


def _fingerprint(model: Any) -> str:
    """Hash of some values of every layer between the tables, as bfloat16, so
    that the base's storage type does not matter.
    """
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if id(parameter) in tables:
            continue
        values = parameter.detach().flatten()[:: max(1, parameter.numel() // FINGERPRINT_VALUES)]
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(values.to(torch.bfloat16).view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def merged(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an ordinary model: LoRA added to its layers (in float32), trained rows in their tables.

    weights: the live tensors by name, tied ones once.
    """
    from peft.tuners.lora import LoraLayer

    out: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    for name, weight in weights.items():
        if ".lora_" in name or name.endswith(".rows"):
            continue
        path, _, leaf = name.rpartition(".")
        owner = modules.get(path.rpartition(".")[0])
        if path.endswith(".base_layer") and isinstance(owner, LoraLayer):
            full = weight
            if leaf == "weight":
                full = weight.float() + owner.get_delta_weight(ADAPTER).float()  # type: ignore[operator]
            out[f"{path.removesuffix('.base_layer')}.{leaf}"] = full
        elif path.endswith(".base") and isinstance(owner, _Rows):
            full = weight
            if leaf == "weight":
                full = weight.float()
                full[owner.ids_A] = owner.rows.detach()  # type: ignore[index]
            out[f"{path.removesuffix('.base')}.{leaf}"] = full
        else:
            out[name] = weight
    return out
