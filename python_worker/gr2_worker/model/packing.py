"""Shared-prefix packing: every prompt once, followed by its branches (Prefix Grouper, 2506.05433) and their leaves.

A token sees its own branch's earlier tokens and everything its branch continues; position ids restart where a branch
begins. All tokens of a micro-batch form one row without padding; only attention, which is computed in blocks
(attention.Blocks), pads. Plain sequences (one branch, no leaves) are padded rows and take the fast causal path.

If a prompt's first tokens were computed before (prefix_cache.py), the row leaves them out: the prompt's other tokens
and all later ones see their keys, which are appended to the row's.

Only tokens that a wanted target needs are computed: responses without one are dropped, and so is everything from the
last wanted target on (a token is predicted by the one before it; the first response token by the prompt's last).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gr2_worker.model.attention import Blocks, causal_block, prefix_block
from gr2_worker.types import Bools, GroupBatch, Int32s, Int64s

# Branches share a block of attention up to this many times the square root of their prefix: a block computes useless
# pairs between its branches, but reads the prefix's keys once.
TOKENS_PER_BLOCK = 3.0


@dataclass(frozen=True)
class Branch:
    """Tokens that continue a prompt or another branch, and the targets they predict."""

    tokens: Int32s  # fed; may be empty
    predict_at: Int64s  # which of `tokens` predicts; -1 = the last one before the branch
    targets: Int64s  # the target it predicts, same shape
    leaves: tuple[Branch, ...] = ()

    @cached_property
    def length(self) -> int:
        """Tokens fed, including leaves."""
        return len(self.tokens) + sum(leaf.length for leaf in self.leaves)


@dataclass(frozen=True)
class Tree:
    """A prompt and its continuations."""

    prompt: Int32s
    branches: tuple[Branch, ...]
    # Slots of the prompt's first tokens in the prefix cache; fewer than the prompt has.
    cached: Int64s = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def length(self) -> int:
        """Tokens computed."""
        return self.attended - len(self.cached)

    @cached_property
    def attended(self) -> int:
        """All tokens, including those that are not computed."""
        return len(self.prompt) + sum(branch.length for branch in self.branches)

    @property
    def is_sequence(self) -> bool:
        """Whether a plain row is enough."""
        if len(self.cached):
            return False
        fed = [branch for branch in self.branches if branch.length]
        return len(fed) <= 1 and not any(branch.leaves for branch in fed)


@dataclass(frozen=True)
class PlacedPrompt:
    """A prompt and its keys: flat indices into the micro-batch's tokens, followed by those of its past."""

    tokens: Int32s
    at: Int64s


@dataclass(frozen=True)
class PastTokens:
    """Tokens computed before that a packed row attends to, each once."""

    cached: Int64s  # their slots in the prefix cache
    positions: Int64s

    @staticmethod
    def of(pieces: Sequence[Tree]) -> PastTokens:
        cached, first = np.unique(np.concatenate([p.cached for p in pieces]), return_index=True)
        return PastTokens(cached, np.concatenate([np.arange(len(p.cached)) for p in pieces])[first])


@dataclass(frozen=True)
class MicroBatch:
    """B rows of T tokens on the CPU; n targets are predicted by it."""

    input_ids_BT: Tensor  # int64; 0 = padding
    position_ids_BT: Tensor  # int64
    blocks: Blocks | None  # what attends to what in the single row; None = plain causal rows
    predict: Tensor  # int64 [n]: flat index into B*T of the token whose hidden state predicts a target
    targets: Tensor  # int64 [n]
    prompts: tuple[PlacedPrompt, ...]
    past: PastTokens | None = None  # their keys follow the row's


def build_group_trees(batch: GroupBatch, wanted_N: Bools) -> list[Tree]:
    """Every group as a tree: its responses cut down to what the wanted targets need."""
    trees = []
    response = 0
    for group in range(batch.num_groups):
        branches = []
        for _ in range(int(batch.group_sizes[group])):
            first = int(batch.target_starts[response])
            wanted = np.flatnonzero(wanted_N[first : first + int(batch.response_lengths[response])])
            if len(wanted):
                start = int(batch.response_starts[response])
                branches.append(Branch(batch.tokens[start : start + int(wanted[-1])], wanted - 1, first + wanted))
            response += 1
        if branches:
            trees.append(Tree(group_prompt(batch, group), tuple(branches)))
    return trees


def prompt_alone(prompt: Int32s, number: int) -> Tree:
    """A prompt without continuations; target `number` is predicted by its last token."""
    nothing = Branch(np.zeros(0, dtype=np.int32), np.asarray([-1]), np.asarray([number]))
    return Tree(prompt, (nothing,))


def group_prompt(batch: GroupBatch, group: int) -> Int32s:
    """The tokens of a group's prompt."""
    start = int(batch.prompt_starts[group])
    return batch.tokens[start : start + int(batch.prompt_lengths[group])]


def plan(trees: Sequence[Tree], micro_batch_tokens: int, preferred_tokens: int | None = None) -> list[MicroBatch]:
    """Micro-batches that cover every target of the trees.

    Each holds at most `micro_batch_tokens` tokens, unless one prompt + branch alone is longer. Rows are batched up to
    `preferred_tokens` (at most the former) only, but no tree is split for that,
    and a branch is never split from its leaves.
    """
    row_tokens = min(micro_batch_tokens, preferred_tokens or micro_batch_tokens)
    pieces = [piece for tree in trees for piece in _split(tree, micro_batch_tokens)]
    pieces.sort(key=lambda p: -p.length)
    plain = [p for p in pieces if p.is_sequence]
    branched = [p for p in pieces if not p.is_sequence]
    micro_batches = []
    while plain:
        rows = max(1, row_tokens // plain[0].length)
        micro_batches.append(_padded_rows(plain[:rows]))
        plain = plain[rows:]
    while branched:
        fit = np.cumsum([p.length for p in branched]) <= row_tokens
        fit &= np.cumsum([p.attended for p in branched]) <= micro_batch_tokens
        count = max(1, int(fit.sum()))
        micro_batches.append(_one_row(branched[:count]))
        branched = branched[count:]
    return micro_batches


def _split(tree: Tree, limit: int) -> list[Tree]:
    """Trees of at most `limit` tokens, unless a prompt and one branch alone are longer."""
    if tree.attended <= limit:
        return [tree]
    pieces: list[Tree] = []
    branches: list[Branch] = []
    length = len(tree.prompt)
    for branch in tree.branches:
        if branches and length + branch.length > limit:
            pieces.append(replace(tree, branches=tuple(branches)))
            branches, length = [], len(tree.prompt)
        branches.append(branch)
        length += branch.length
    return [*pieces, replace(tree, branches=tuple(branches))]


def _padded_rows(pieces: list[Tree]) -> MicroBatch:
    """One piece per row, padded on the right."""
    width = max(p.length for p in pieces)
    row = _Row(len(pieces) * width)
    for number, piece in enumerate(pieces):
        row.write_tree(piece, number * width, piece.cached)
    return row.micro_batch(len(pieces), None, None)


def _one_row(pieces: list[Tree]) -> MicroBatch:
    """All pieces in one row."""
    length = sum(p.length for p in pieces)
    row = _Row(length)
    past = PastTokens.of(pieces)
    at = 0
    for piece in pieces:
        row.write_tree(piece, at, length + np.searchsorted(past.cached, piece.cached))
        at += piece.length
    blocks = [causal_block(row.prompts)] if row.prompts else []
    blocks += [prefix_block(f) for f in (row.continued, row.families, row.leaf_families) if f]
    return row.micro_batch(1, Blocks.of(blocks, length), past if len(past.cached) else None)


class _Row:
    """Writes trees into flat arrays; notes which token predicts which target, and what continues what."""

    def __init__(self, length: int) -> None:
        self._ids = np.zeros(length, dtype=np.int64)
        self._positions = np.zeros(length, dtype=np.int64)
        self._predict: list[Int64s] = []
        self._targets: list[Int64s] = []
        self._placed: list[PlacedPrompt] = []
        self.prompts: list[Int64s] = []
        # (flat indices of a prefix, those of some branches after it)
        self.continued: list[tuple[Int64s, list[Int64s]]] = []  # prompts after their past
        self.families: list[tuple[Int64s, list[Int64s]]] = []
        self.leaf_families: list[tuple[Int64s, list[Int64s]]] = []

    def write_tree(self, tree: Tree, at: int, past: Int64s) -> None:
        """past: flat indices of the prompt's first tokens, which are not written."""
        fed = np.arange(at, at + len(tree.prompt) - len(past))
        self._ids[fed], self._positions[fed] = tree.prompt[len(past) :], np.arange(len(past), len(tree.prompt))
        if len(past):
            self.continued.append((past, [fed]))
        else:
            self.prompts.append(fed)
        prompt = np.concatenate([past, fed])
        self._placed.append(PlacedPrompt(tree.prompt, prompt))
        own = []
        at += len(fed)
        for branch in tree.branches:
            own.append(self._write(branch, at, prompt))
            at += len(branch.tokens)
            prefix = np.concatenate([prompt, own[-1]])
            leaves = []
            for leaf in branch.leaves:
                leaves.append(self._write(leaf, at, prefix))
                at += len(leaf.tokens)
            self.leaf_families.extend(_families(prefix, leaves))
        self.families.extend(_families(prompt, own))

    def _write(self, branch: Branch, at: int, prefix: Int64s) -> Int64s:
        own = np.arange(at, at + len(branch.tokens))
        self._ids[own] = branch.tokens
        self._positions[own] = len(prefix) + np.arange(len(own))
        self._predict.append(np.concatenate([own, prefix[-1:]])[branch.predict_at])
        self._targets.append(branch.targets)
        return own

    def micro_batch(self, rows: int, blocks: Blocks | None, past: PastTokens | None) -> MicroBatch:
        return MicroBatch(
            torch.from_numpy(self._ids).view(rows, -1),
            torch.from_numpy(self._positions).view(rows, -1),
            blocks,
            torch.from_numpy(np.concatenate(self._predict)),
            torch.from_numpy(np.concatenate(self._targets)),
            tuple(self._placed),
            past,
        )


def _families(prefix: Int64s, branches: list[Int64s]) -> list[tuple[Int64s, list[Int64s]]]:
    """Branches of one prefix, grouped by the block of attention they share."""
    families: list[tuple[Int64s, list[Int64s]]] = []
    room = 0.0
    for branch in branches:
        if not len(branch):
            continue
        if len(branch) > room:
            families.append((prefix, []))
            room = TOKENS_PER_BLOCK * len(prefix) ** 0.5
        families[-1][1].append(branch)
        room -= len(branch)
    return families
