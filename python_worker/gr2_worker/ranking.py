"""Choosing among whole sequences: the ranking part of a response as a Plackett-Luce draw.

With `whole_sequences` the k-th sequence of a response is chosen among those not yet used with the logit

    s_j = (scale * sum_t log p_LM(token_t of j | prompt, response up to the trigger) + prior_j) / temperature

so one tree-shaped forward pass behind the trigger decides the whole order. The choice's log-probability stands at the
sequence's first token; every other token of the ranking part follows from it and has log-probability 0. (Local
renormalisation, token by token, loses what a sequence's later tokens say where few sequences share a prefix.)

Shape legend: N targets, R responses with a ranking part, X contexts (prompt + free tokens), J sequences (padded), K choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import packing
from .constraints import CompiledConstraint, Replay
from .errors import InvalidRequest
from .lm import LanguageModel
from .scoring import TargetTable, entropy_of, score
from .types import Bools, GroupBatch, Int32s, Int64s


@dataclass(frozen=True)
class Context:
    """What stands before a ranking part, and the sequences that may follow."""

    entry: int  # of the constraint
    tokens: Int32s


@dataclass(frozen=True)
class Choices:
    """The rankings of given responses."""

    token_path_N: Bools  # targets scored token by token: free ones that are not forced
    choice_N: Bools  # targets that carry a choice's log-prob
    contexts: list[Context]
    context_R: Int64s
    order_RK: Int64s  # sequence chosen at each rank, -1 = padding
    targets_RK: Int64s  # flat target that carries the choice, -1 = padding


def read_choices(compiled: CompiledConstraint, found: Replay, batch: GroupBatch) -> Choices:
    """Reads which sequence every response chose at every rank. Raises InvalidRequest for a sequence cut short."""
    targets = batch.targets
    token_path = ~found.forced_N
    choice = np.zeros(batch.num_targets, dtype=np.bool_)
    contexts: list[Context] = []
    known: dict[tuple[int, bytes], int] = {}
    spelled: dict[int, dict[tuple[int, ...], int]] = {}
    context_of: list[int] = []
    orders: list[list[int]] = []
    places: list[list[int]] = []
    for response in np.flatnonzero(found.ranking_start_R >= 0).tolist():
        entry = int(batch.group_of_response[response])
        first = int(batch.target_starts[response])
        start = first + int(found.ranking_start_R[response])
        end = first + int(batch.response_lengths[response])
        token_path[start:end] = False
        free = targets[first:start]
        key = (entry, free.tobytes())
        if key not in known:
            known[key] = len(contexts)
            at = int(batch.prompt_starts[entry])
            prompt = batch.tokens[at : at + int(batch.prompt_lengths[entry])]
            contexts.append(Context(entry, np.concatenate([prompt, free])))
        if entry not in spelled:
            spelled[entry] = {tuple(s.tolist()): j for j, s in enumerate(sequences(compiled, entry))}
        order, place = _order(spelled[entry], compiled, targets[start:end], response)
        choice[start + np.asarray(place, dtype=np.int64)] = True
        context_of.append(known[key])
        orders.append(order)
        places.append([start + p for p in place])
    width = max((len(o) for o in orders), default=0)
    pad = [[-1] * (width - len(o)) for o in orders]
    as_matrix = [np.asarray([v + p for v, p in zip(m, pad, strict=True)], dtype=np.int64) for m in (orders, places)]
    order_RK, targets_RK = (m.reshape(len(orders), width) for m in as_matrix)
    return Choices(token_path, choice, contexts, np.asarray(context_of, dtype=np.int64), order_RK, targets_RK)


def sequences(compiled: CompiledConstraint, entry: int) -> list[Int32s]:
    """The sequences of one entry."""
    lengths = compiled.lengths_EJ[entry]
    return [compiled.tokens_EJL[entry, j, : lengths[j]] for j in np.flatnonzero(lengths > 0)]


def _order(
    spelled: dict[tuple[int, ...], int], compiled: CompiledConstraint, tokens: Int32s, response: int
) -> tuple[list[int], list[int]]:
    """Sequences in the order they were written, and where each begins. The replay has checked everything else."""
    lengths = sorted({len(s) for s in spelled})
    order: list[int] = []
    places: list[int] = []
    at = 0
    limit = int(compiled.limits_E.max())
    while at < len(tokens) and len(order) < limit:
        for length in lengths:
            j = spelled.get(tuple(tokens[at : at + length].tolist()))
            if j is not None:
                break
        else:
            if len(order) and len(tokens) - at <= len(compiled.terminator):
                break
            raise InvalidRequest(f"response {response} ends inside a sequence")
        order.append(j)
        places.append(at)
        at += length + len(compiled.separator)
    return order, places


def scoring_batch(compiled: CompiledConstraint, contexts: list[Context]) -> GroupBatch:
    """Every context as a prompt, with its sequences as responses."""
    parts: list[Int32s] = []
    counts: list[int] = []
    lengths: list[int] = []
    for context in contexts:
        spelled = sequences(compiled, context.entry)
        parts.extend([context.tokens, *spelled])
        counts.append(len(spelled))
        lengths.extend(len(s) for s in spelled)
    return GroupBatch(
        tokens=np.concatenate(parts).astype(np.int32),
        prompt_lengths=np.asarray([len(c.tokens) for c in contexts], dtype=np.int64),
        group_sizes=np.asarray(counts, dtype=np.int64),
        response_lengths=np.asarray(lengths, dtype=np.int64),
    )


def chunks(compiled: CompiledConstraint, contexts: list[Context], budget: int) -> Iterator[slice]:
    """Runs of contexts whose prompts and sequences hold at most `budget` tokens (one context at least)."""
    sizes = [len(c.tokens) + int(compiled.lengths_EJ[c.entry].sum()) for c in contexts]
    start = used = 0
    for x, size in enumerate(sizes):
        if x > start and used + size > budget:
            yield slice(start, x)
            start, used = x, 0
        used += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def scores(
    model: LanguageModel, compiled: CompiledConstraint, contexts: list[Context], temperature: float, budget: int
) -> Tensor:
    """s [X, J] of some contexts, -inf where there is no sequence; with graph if gradients are on."""
    batch = scoring_batch(compiled, contexts)
    table = TargetTable.build(torch.from_numpy(batch.targets.astype(np.int64)), None, None, model.device)
    everything = np.ones(batch.num_targets, dtype=np.bool_)
    at: list[Tensor] = []
    found: list[Tensor] = []
    for micro_batch in packing.plan(batch, everything, budget):
        targets = micro_batch.targets.to(model.device)
        hidden = model.hidden(
            micro_batch.input_ids_BT.to(model.device),
            micro_batch.position_ids_BT.to(model.device),
            micro_batch.mask(model.device),
        )
        hidden = hidden.flatten(0, 1).index_select(0, micro_batch.predict.to(model.device))
        for scored in score(model, hidden, targets, table, 1.0, False):
            at.append(targets[scored.positions])
            found.append(scored.logprobs)
    response_of = np.repeat(np.arange(batch.num_responses), batch.response_lengths)
    of_target = torch.from_numpy(response_of).to(model.device)[torch.cat(at)]
    total = torch.zeros(batch.num_responses, device=model.device)
    likelihood = total.index_add(0, of_target, torch.cat(found).float())
    width = compiled.lengths_EJ.shape[1]
    rank_in_group = np.concatenate([np.arange(n) for n in batch.group_sizes])
    flat = torch.from_numpy(batch.group_of_response * width + rank_in_group).to(model.device)
    prior = torch.from_numpy(
        np.concatenate([compiled.prior_EJ[c.entry, : len(sequences(compiled, c.entry))] for c in contexts])
    ).to(device=model.device, dtype=torch.float32)
    empty = torch.full((len(contexts) * width,), float("-inf"), device=model.device)
    filled = empty.index_put((flat,), (compiled.scale * likelihood + prior) / temperature)
    return filled.reshape(len(contexts), width)


def choice_logprobs(scores_RJ: Tensor, order_RK: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of every choice [R, K] (Plackett-Luce); 0 where the order is padded (-1)."""
    open_RJ = torch.isfinite(scores_RJ)
    logprobs, entropies = [], []
    for k in range(order_RK.shape[1]):
        chosen = order_RK[:, k].clamp(min=0)[:, None]
        real = order_RK[:, k] >= 0
        # A row without anything left keeps its scores, so that no NaN arises where the answer is masked out anyway.
        usable = open_RJ | ~open_RJ.any(dim=1, keepdim=True)
        log_p = scores_RJ.masked_fill(~usable, float("-inf")).log_softmax(dim=1)
        picked = log_p.gather(1, chosen)[:, 0]
        logprobs.append(torch.where(real, picked, torch.zeros_like(picked)))
        entropies.append(torch.where(real, entropy_of(log_p.detach()), torch.zeros_like(picked)))
        open_RJ = open_RJ.scatter(1, chosen, open_RJ.gather(1, chosen) & ~real[:, None])
    return torch.stack(logprobs, dim=1), torch.stack(entropies, dim=1)


def draw_order(scores_J: npt.NDArray[np.float64], noise_J: npt.NDArray[np.float64] | None, limit: int) -> Int64s:
    """An order of the sequences: by score, or with uniform noise a Plackett-Luce draw (Gumbel trick)."""
    values = scores_J if noise_J is None else scores_J - np.log(-np.log(np.clip(noise_J, 1e-300, 1 - 1e-16)))
    order = np.argsort(-values, kind="stable")
    return order[np.isfinite(scores_J[order])][:limit].astype(np.int64)


def written(
    compiled: CompiledConstraint, entry: int, order: Int64s, logprobs_K: npt.NDArray[np.float32]
) -> tuple[list[int], list[float]]:
    """The ranking part of a response: its tokens and their log-probs."""
    tokens: list[int] = []
    values: list[float] = []
    spelled = sequences(compiled, entry)
    for k, j in enumerate(order.tolist()):
        if k:
            tokens.extend(compiled.separator.tolist())
        values.extend([0.0] * (len(tokens) - len(values)))
        values.append(float(logprobs_K[k]))
        tokens.extend(spelled[j].tolist())
        values.extend([0.0] * (len(tokens) - len(values)))
    tokens.extend(compiled.terminator.tolist())
    values.extend([0.0] * (len(tokens) - len(values)))
    return tokens, values
