"""The permutation automaton: which tokens may come next, and with which log-prior mass. One implementation, vectorised
over rows, used for sampling and for the replay of given responses, so that both see the same distribution.

States of a row:  FREE (no constraint)  WAIT (trigger not yet seen: unconstrained)  SPELL (inside a sequence)
SEPARATOR and TERMINATOR (forced)  DONE (nothing may follow)  TRIGGER (forced: the free part has used up its tokens).

At a trie node an allowed token t has the logit  scale * logit_LM(t) + bias(t),
bias(t) = log sum over remaining sequences j through t of exp(prior_j)  (worker.proto;
product of experts made generative).

Shape legend: E entries (groups or prompts), R rows, J sequences per entry (padded), L tokens per sequence (padded).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gr2_worker.errors import InvalidRequest
from gr2_worker.types import Bools, Float32s, GroupBatch, Int32s, Int64s, PermutationConstraint

FREE, WAIT, SPELL, SEPARATOR, TERMINATOR, DONE, TRIGGER = range(7)
NO_TOKEN = -1


@dataclass(frozen=True)
class CompiledConstraint:
    """A validated constraint as padded matrices."""

    tokens_EJL: Int32s  # NO_TOKEN after a sequence's end
    lengths_EJ: Int64s  # 0 = no such sequence
    prior_EJ: npt.NDArray[np.float64]
    limits_E: Int64s  # sequences to emit before the terminator; 0 = unconstrained
    scale: float
    trigger: Int32s
    separator: Int32s
    terminator: Int32s
    whole_sequences: bool = False
    max_free_tokens: int = 0


def compile_constraint(constraint: PermutationConstraint, num_entries: int, vocab_size: int) -> CompiledConstraint:
    """Checks a constraint against `num_entries` groups (or prompts) and pads it. Raises InvalidRequest."""
    counts, lengths = constraint.sequence_counts, constraint.sequence_lengths
    if len(counts) != num_entries:
        raise InvalidRequest(f"constraint.sequence_counts has {len(counts)} entries, expected {num_entries}")
    if constraint.scale <= 0 or not np.isfinite(constraint.scale):
        raise InvalidRequest(f"constraint.scale must be > 0, got {constraint.scale}")
    if len(constraint.prior) and not np.isfinite(constraint.prior).all():
        raise InvalidRequest("constraint.prior must be finite")
    fixed = [*constraint.trigger, *constraint.separator, *constraint.terminator]
    every = np.concatenate([constraint.sequence_tokens, np.asarray(fixed, dtype=np.int32)])
    if len(every) and (every.min() < 0 or every.max() >= vocab_size):
        raise InvalidRequest(f"constraint contains a token outside the vocabulary of {vocab_size}")
    num_j = max(1, int(counts.max(initial=0)))
    tokens = np.full((num_entries, num_j, max(1, int(lengths.max(initial=0)))), NO_TOKEN, dtype=np.int32)
    padded_lengths = np.zeros((num_entries, num_j), dtype=np.int64)
    prior = np.zeros((num_entries, num_j), dtype=np.float64)
    sequence = offset = 0
    for entry, count in enumerate(counts.tolist()):
        spelled: list[tuple[int, ...]] = []
        for j in range(count):
            length = int(lengths[sequence])
            tokens[entry, j, :length] = constraint.sequence_tokens[offset : offset + length]
            spelled.append(tuple(constraint.sequence_tokens[offset : offset + length].tolist()))
            padded_lengths[entry, j] = length
            prior[entry, j] = constraint.prior[sequence]
            sequence, offset = sequence + 1, offset + length
        spelled.sort()
        # In sorted order a prefix comes right before its extensions, so comparing neighbours is enough.
        for shorter, longer in itertools.pairwise(spelled):
            if longer[: len(shorter)] == shorter:
                raise InvalidRequest(f"constraint entry {entry}: a sequence is equal to, or a prefix of, another one")
    limits = counts if constraint.max_sequences <= 0 else np.minimum(counts, constraint.max_sequences)
    trigger, separator, terminator = (
        np.asarray(t, dtype=np.int32) for t in (constraint.trigger, constraint.separator, constraint.terminator)
    )
    return CompiledConstraint(
        tokens_EJL=tokens,
        lengths_EJ=padded_lengths,
        prior_EJ=prior,
        limits_E=limits.astype(np.int64),
        scale=constraint.scale,
        trigger=trigger,
        separator=separator,
        terminator=terminator,
        whole_sequences=constraint.whole_sequences,
        max_free_tokens=constraint.max_free_tokens,
    )


@dataclass(frozen=True)
class Allowed:
    """The tokens that may come next, for every row. `count` 0 with `constrained` = the response has to end here."""

    constrained_R: Bools
    count_R: Int64s  # distinct allowed tokens of constrained rows
    forced_R: Int32s  # the only allowed token where count is 1, else NO_TOKEN
    tokens_RJ: Int32s  # allowed tokens of rows with count > 1, NO_TOKEN elsewhere
    bias_RJ: Float32s  # their log-prior mass, -inf elsewhere


class Automaton:
    """The state of R rows, each bound to one entry of a compiled constraint."""

    def __init__(self, compiled: CompiledConstraint, entries: Int64s) -> None:
        """entries [R]: the constraint entry of each row."""
        self._compiled = compiled
        self._entry = entries.copy()
        rows, num_j = len(entries), compiled.lengths_EJ.shape[1]
        constrained = compiled.limits_E[entries] > 0
        self._phase = np.where(constrained, WAIT if len(compiled.trigger) else SPELL, FREE).astype(np.int8)
        self._depth = np.zeros(rows, dtype=np.int64)
        self._emitted = np.zeros(rows, dtype=np.int64)
        self._free = np.zeros(rows, dtype=np.int64)
        self._used = np.zeros((rows, num_j), dtype=np.bool_)
        self._active = compiled.lengths_EJ[entries] > 0
        self._window = np.full((rows, len(compiled.trigger)), NO_TOKEN, dtype=np.int32)

    @property
    def done_R(self) -> Bools:
        """Rows whose response is complete."""
        return self._phase == DONE

    @property
    def ranking_R(self) -> Bools:
        """Rows whose ranking part has begun."""
        return (self._phase > WAIT) & (self._phase != TRIGGER)

    @property
    def idle(self) -> bool:
        """True while no row is constrained."""
        return bool((self._phase <= WAIT).all())

    def select(self, rows: Int64s) -> Automaton:
        """A new automaton with the given rows (repeats allowed)."""
        chosen = object.__new__(Automaton)
        chosen._compiled = self._compiled
        for name in ("_entry", "_phase", "_depth", "_emitted", "_free", "_used", "_active", "_window"):
            setattr(chosen, name, getattr(self, name)[rows])
        return chosen

    def _candidates(self, rows: Int64s) -> Int32s:
        """[rows, J] the next token of every sequence still spelled, NO_TOKEN elsewhere."""
        tokens = self._compiled.tokens_EJL[self._entry[rows], :, self._depth[rows]]
        return np.where(self._active[rows], tokens, NO_TOKEN)

    def allowed(self) -> Allowed:
        """The tokens every row may emit next."""
        num_rows, num_j = self._active.shape
        forced = np.full(num_rows, NO_TOKEN, dtype=np.int32)
        count = np.zeros(num_rows, dtype=np.int64)
        tokens = np.full((num_rows, num_j), NO_TOKEN, dtype=np.int32)
        bias = np.full((num_rows, num_j), -np.inf, dtype=np.float32)
        for phase, fixed in self._fixed:
            rows = np.flatnonzero(self._phase == phase)
            if len(rows):
                forced[rows] = fixed[self._depth[rows]]
                count[rows] = 1
        rows = np.flatnonzero(self._phase == SPELL)
        if len(rows):
            candidates = self._candidates(rows)
            highest = candidates.max(axis=1)
            single = ((candidates == highest[:, None]) | (candidates == NO_TOKEN)).all(axis=1)
            forced[rows[single]] = highest[single]
            count[rows[single]] = 1
            branching = np.flatnonzero(~single)
            if len(branching):
                at = rows[branching]
                kept, mass = _branch(candidates[branching], self._compiled.prior_EJ[self._entry[at]])
                tokens[at], bias[at] = kept, mass
                count[at] = (kept != NO_TOKEN).sum(axis=1)
        return Allowed(self._phase > WAIT, count, forced, tokens, bias)

    def advance(self, tokens_R: Int32s, moving_R: Bools | None = None) -> Bools:
        """Consumes one token per row and returns which rows accepted theirs. Rows not in `moving_R` stay and accept."""
        moving = np.ones(len(tokens_R), dtype=np.bool_) if moving_R is None else moving_R
        phase = self._phase.copy()
        accepted = ~(moving & (phase == DONE))
        rows = np.flatnonzero(moving & (phase == WAIT))
        if len(rows):
            window = np.concatenate([self._window[rows, 1:], tokens_R[rows, None]], axis=1)
            self._window[rows] = window
            self._free[rows] += 1
            seen = (window == self._compiled.trigger).all(axis=1)
            self._start_sequence(rows[seen])
            if self._compiled.max_free_tokens:
                spent = rows[~seen & (self._free[rows] >= self._compiled.max_free_tokens)]
                self._phase[spent] = TRIGGER
                self._depth[spent] = 0
        for fixed_phase, fixed in self._fixed:
            rows = np.flatnonzero(moving & (phase == fixed_phase))
            if len(rows):
                accepted[rows] = fixed[self._depth[rows]] == tokens_R[rows]
                self._depth[rows] += 1
                ended = rows[self._depth[rows] == len(fixed)]
                if fixed_phase != TERMINATOR:
                    self._start_sequence(ended)
                else:
                    self._phase[ended] = DONE
        rows = np.flatnonzero(moving & (phase == SPELL))
        if len(rows):
            active = self._candidates(rows) == tokens_R[rows, None]
            active &= self._active[rows]
            accepted[rows] = active.any(axis=1)
            self._active[rows] = active
            self._depth[rows] += 1
            complete = active & (self._compiled.lengths_EJ[self._entry[rows]] == self._depth[rows, None])
            self._used[rows] |= complete
            self._end_sequence(rows[complete.any(axis=1)])
        return accepted

    @property
    def _fixed(self) -> tuple[tuple[int, Int32s], ...]:
        """Phases in which the next token is known."""
        c = self._compiled
        return (SEPARATOR, c.separator), (TERMINATOR, c.terminator), (TRIGGER, c.trigger)

    def _start_sequence(self, rows: Int64s) -> None:
        self._phase[rows] = SPELL
        self._depth[rows] = 0
        self._active[rows] = ~self._used[rows] & (self._compiled.lengths_EJ[self._entry[rows]] > 0)

    def _end_sequence(self, rows: Int64s) -> None:
        self._emitted[rows] += 1
        self._depth[rows] = 0
        last = self._emitted[rows] >= self._compiled.limits_E[self._entry[rows]]
        self._phase[rows[last]] = TERMINATOR if len(self._compiled.terminator) else DONE
        if len(self._compiled.separator):
            self._phase[rows[~last]] = SEPARATOR
        else:
            self._start_sequence(rows[~last])


def _branch(candidates_RJ: Int32s, prior_RJ: npt.NDArray[np.float64]) -> tuple[Int32s, Float32s]:
    """Distinct candidate tokens (first occurrence kept, NO_TOKEN elsewhere)
    and the log-sum-exp of the priors of each.
    """
    num_j = candidates_RJ.shape[1]
    same = (candidates_RJ[:, :, None] == candidates_RJ[:, None, :]) & (candidates_RJ != NO_TOKEN)[:, None, :]
    first = same.argmax(axis=2) == np.arange(num_j)
    keep = first & (candidates_RJ != NO_TOKEN)
    masked = np.where(same, prior_RJ[:, None, :], -np.inf)
    top = masked.max(axis=2)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        mass = top + np.log(np.exp(masked - top[:, :, None]).sum(axis=2))
    return (
        np.where(keep, candidates_RJ, NO_TOKEN).astype(np.int32),
        np.where(keep, mass, -np.inf).astype(np.float32),
    )


@dataclass(frozen=True)
class Replay:
    """The automaton's view of given responses, for flat targets."""

    forced_N: Bools  # log-prob exactly 0
    branching: Int64s  # [B] flat targets with more than one allowed token, ascending
    tokens_BJ: Int32s  # their allowed tokens, NO_TOKEN = padding
    bias_BJ: Float32s  # their log-prior mass, -inf = padding
    chosen_B: Int64s  # column of the token that was emitted
    ranking_start_R: Int64s  # [responses] where the ranking part begins, counted within the response; -1 = nowhere


def replay(compiled: CompiledConstraint, batch: GroupBatch) -> Replay:
    """Walks every response through the automaton. Raises InvalidRequest naming the response
    and token of a violation.
    """
    forced = np.zeros(batch.num_targets, dtype=np.bool_)
    responses = np.flatnonzero(compiled.limits_E[batch.group_of_response] > 0)
    # Longest first: the rows still running are always the leading ones.
    responses = responses[np.argsort(-batch.response_lengths[responses], kind="stable")]
    lengths, starts = batch.response_lengths[responses], batch.target_starts[responses]
    automaton = Automaton(compiled, batch.group_of_response[responses])
    targets = batch.targets
    ranking_start = np.full(batch.num_responses, -1, dtype=np.int64)
    ranking_start[responses[automaton.ranking_R]] = 0
    found: list[tuple[Int64s, Int32s, Float32s]] = []
    for t in range(int(lengths.max(initial=0))):
        running = int(np.searchsorted(-lengths, -t, side="left"))
        if running < len(automaton._entry):
            automaton = automaton.select(np.arange(running))
        at = starts[:running] + t
        emitted = targets[at]
        if not automaton.idle:
            allowed = automaton.allowed()
            forced[at] = allowed.count_R == 1
            branching = np.flatnonzero(allowed.count_R > 1)
            if len(branching):
                found.append((at[branching], allowed.tokens_RJ[branching], allowed.bias_RJ[branching]))
        accepted = automaton.advance(emitted)
        if not accepted.all():
            row = int(min(np.flatnonzero(~accepted), key=lambda r: responses[r]))
            raise InvalidRequest(
                f"response {int(responses[row])} violates the constraint at its token {t} (id {int(emitted[row])})"
            )
        begun = responses[:running][automaton.ranking_R]
        begun = begun[ranking_start[begun] < 0]
        ranking_start[begun] = t + 1
    ranking_start[ranking_start >= batch.response_lengths] = -1
    num_j = compiled.lengths_EJ.shape[1]
    if not found:
        empty = np.zeros((0, num_j))
        return Replay(
            forced,
            np.zeros(0, np.int64),
            empty.astype(np.int32),
            empty.astype(np.float32),
            np.zeros(0, np.int64),
            ranking_start,
        )
    flat = np.concatenate([f[0] for f in found])
    order = np.argsort(flat, kind="stable")
    flat, tokens, bias = (
        flat[order],
        np.concatenate([f[1] for f in found])[order],
        np.concatenate([f[2] for f in found]),
    )
    chosen = (tokens == targets[flat][:, None]).argmax(axis=1)
    return Replay(forced, flat, tokens, bias[order], chosen.astype(np.int64), ranking_start)
