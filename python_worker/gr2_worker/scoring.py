"""Log-probabilities of given tokens from hidden states: the formula shared by Forward, ForwardBackward and the sampler.

unconstrained   log_softmax(logits / temperature)[token]
branching       log_softmax over allowed tokens of (scale * logit + bias) / temperature
forced          exactly 0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .constraints import CompiledConstraint, Replay
from .lm import LanguageModel

# Logits computed at once, in elements: bounds memory (float32: 128 MiB) whatever the vocabulary; on the CPU cache-sized.
MAX_LOGITS_CUDA = 1 << 27
MAX_LOGITS_CPU = 1 << 21
# Yet at least so many rows: every chunk adds a gradient of the whole output layer, which a vocabulary of items makes large.
MIN_ROWS = 64


def max_logits(device: torch.device) -> int:
    """Logits to compute at once."""
    return MAX_LOGITS_CUDA if device.type == "cuda" else MAX_LOGITS_CPU


def constrained_logits(logits_nJ: Tensor, bias_nJ: Tensor, scale: float, temperature: float) -> Tensor:
    """(scale * logit + bias) / temperature; padding (bias -inf) stays -inf. Shapes [n, J]."""
    return (scale * logits_nJ + bias_nJ) / temperature


def entropy_of(log_probs_nV: Tensor) -> Tensor:
    """Entropy [n] in nats; tokens of probability 0 (log-prob -inf) count 0."""
    return -(log_probs_nV.exp() * log_probs_nV.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)


@dataclass(frozen=True)
class TargetTable:
    """Per request: which token every flat target is, and which of them branch. Tensors on the model's device."""

    tokens_N: Tensor  # int64
    branch_row_N: Tensor  # int64: row in the branching tables, -1 = unconstrained
    allowed_BJ: Tensor  # int64, negative = padding
    bias_BJ: Tensor  # float32
    chosen_B: Tensor  # int64 column
    scale: float

    @staticmethod
    def build(
        tokens_N: Tensor, compiled: CompiledConstraint | None, found: Replay | None, device: torch.device
    ) -> TargetTable:
        """From the request's targets and, if constrained, the replay of its responses."""
        branch_row = torch.full((len(tokens_N),), -1, dtype=torch.int64)
        if compiled is None or found is None:
            empty = torch.zeros(0, dtype=torch.int64, device=device)
            return TargetTable(
                tokens_N.to(device), branch_row.to(device), empty[:, None], empty[:, None].float(), empty, 1.0
            )
        branch_row[torch.from_numpy(found.branching)] = torch.arange(len(found.branching))
        return TargetTable(
            tokens_N.to(device),
            branch_row.to(device),
            torch.from_numpy(found.tokens_BJ).to(device=device, dtype=torch.int64),
            torch.from_numpy(found.bias_BJ).to(device),
            torch.from_numpy(found.chosen_B).to(device),
            compiled.scale,
        )


@dataclass(frozen=True)
class Scored:
    """Log-probs (with graph, if gradients are on) and entropies of some positions of a micro-batch."""

    positions: Tensor  # int64 [m]: which of the n targets given
    logprobs: Tensor  # float32 [m]
    entropy: Tensor | None  # float32 [m], no gradient


def score(
    lm: LanguageModel,
    hidden_mC: Tensor,
    rows_n: Tensor,
    targets_n: Tensor,
    table: TargetTable,
    temperature: float,
    want_entropy: bool,
) -> Iterator[Scored]:
    """Scores `targets_n` (flat targets, none of them forced; predicted by rows `rows_n` of the hidden states) chunk by chunk, so
    that only one chunk's logits are alive and each chunk has a graph of its own.
    """
    budget = max_logits(hidden_mC.device)
    branch_rows = table.branch_row_N[targets_n]
    free = torch.nonzero(branch_rows < 0)[:, 0]
    for at in free.split(max(MIN_ROWS, budget // lm.vocab_size)):
        logits = lm.logits(hidden_mC.index_select(0, rows_n[at]))
        if temperature != 1.0:
            logits = logits / temperature
        logprobs = -F.cross_entropy(logits, table.tokens_N[targets_n[at]], reduction="none")
        entropy = None
        if want_entropy:
            with torch.no_grad():
                entropy = entropy_of(logits.detach().log_softmax(dim=-1))
        yield Scored(at, logprobs, entropy)
    branching = torch.nonzero(branch_rows >= 0)[:, 0]
    width = max(1, table.allowed_BJ.shape[1] * lm.hidden_size)
    for at in branching.split(max(1, budget // width)):
        rows = branch_rows[at]
        logits = lm.logits_of(hidden_mC.index_select(0, rows_n[at]), table.allowed_BJ[rows])
        log_probs = constrained_logits(logits, table.bias_BJ[rows], table.scale, temperature).log_softmax(dim=-1)
        logprobs = log_probs.gather(1, table.chosen_B[rows][:, None])[:, 0]
        yield Scored(at, logprobs, entropy_of(log_probs.detach()) if want_entropy else None)
