"""How the targets of a batch are scored: token by token, as a choice among whole sequences, or not at all, because the
constraint leaves no choice. Sits between the request (types.py) and the formulas (logprobs.py, plackett_luce.py); no
loss, no model.

Every target has a table of its open alternatives, which are named by their ids in it:

    free        the vocabulary: a token
    branching   the tokens the constraint allows there: a token
    choice      the group's sequences not yet used: the number of the sequence (several may start with the same token)
    certain only its own token, with log-prob 0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gr2_worker.errors import InvalidRequest
from gr2_worker.model import packing
from gr2_worker.model.lm import LanguageModel
from gr2_worker.scoring import plackett_luce
from gr2_worker.scoring.constraints import CompiledConstraint, Replay, compile_constraint, replay
from gr2_worker.scoring.logprobs import Details, Scored, TargetTable, Wanted, details, max_logits, score
from gr2_worker.types import Bools, GroupBatch, Int32s, Int64s, PermutationConstraint, TopTokens

NOTHING = -1  # after the last alternative
NOT_OPEN = -2


@dataclass(frozen=True)
class Targets:
    """A request's targets, and how each is scored."""

    batch: GroupBatch
    table: TargetTable
    token_path_N: Bools
    certain_N: Bools  # log-prob exactly 0
    branching: Replay | None = None  # of a constraint that works token by token
    ranked: Ranked | None = None

    def trees(self, wanted_N: Bools) -> list[packing.Tree]:
        """What must be computed for the wanted targets."""
        wanted = wanted_N & self.token_path_N
        if self.ranked is None:
            return packing.build_group_trees(self.batch, wanted)
        compiled, choices, candidates = self.ranked.compiled, self.ranked.choices, self.ranked.candidates
        needed = np.zeros(len(choices.contexts), dtype=np.bool_)
        asked_RK = (choices.targets_RK >= 0) & wanted_N[choices.targets_RK]
        needed[choices.context_R[asked_RK.any(axis=1)]] = True
        return plackett_luce.build_context_trees(self.batch, wanted, compiled, choices, candidates, needed)

    def nothing_but_certain(self, k: int) -> TopTokens:
        """Alternatives [N, k] to be filled in: the certain targets have their own token, the others nothing yet."""
        ids = np.full((self.batch.num_targets, k), NOTHING, dtype=np.int32)
        logprobs = np.full(ids.shape, -np.inf, dtype=np.float32)
        ids[self.certain_N, 0] = self.batch.targets[self.certain_N]
        logprobs[self.certain_N, 0] = 0.0
        return TopTokens(ids, logprobs)

    def columns(self, ids_NK: Int32s, vocab_size: int, needed_N: Bools) -> Int64s:
        """Columns of given alternatives in the table of each target [N, K]; negative = none given.

        Raises InvalidRequest if one of a needed target is not open there or given twice, or if none is given at all.
        """
        ids = ids_NK.astype(np.int64)
        columns = np.where(ids < vocab_size, ids, NOT_OPEN)
        if self.branching is not None:
            at = self.branching.branching
            match_BKJ = self.branching.tokens_BJ[:, None, :] == ids[at][:, :, None]
            columns[at] = np.where(match_BKJ.any(axis=2), match_BKJ.argmax(axis=2), NOT_OPEN)
        if self.ranked is not None:
            choices, lengths_EJ = self.ranked.choices, self.ranked.compiled.lengths_EJ
            count_R = np.asarray([(lengths_EJ[choices.contexts[x].entry] > 0).sum() for x in choices.context_R])
            for k in range(choices.targets_RK.shape[1]):
                rows = np.flatnonzero(choices.targets_RK[:, k] >= 0)
                at = choices.targets_RK[rows, k]
                used = (ids[at][:, :, None] == choices.order_RK[rows, None, :k]).any(axis=2)
                columns[at] = np.where(used | (ids[at] >= count_R[rows, None]), NOT_OPEN, ids[at])
        columns[ids < 0] = NOTHING
        sorted_ids = np.sort(ids, axis=1)
        twice_N = ((sorted_ids[:, 1:] == sorted_ids[:, :-1]) & (sorted_ids[:, 1:] >= 0)).any(axis=1)
        wrong_N = (columns == NOT_OPEN).any(axis=1) | (columns[:, 0] == NOTHING) | twice_N
        wrong = np.flatnonzero(wrong_N & needed_N & ~self.certain_N)
        if len(wrong):
            raise InvalidRequest(
                f"the alternatives given for target {wrong[0]} must be open there, each once, and at least one: "
                f"{ids[wrong[0]].tolist()}"
            )
        return columns


@dataclass(frozen=True)
class Ranked:
    """Responses that end in a choice among whole sequences."""

    compiled: CompiledConstraint
    choices: plackett_luce.Choices
    candidates: plackett_luce.Candidates


def read(model: LanguageModel, batch: GroupBatch, constraint: PermutationConstraint | None) -> Targets:
    """Checks a batch against the model and replays its constraint. Raises InvalidRequest."""
    if len(batch.tokens) and (batch.tokens.min() < 0 or batch.tokens.max() >= model.vocab_size):
        raise InvalidRequest(f"batch contains a token outside the vocabulary of {model.vocab_size}")
    if batch.num_responses:
        longest = int((batch.prompt_lengths[batch.group_of_response] + batch.response_lengths).max())
        if model.max_positions and longest > model.max_positions:
            raise InvalidRequest(f"a sequence of {longest} tokens exceeds the model's {model.max_positions} positions")
    tokens = torch.from_numpy(batch.targets.astype(np.int64))
    if constraint is None:
        everything = np.ones(batch.num_targets, dtype=np.bool_)
        return Targets(batch, TargetTable.build(tokens, None, None, model.device), everything, ~everything)
    compiled = compile_constraint(constraint, batch.num_groups, model.vocab_size)
    found = replay(compiled, batch)
    if compiled.whole_sequences:
        choices = plackett_luce.read_choices(compiled, found, batch)
        candidates = plackett_luce.Candidates.of(compiled, choices.contexts, batch.num_targets)
        table = TargetTable.build(tokens, None, None, model.device)
        certain = ~choices.token_path_N & ~choices.choice_N
        ranked = Ranked(compiled, choices, candidates)
        return Targets(batch, table, choices.token_path_N, certain, ranked=ranked)
    table = TargetTable.build(tokens, compiled, found, model.device)
    return Targets(batch, table, ~found.forced_N, found.forced_N, branching=found)


def scored(
    model: LanguageModel,
    targets: Targets,
    micro_batch: packing.MicroBatch,
    hidden_nC: Tensor,
    temperature: float,
    wanted: Wanted,
) -> Iterator[Scored]:
    """Scores a micro-batch chunk by chunk, flat targets: tokens first, then choices among whole sequences."""
    num_targets = targets.batch.num_targets
    is_token = micro_batch.targets < num_targets
    own = torch.nonzero(is_token)[:, 0].to(model.device)
    at = micro_batch.targets[is_token].to(model.device)
    if len(at):
        yield from score(model, hidden_nC, own, at, targets.table, temperature, wanted)
    if targets.ranked is None:
        return
    compiled, choices, candidates = targets.ranked.compiled, targets.ranked.choices, targets.ranked.candidates
    places = torch.nonzero(~is_token)[:, 0]
    of_S = micro_batch.targets[places].numpy() - num_targets
    for chunk in _runs(candidates.context_S[of_S], max_logits(model.device) // model.vocab_size):
        states = hidden_nC.index_select(0, places[chunk].to(model.device))
        contexts, scores_XJ = plackett_luce.sequence_scores(
            model, compiled, candidates, states, of_S[chunk], temperature
        )
        rows = np.flatnonzero(np.isin(choices.context_R, contexts))
        context_row = torch.from_numpy(np.searchsorted(contexts, choices.context_R[rows])).to(model.device)
        order = torch.from_numpy(choices.order_RK[rows]).to(model.device)
        logprobs, entropy = plackett_luce.choice_logprobs(scores_XJ[context_row], order)
        carriers = torch.from_numpy(choices.targets_RK[rows]).to(model.device)
        real = carriers >= 0
        more = Details()
        if wanted.alternatives:
            log_probs_RKJ = torch.stack(list(plackett_luce.place_distributions(scores_XJ[context_row], order)), dim=1)
            more = details(log_probs_RKJ[real], wanted, carriers[real])
        yield Scored(entropy[real], more.top, more.given, targets=carriers[real], logprobs=logprobs[real])


def _runs(keys: Int64s, limit: int) -> Iterator[slice]:
    """Slices of at most `limit` entries that never part a run of equal keys (one run at least)."""
    ends = [*(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)] if len(keys) else []
    start = before = 0
    for end in ends:
        if before > start and end - start > limit:
            yield slice(start, before)
            start = before
        before = end
    if before > start:
        yield slice(start, before)
