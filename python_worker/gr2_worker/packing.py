"""Shared-prefix packing: a prompt once, its responses behind it in one row (Prefix Grouper, 2506.05433).

A response token sees its prompt and its own response's earlier tokens; position ids restart at the prompt's end for
every branch. Rows are bin-packed (block-diagonal) only into space that padding would waste. Plain sequences (one branch a
row) need no mask at all and take the fast causal path.

Only what a wanted target needs is computed: responses without one are dropped, and so is everything from the last wanted
target on (a token is predicted by the one before it; the first response token by the prompt's last).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .types import Bools, GroupBatch, Int64s


@dataclass(frozen=True)
class MicroBatch:
    """B rows of T tokens on the CPU; n targets are predicted by it."""

    input_ids_BT: Tensor  # int64; 0 = padding
    position_ids_BT: Tensor  # int64
    group_BT: Tensor | None  # int64: which group a token belongs to, -1 = padding; None = plain causal rows
    branch_BT: Tensor | None  # int64: 0 = prompt, 1.. = branch
    predict: Tensor  # int64 [n]: flat index into B*T of the token whose hidden state predicts a target
    targets: Tensor  # int64 [n]: the targets' flat index in the request

    @property
    def num_tokens(self) -> int:
        return self.input_ids_BT.numel()

    def mask(self, device: torch.device) -> Tensor | None:
        """Boolean attention mask [B, 1, T, T], True = may be seen; None = ordinary causal attention."""
        if self.group_BT is None or self.branch_BT is None:
            return None
        group, branch = self.group_BT.to(device), self.branch_BT.to(device)
        length = group.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        same_group = group[:, :, None] == group[:, None, :]
        same_branch = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
        return (causal & same_group & same_branch)[:, None]


@dataclass(frozen=True)
class _Branches:
    """One prompt with the branches to compute behind it."""

    group: int
    responses: list[int]  # those with a wanted target
    kept: list[int]  # response tokens to feed, per response
    length: int  # prompt + kept


def plan(
    batch: GroupBatch, wanted_N: Bools, micro_batch_tokens: int, preferred_tokens: int | None = None
) -> list[MicroBatch]:
    """Micro-batches that cover every wanted target.

    Each holds at most `micro_batch_tokens` tokens, unless one prompt + response alone is longer. Rows are batched up to
    `preferred_tokens` (at most the former) only, but no group is split for that.
    """
    row_tokens = min(micro_batch_tokens, preferred_tokens or micro_batch_tokens)
    pieces = _pieces(batch, wanted_N, micro_batch_tokens)
    pieces.sort(key=lambda p: -p.length)
    plain = [p for p in pieces if sum(k > 0 for k in p.kept) <= 1]
    branched = [p for p in pieces if sum(k > 0 for k in p.kept) > 1]
    micro_batches = []
    while plain:
        rows = max(1, row_tokens // plain[0].length)
        micro_batches.append(_build(batch, wanted_N, [[p] for p in plain[:rows]], masked=False))
        plain = plain[rows:]
    while branched:
        packed, branched = _fill(branched, max(1, row_tokens // branched[0].length))
        micro_batches.append(_build(batch, wanted_N, packed, masked=True))
    return micro_batches


def _pieces(batch: GroupBatch, wanted_N: Bools, limit: int) -> list[_Branches]:
    """Groups cut down to what is wanted, split where a group alone exceeds `limit` tokens."""
    pieces = []
    response = 0
    for group in range(batch.num_groups):
        prompt_length = int(batch.prompt_lengths[group])
        responses: list[int] = []
        kept: list[int] = []
        length = prompt_length
        for _ in range(int(batch.group_sizes[group])):
            start = int(batch.target_starts[response])
            wanted = np.flatnonzero(wanted_N[start : start + int(batch.response_lengths[response])])
            if len(wanted):
                keep = int(wanted[-1])
                if responses and length + keep > limit:
                    pieces.append(_Branches(group, responses, kept, length))
                    responses, kept, length = [], [], prompt_length
                responses.append(response)
                kept.append(keep)
                length += keep
            response += 1
        if responses:
            pieces.append(_Branches(group, responses, kept, length))
    return pieces


def _fill(pieces: list[_Branches], max_rows: int) -> tuple[list[list[_Branches]], list[_Branches]]:
    """First-fit decreasing into at most `max_rows` rows as long as the longest piece; returns the rows and what did not fit."""
    capacity = pieces[0].length
    rows: list[list[_Branches]] = []
    space: list[int] = []
    rest: list[_Branches] = []
    for piece in pieces:
        fitting = next((i for i, free in enumerate(space) if free >= piece.length), -1)
        if fitting >= 0:
            rows[fitting].append(piece)
            space[fitting] -= piece.length
        elif len(rows) < max_rows:
            rows.append([piece])
            space.append(capacity - piece.length)
        else:
            rest.append(piece)
    return rows, rest


def _build(batch: GroupBatch, wanted_N: Bools, rows: list[list[_Branches]], masked: bool) -> MicroBatch:
    width = max(sum(p.length for p in row) for row in rows)
    shape = (len(rows), width)
    ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    groups, branches = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    predict: list[Int64s] = []
    targets: list[Int64s] = []
    for b, row in enumerate(rows):
        at = 0
        for number, piece in enumerate(row):
            prompt_length = int(batch.prompt_lengths[piece.group])
            prompt_start = int(batch.prompt_starts[piece.group])
            groups[b, at : at + piece.length] = number
            ids[b, at : at + prompt_length] = batch.tokens[prompt_start : prompt_start + prompt_length]
            positions[b, at : at + prompt_length] = np.arange(prompt_length)
            prompt_end = at + prompt_length
            at = prompt_end
            for branch, (response, keep) in enumerate(zip(piece.responses, piece.kept, strict=True), start=1):
                source = int(batch.response_starts[response])
                ids[b, at : at + keep] = batch.tokens[source : source + keep]
                positions[b, at : at + keep] = prompt_length + np.arange(keep)
                branches[b, at : at + keep] = branch
                first = int(batch.target_starts[response])
                wanted = np.flatnonzero(wanted_N[first : first + keep + 1])
                predict.append(b * width + np.where(wanted == 0, prompt_end - 1, at + wanted - 1))
                targets.append(first + wanted)
                at += keep
    return MicroBatch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(groups) if masked else None,
        torch.from_numpy(branches) if masked else None,
        torch.from_numpy(np.concatenate(predict)),
        torch.from_numpy(np.concatenate(targets)),
    )
