"""Choosing among whole sequences: the ranking part of a response as a Plackett-Luce draw.

With `whole_sequences` the k-th sequence of a response is chosen among those not yet used with the logit

    s_j = (scale * sum_t log p_LM(token_t of j | prompt, response up to the trigger) + prior_j) / temperature

so one tree-shaped forward pass after the trigger decides the whole order. The choice's log-probability is at the
sequence's first token; every other token of the ranking part follows from it and has log-probability 0. (Renormalising
token by token would lose the information in later tokens where few sequences share a prefix.)

The tokens before the trigger and all sequences are computed in the same pass (packing.Tree): the prompt once, every
reasoning once after it, every sequence once after its reasoning.

Shape legend: N targets, R responses with a ranking part, X contexts (prompt + free tokens), J sequences (padded), K
choices, S tokens of all contexts' sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gr2_worker.errors import InvalidRequest
from gr2_worker.model import packing
from gr2_worker.model.lm import LanguageModel
from gr2_worker.model.prefix_cache import PrefixCache
from gr2_worker.scoring.constraints import CompiledConstraint, Replay
from gr2_worker.scoring.logprobs import TargetTable, Wanted, compute_entropy, score
from gr2_worker.types import Bools, GroupBatch, Int32s, Int64s, segment_starts


@dataclass(frozen=True)
class Context:
    """The tokens before a ranking part, and the sequences that may follow."""

    entry: int  # of the constraint
    prompt: Int32s
    free: Int32s  # tokens of the response up to and including the trigger


@dataclass(frozen=True)
class Choices:
    """The rankings of given responses."""

    token_path_N: Bools  # targets scored token by token: free ones that are not forced
    choice_N: Bools  # targets that carry a choice's log-prob
    contexts: list[Context]
    response_R: Int64s  # of the batch
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
    context_indices: list[int] = []
    orders: list[list[int]] = []
    places: list[list[int]] = []
    ranked = np.flatnonzero(found.ranking_start_R >= 0)
    for response in ranked.tolist():
        entry = int(batch.group_of_response[response])
        first = int(batch.target_starts[response])
        start = first + int(found.ranking_start_R[response])
        end = first + int(batch.response_lengths[response])
        token_path[start:end] = False
        free = targets[first:start]
        key = (entry, free.tobytes())
        if key not in known:
            known[key] = len(contexts)
            contexts.append(Context(entry, packing.group_prompt(batch, entry), free))
        if entry not in spelled:
            spelled[entry] = {tuple(s.tolist()): j for j, s in enumerate(sequences(compiled, entry))}
        order, place = _order(spelled[entry], compiled, targets[start:end], response)
        choice[start + np.asarray(place, dtype=np.int64)] = True
        context_indices.append(known[key])
        orders.append(order)
        places.append([start + p for p in place])
    width = max((len(o) for o in orders), default=0)
    pad = [[-1] * (width - len(o)) for o in orders]
    as_matrix = [np.asarray([v + p for v, p in zip(m, pad, strict=True)], dtype=np.int64) for m in (orders, places)]
    order_RK, targets_RK = (m.reshape(len(orders), width) for m in as_matrix)
    context_R = np.asarray(context_indices, dtype=np.int64)
    return Choices(token_path, choice, contexts, ranked, context_R, order_RK, targets_RK)


def sequences(compiled: CompiledConstraint, entry: int) -> list[Int32s]:
    """The sequences of one entry."""
    lengths = compiled.lengths_EJ[entry]
    return [compiled.tokens_EJL[entry, j, : lengths[j]] for j in np.flatnonzero(lengths > 0)]


def _order(
    spelled: dict[tuple[int, ...], int], compiled: CompiledConstraint, tokens: Int32s, response: int
) -> tuple[list[int], list[int]]:
    """Sequences in the order of the response, and where each begins. The replay has checked everything else."""
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


@dataclass(frozen=True)
class Candidates:
    """The tokens of every context's sequences, flat. In trees they are the targets first_target,
    first_target + 1, ...
    """

    contexts: list[Context]
    first_target: int
    tokens_S: Int64s
    context_S: Int64s
    sequence_S: Int64s
    starts_X: Int64s  # where a context's tokens begin

    @staticmethod
    def of(compiled: CompiledConstraint, contexts: list[Context], first_target: int) -> Candidates:
        counts = [np.asarray([len(s) for s in sequences(compiled, c.entry)]) for c in contexts]
        numbers = [np.flatnonzero(compiled.lengths_EJ[c.entry] > 0) for c in contexts]
        totals = np.asarray([count.sum() for count in counts], dtype=np.int64)
        return Candidates(
            contexts,
            first_target,
            _flat([s for c in contexts for s in sequences(compiled, c.entry)]),
            np.repeat(np.arange(len(contexts)), totals),
            _flat([np.repeat(number, count) for number, count in zip(numbers, counts, strict=True)]),
            segment_starts(totals),
        )

    def leaves(self, compiled: CompiledConstraint, context: int) -> tuple[packing.Branch, ...]:
        """A context's sequences; the last token of each is only predicted."""
        at = self.first_target + int(self.starts_X[context])
        leaves = []
        for spelled in sequences(compiled, self.contexts[context].entry):
            steps = np.arange(len(spelled))
            leaves.append(packing.Branch(spelled[:-1], steps - 1, at + steps))
            at += len(spelled)
        return tuple(leaves)


def _flat(parts: list[npt.NDArray[np.integer]]) -> Int64s:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def build_context_trees(
    batch: GroupBatch,
    wanted_N: Bools,
    compiled: CompiledConstraint,
    choices: Choices,
    candidates: Candidates,
    needed_X: Bools,
) -> list[packing.Tree]:
    """Trees of the wanted free targets and of the needed contexts' sequences, as continuations of the same tokens."""
    context_by_response = dict(zip(choices.response_R.tolist(), choices.context_R.tolist(), strict=True))
    trees = []
    response = 0
    for group in range(batch.num_groups):
        plain: list[packing.Branch] = []
        at_context: dict[int, list[packing.Branch]] = {}
        for _ in range(int(batch.group_sizes[group])):
            first = int(batch.target_starts[response])
            wanted = np.flatnonzero(wanted_N[first : first + int(batch.response_lengths[response])])
            context = context_by_response.get(response, -1)
            own = at_context.setdefault(context, []) if context >= 0 and needed_X[context] else plain
            if len(wanted):
                start = int(batch.response_starts[response])
                own.append(packing.Branch(batch.tokens[start : start + int(wanted[-1])], wanted - 1, first + wanted))
            response += 1
        branches = [*plain]
        for context, own in at_context.items():
            leaves = candidates.leaves(compiled, context)
            branches.append(_branch(candidates.contexts[context].free, own, leaves))
        if branches:
            trees.append(packing.Tree(packing.group_prompt(batch, group), tuple(branches)))
    return trees


def _branch(free: Int32s, own: list[packing.Branch], leaves: tuple[packing.Branch, ...]) -> packing.Branch:
    """A context's sequences after its free tokens, which also predict the wanted targets of responses with equal
    tokens.
    """
    return packing.Branch(free, _flat([b.predict_at for b in own]), _flat([b.targets for b in own]), leaves)


def sequence_scores(
    model: LanguageModel,
    compiled: CompiledConstraint,
    candidates: Candidates,
    hidden_SC: Tensor,
    of_S: Int64s,
    temperature: float,
) -> tuple[Int64s, Tensor]:
    """s [X', J] of the contexts whose tokens `of_S` (all of theirs) the hidden states predict, and
    which contexts they are.

    -inf where there is no sequence; with graph if gradients are on.
    """
    device = model.device
    table = TargetTable.build(torch.from_numpy(candidates.tokens_S[of_S]), None, None, device)
    numbers = torch.arange(len(of_S), device=device)
    scored = list(score(model, hidden_SC, numbers, numbers, table, 1.0, Wanted()))
    logprobs = torch.cat([x.logprobs for x in scored])
    order = torch.cat([x.targets for x in scored])
    chosen, row_S = np.unique(candidates.context_S[of_S], return_inverse=True)
    width = compiled.lengths_EJ.shape[1]
    cell_S = torch.from_numpy(row_S * width + candidates.sequence_S[of_S]).to(device)
    likelihood = torch.zeros(len(chosen) * width, device=device).index_add(0, cell_S[order], logprobs.float())
    entries = np.asarray([candidates.contexts[x].entry for x in chosen])
    prior = torch.from_numpy(compiled.prior_EJ[entries]).to(device=device, dtype=torch.float32)
    open_XJ = torch.from_numpy(compiled.lengths_EJ[entries] > 0).to(device)
    scores = (compiled.scale * likelihood.view(len(chosen), width) + prior) / temperature
    return chosen, scores.masked_fill(~open_XJ, float("-inf"))


def scores(
    model: LanguageModel,
    compiled: CompiledConstraint,
    contexts: list[Context],
    temperature: float,
    budget: int,
    prefixes: PrefixCache | None = None,
) -> Tensor:
    """s [X, J] of some contexts, without gradients; prefixes: a cache of prompts that need not be computed."""
    candidates = Candidates.of(compiled, contexts, 0)
    branches: dict[int, list[packing.Branch]] = {}
    for number, context in enumerate(contexts):
        branch = _branch(context.free, [], candidates.leaves(compiled, number))
        branches.setdefault(context.entry, []).append(branch)
    prompts = {context.entry: context.prompt for context in contexts}
    trees = [packing.Tree(prompts[entry], tuple(own)) for entry, own in branches.items()]
    out = torch.empty(len(contexts), compiled.lengths_EJ.shape[1], device=model.device)
    if prefixes is not None:
        trees = prefixes.find(trees)
        if not len(compiled.trigger):  # else the prompts were counted when their reasoning began
            prefixes.count(trees)
    for micro_batch in packing.plan(trees, budget):
        hidden = model.predicting_states(micro_batch) if prefixes is None else prefixes.compute(model, micro_batch)[0]
        chosen, values = sequence_scores(model, compiled, candidates, hidden, micro_batch.targets.numpy(), temperature)
        out[torch.from_numpy(chosen).to(model.device)] = values
    return out


def chunks(compiled: CompiledConstraint, contexts: list[Context], budget: int) -> Iterator[slice]:
    """Runs of contexts whose prompts, free tokens and sequences have at most `budget` tokens (one context at least)."""
    start = used = 0
    for x, context in enumerate(contexts):
        size = len(context.free) + int(compiled.lengths_EJ[context.entry].sum())
        if x == start or contexts[x - 1].entry != context.entry:
            size += len(context.prompt)
        if x > start and used + size > budget:
            yield slice(start, x)
            start, used = x, 0
        used += size
    if start < len(contexts):
        yield slice(start, len(contexts))


def place_distributions(scores_RJ: Tensor, order_RK: Tensor) -> Iterator[Tensor]:
    """At every rank, log-probs [R, J] of the remaining sequences (-inf: used); arbitrary where padded (-1)."""
    open_RJ = torch.isfinite(scores_RJ)
    for k in range(order_RK.shape[1]):
        chosen = order_RK[:, k].clamp(min=0)[:, None]
        real = order_RK[:, k] >= 0
        # A row with nothing left keeps its scores, so that no NaN arises where the result is masked out anyway.
        usable = open_RJ | ~open_RJ.any(dim=1, keepdim=True)
        yield scores_RJ.masked_fill(~usable, float("-inf")).log_softmax(dim=1)
        open_RJ = open_RJ.scatter(1, chosen, open_RJ.gather(1, chosen) & ~real[:, None])


def choice_logprobs(scores_RJ: Tensor, order_RK: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of every choice [R, K] (Plackett-Luce); 0 where the order is padded (-1)."""
    logprobs, entropies = [], []
    for k, log_p in enumerate(place_distributions(scores_RJ, order_RK)):
        real = order_RK[:, k] >= 0
        picked = log_p.gather(1, order_RK[:, k].clamp(min=0)[:, None])[:, 0]
        logprobs.append(torch.where(real, picked, torch.zeros_like(picked)))
        entropies.append(torch.where(real, compute_entropy(log_p.detach()), torch.zeros_like(picked)))
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
