"""Log-probabilities of given tokens from hidden states: the formula shared by Forward, ForwardBackward and the sampler.

unconstrained   log_softmax(logits / temperature)[token]
branching       log_softmax over allowed tokens of (scale * logit + bias) / temperature
forced          exactly 0

On request, of the same distribution: its entropy, its most likely alternatives, the log-probs of given ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gr2_worker.model.lm import LanguageModel
from gr2_worker.scoring.constraints import CompiledConstraint, Replay

# Logits computed at once, in elements: bounds memory (float32: 128 MiB) whatever the vocabulary;
# on the CPU cache-sized.
MAX_LOGITS_CUDA = 1 << 27
MAX_LOGITS_CPU = 1 << 21
# But at least this many rows: every chunk adds a gradient of the whole output layer,
# which is large if every item is a token.
MIN_ROWS = 64
# Alternatives copy a chunk's logits, so that many times fewer are computed at once.
COPIES_FOR_ALTERNATIVES = 4


def max_logits(device: torch.device) -> int:
    """Number of logits (rows times columns) to compute at once."""
    return MAX_LOGITS_CUDA if device.type == "cuda" else MAX_LOGITS_CPU


def constrained_logits(logits_nJ: Tensor, bias_nJ: Tensor, scale: float, temperature: float) -> Tensor:
    """(scale * logit + bias) / temperature; padding (bias -inf) stays -inf. Shapes [n, J]."""
    return (scale * logits_nJ + bias_nJ) / temperature


def compute_entropy(log_probs_nV: Tensor) -> Tensor:
    """Entropy [n] in nats; tokens of probability 0 (log-prob -inf) count 0."""
    return -(log_probs_nV.exp() * log_probs_nV.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)


def most_likely(log_probs_mW: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and log-probs [m, k] of the k most likely alternatives, likeliest first;
    -1 and -inf where fewer are open.
    """
    values, columns = log_probs_mW.topk(min(k, log_probs_mW.shape[1]), dim=1)
    missing = k - values.shape[1]
    columns = F.pad(columns.masked_fill(torch.isneginf(values), -1), (0, missing), value=-1)
    return columns, F.pad(values, (0, missing), value=float("-inf"))


def given_and_rest(log_probs_mW: Tensor, columns_mK: Tensor) -> Tensor:
    """Log-probs [m, K + 1] of given columns (negative = padding:
    arbitrary) and of all others together, -inf if none is open.

    The rest is a sum over the columns not given, not 1 minus the given: that would lose all digits of a small rest.
    """
    first = columns_mK[:, :1].clamp(min=0)
    columns = torch.where(columns_mK >= 0, columns_mK, first)
    others = log_probs_mW.scatter(1, columns, float("-inf"))
    # A row without other columns is summed over something else, since the gradient of an empty sum is NaN.
    some = ~torch.isneginf(others).all(dim=1, keepdim=True)
    rest = others.masked_fill(~some, 0.0).logsumexp(dim=1, keepdim=True).masked_fill(~some, float("-inf"))
    return torch.cat([log_probs_mW.gather(1, columns), rest], dim=1)


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
class Wanted:
    """What a request wants for every target besides its log-prob."""

    entropy: bool = False
    top_k: int = 0  # alternatives
    columns_NK: Tensor | None = None  # int64, of every flat target: alternatives to score, in its own table
    named_rows: int | None = None  # vocabulary rows that may be named: padding rows mean nothing to another model
    negatives: int = (
        0  # only free targets: normalise over an estimate of the vocabulary (sampled_logprobs); 0 = over all of it
    )

    @property
    def alternatives(self) -> bool:
        """Whether anything is wanted of tokens other than the target."""
        return self.top_k > 0 or self.columns_NK is not None


@dataclass(frozen=True)
class Details:
    """The wanted properties of some targets' distributions; float32."""

    entropy: Tensor | None = None  # [m], no gradient
    top: tuple[Tensor, Tensor] | None = None  # ids and log-probs [m, k], no gradient
    given: Tensor | None = None  # [m, K + 1] log-probs of the given alternatives and of all others together


@dataclass(frozen=True)
class Scored(Details):
    """Log-probs (with graph, if gradients are on) of some targets."""

    targets: Tensor = field(kw_only=True)  # int64 [m]
    logprobs: Tensor = field(kw_only=True)  # float32 [m]


def details(
    log_probs_mW: Tensor,
    wanted: Wanted,
    targets_m: Tensor,
    names_mW: Tensor | None = None,
    nameable: int | None = None,
) -> Details:
    """The wanted properties of whole distributions (float32). names: the ids of their columns, if they differ from the
    column numbers; nameable: only the first `nameable` columns may be among the likeliest, None = all.
    """
    top = None
    if wanted.top_k > 0:
        columns, values = most_likely(log_probs_mW.detach()[:, :nameable], wanted.top_k)
        if names_mW is not None:
            columns = names_mW.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, -1)
        top = columns, values
    columns_NK = wanted.columns_NK
    return Details(
        compute_entropy(log_probs_mW.detach()) if wanted.entropy else None,
        top,
        None if columns_NK is None else given_and_rest(log_probs_mW, columns_NK[targets_m]),
    )


def sampled_logprobs(
    lm: LanguageModel, hidden_mC: Tensor, targets_m: Tensor, negatives: int, temperature: float
) -> Tensor:
    """Estimates log p [m] of targets without the logits of the whole vocabulary V:

    Z ~ sum over the distinct targets T of exp(logit) + (V - |T|) * mean over drawn tokens outside of T of exp(logit)

    Frequent tokens are in T, so only the long tail is sampled (uniformly, by torch's generator).
    Exact if nothing is left out.
    """
    own, column_m = targets_m.unique(return_inverse=True)
    others = lm.vocab_size - len(own)
    if others <= negatives:
        drawn = torch.arange(lm.vocab_size, device=own.device)
        drawn = drawn[~torch.isin(drawn, own)]
    else:
        drawn = torch.randint(lm.vocab_size, (negatives,)).to(own.device)
        drawn = drawn[~torch.isin(drawn, own)]
    logits = lm.logits_at(hidden_mC, torch.cat([own, drawn])) / (temperature or 1.0)
    share = math.log(others / len(drawn)) if len(drawn) else 0.0
    stands_for = torch.cat([torch.zeros(len(own)), torch.full((len(drawn),), share)]).to(logits.device)
    return -F.cross_entropy(logits + stands_for, column_m, reduction="none")


def score(
    lm: LanguageModel,
    hidden_mC: Tensor,
    rows_n: Tensor,
    targets_n: Tensor,
    table: TargetTable,
    temperature: float,
    wanted: Wanted,
) -> Iterator[Scored]:
    """Scores `targets_n` (flat targets, none of them forced; predicted by rows `rows_n` of the hidden states) chunk by
    chunk, so that only one chunk's logits are alive and each chunk has its own graph.
    """

    budget = max_logits(hidden_mC.device) // (COPIES_FOR_ALTERNATIVES if wanted.alternatives else 1)
    branch_rows = table.branch_row_N[targets_n]
    free = torch.nonzero(branch_rows < 0)[:, 0]
    if wanted.negatives:
        for at in free.split(max(MIN_ROWS, budget // (2 * wanted.negatives))):
            targets = table.tokens_N[targets_n[at]]
            states = hidden_mC.index_select(0, rows_n[at])
            yield Scored(
                targets=targets_n[at],
                logprobs=sampled_logprobs(lm, states, targets, wanted.negatives, temperature),
            )
        free = free[:0]
    for at in free.split(max(MIN_ROWS, budget // lm.vocab_size)):
        logits = lm.logits(hidden_mC.index_select(0, rows_n[at]))
        if temperature != 1.0:
            logits = logits / temperature
        logprobs = -F.cross_entropy(logits, table.tokens_N[targets_n[at]], reduction="none")
        more = Details()
        if wanted.entropy or wanted.alternatives:
            kept = logits if wanted.columns_NK is not None else logits.detach()
            more = details(kept.log_softmax(dim=-1), wanted, targets_n[at], nameable=wanted.named_rows)
        yield Scored(**vars(more), targets=targets_n[at], logprobs=logprobs)
    branching = torch.nonzero(branch_rows >= 0)[:, 0]
    width = max(1, table.allowed_BJ.shape[1] * lm.hidden_size)
    for at in branching.split(max(1, budget // width)):
        rows = branch_rows[at]
        logits = lm.compute_logits(hidden_mC.index_select(0, rows_n[at]), table.allowed_BJ[rows])
        log_probs = constrained_logits(logits, table.bias_BJ[rows], table.scale, temperature).log_softmax(dim=-1)
        logprobs = log_probs.gather(1, table.chosen_B[rows][:, None])[:, 0]
        more = details(log_probs, wanted, targets_n[at], table.allowed_BJ[rows])
        yield Scored(**vars(more), targets=targets_n[at], logprobs=logprobs)
