"""Beam search over a catalogue of token sequences of one length (semantic IDs): an exact trie, shared prompt caches.

The sorted catalogue IS the trie: a node at depth d is a contiguous range of sorted rows that agree on d tokens, its
children are CSR slices. A child is open to a prompt while some item below it is not excluded, so the allowed set of an
open node is never empty and excluded rows never come out.

Scores are log p(sequence | prompt) = sum of log_softmax over the full vocabulary.

Shape legend: P prompts, W beams (slots) a prompt, R = P*W rows, L tokens an item, C hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .attention import SharedPrefixCache
from .errors import InvalidRequest
from .lm import LanguageModel
from .sampler import check_prompts, decode, prefill
from .types import BeamParams, BeamResult, Bools, CancelCheck, Int32s, Int64s, starts_of

# Logits held at once, in elements.
MAX_LOGITS = 1 << 27


@dataclass(frozen=True)
class Trie:
    """Depth d has nodes 0..n_d-1; node k's children are `child_first[d][k] : child_first[d][k+1]` at depth d+1."""

    order: Int64s  # [items] catalogue row of each sorted row
    child_first: list[Int64s]  # per depth 0..L-1: [n_d + 1]
    token: list[Int64s]  # per depth 1..L at [d-1]: [n_d] the token that leads to a node
    range_low: list[Int64s]  # per depth 1..L at [d-1]: [n_d] first sorted row below a node
    range_high: list[Int64s]  # one past the last

    @staticmethod
    def build(catalogue: Int32s) -> Trie:
        """From int32 [items, L] with distinct rows. Raises InvalidRequest if two rows are equal."""
        items, length = catalogue.shape
        order = np.lexsort(catalogue.T[::-1]).astype(np.int64)
        rows = catalogue[order]
        # differs[i, d]: sorted row i differs from row i-1 within its first d+1 tokens.
        differs = np.ones((items, length), dtype=np.bool_)
        differs[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
        if not differs[:, -1].all():
            twin = int(np.flatnonzero(~differs[:, -1])[0])
            raise InvalidRequest(f"catalogue rows {order[twin - 1]} and {order[twin]} are equal")
        child_first, token, low, high = [], [], [], []
        parents = np.zeros(1, dtype=np.int64)
        for depth in range(length):
            starts = np.flatnonzero(differs[:, depth]).astype(np.int64)
            child_first.append(np.append(np.searchsorted(starts, parents), len(starts)).astype(np.int64))
            token.append(rows[starts, depth].astype(np.int64))
            low.append(starts)
            high.append(np.append(starts[1:], items))
            parents = starts
        return Trie(order, child_first, token, low, high)


def beam_search(lm: LanguageModel, params: BeamParams, check: CancelCheck) -> BeamResult:
    """The `beam_width` best catalogue rows of every prompt, best first; exact once beam_width >= open items."""
    items, length = params.catalogue.shape
    if items == 0 or length == 0:
        raise InvalidRequest("the catalogue is empty")
    if params.beam_width < 1:
        raise InvalidRequest("beam_width must be >= 1")
    if params.catalogue.min() < 0 or params.catalogue.max() >= lm.vocab_size:
        raise InvalidRequest(f"the catalogue holds a token outside of the vocabulary of {lm.vocab_size}")
    check_prompts(params.prompts, lm, length)
    trie = Trie.build(params.catalogue)
    position = np.empty(items, dtype=np.int64)
    position[trie.order] = np.arange(items)
    for number, rows in enumerate(params.excluded):
        if len(rows) and (rows.min() < 0 or rows.max() >= items):
            raise InvalidRequest(f"excluded rows of prompt {number} are outside of the catalogue")
    shape = (len(params.prompts), params.beam_width)
    result = BeamResult(np.full(shape, -1, dtype=np.int32), np.full(shape, -np.inf, dtype=np.float32))
    order = sorted(range(len(params.prompts)), key=lambda p: (-len(params.prompts[p]), p))
    at = 0
    while at < len(order):
        width = len(params.prompts[order[at]]) + params.beam_width * length
        fits = min(params.max_batch_tokens // width, MAX_LOGITS // (lm.vocab_size * params.beam_width))
        chosen = order[at : at + max(1, fits)]
        closed: list[Int64s] = [np.unique(position[params.excluded[p]]) for p in chosen]
        with torch.no_grad(), lm.autocast():
            found, logprobs = _search(lm, [params.prompts[p] for p in chosen], trie, params.beam_width, closed, check)
        result.rows[chosen, : found.shape[1]] = found
        result.logprobs[chosen, : found.shape[1]] = logprobs
        at += len(chosen)
    return result


def _search(
    lm: LanguageModel, prompts: list[Int32s], trie: Trie, beam_width: int, closed: list[Int64s], check: CancelCheck
) -> tuple[Int32s, npt.NDArray[np.float32]]:
    num_prompts = len(prompts)
    cache, hidden_RC = prefill(lm, prompts, check)
    cache.start_decoding(1)
    # Beams as [P, W] matrices; a beam of score -inf is padding. Every prompt starts with the root.
    node_PW = np.zeros((num_prompts, 1), dtype=np.int64)
    score_PW = np.zeros((num_prompts, 1), dtype=np.float64)
    stride = len(trie.order) + 1
    closed_flat = np.concatenate([rows + prompt * stride for prompt, rows in enumerate(closed)])
    length = len(trie.token)
    for depth in range(length):
        check()
        parent_PW, child_PW, score_PW = _expand(
            lm, hidden_RC, trie, depth, node_PW, score_PW, beam_width, closed_flat, stride
        )
        node_PW = child_PW
        if depth + 1 < length:
            tokens = np.where(np.isfinite(score_PW), trie.token[depth][node_PW], 0)
            _reorder(cache, parent_PW, lm)
            hidden_RC = decode(lm, cache, tokens.reshape(-1, 1))
    rows = np.where(np.isfinite(score_PW), trie.order[node_PW], -1).astype(np.int32)
    return rows, score_PW.astype(np.float32)


def _expand(
    lm: LanguageModel,
    hidden_RC: Tensor,
    trie: Trie,
    depth: int,
    node_PW: Int64s,
    score_PW: npt.NDArray[np.float64],
    beam_width: int,
    closed_flat: Int64s,
    stride: int,
) -> tuple[Int64s, Int64s, npt.NDArray[np.float64]]:
    """Best children of all beams: (parent slot, child node, score), each [P, W']; missing ones have score -inf."""
    num_prompts, width = node_PW.shape
    first = trie.child_first[depth]
    flat_nodes = node_PW.reshape(-1)
    counts = np.where(np.isfinite(score_PW.reshape(-1)), first[flat_nodes + 1] - first[flat_nodes], 0)
    beam_K = np.repeat(np.arange(len(flat_nodes)), counts)  # K candidates, ordered by beam, then token
    child_K = np.arange(len(beam_K)) - np.repeat(starts_of(counts), counts) + first[flat_nodes[beam_K]]
    prompt_K = beam_K // width
    open_K = _is_open(trie, depth, child_K, prompt_K, closed_flat, stride)
    beam_K, child_K, prompt_K = beam_K[open_K], child_K[open_K], prompt_K[open_K]
    logits = lm.logits(hidden_RC)
    index = torch.from_numpy(beam_K * logits.shape[1] + trie.token[depth][child_K]).to(logits.device)
    normaliser = logits.logsumexp(dim=-1).double().cpu().numpy()
    score_K = logits.flatten().index_select(0, index).double().cpu().numpy() - normaliser[beam_K]
    score_K += score_PW.reshape(-1)[beam_K]
    near_K = _near_best(score_K, prompt_K, num_prompts, beam_width)
    beam_K, child_K, prompt_K, score_K = beam_K[near_K], child_K[near_K], prompt_K[near_K], score_K[near_K]
    # Best first within each prompt; equal scores in sorted-catalogue order.
    ranking = np.lexsort((child_K, -score_K, prompt_K))
    per_prompt = np.bincount(prompt_K, minlength=num_prompts)
    rank_K = np.arange(len(ranking)) - np.repeat(starts_of(per_prompt), per_prompt)
    kept = ranking[rank_K < beam_width]
    column = rank_K[rank_K < beam_width]
    new_width = max(1, min(beam_width, int(per_prompt.max(initial=0))))
    parents = np.zeros((num_prompts, new_width), dtype=np.int64)
    children = np.zeros((num_prompts, new_width), dtype=np.int64)
    scores = np.full((num_prompts, new_width), -np.inf)
    at = (prompt_K[kept], column)
    parents[at], children[at], scores[at] = beam_K[kept] % width, child_K[kept], score_K[kept]
    return parents, children, scores


def _near_best(score_K: npt.NDArray[np.float64], prompt_K: Int64s, num_prompts: int, beam_width: int) -> Int64s:
    """Candidates no worse than their prompt's `beam_width`-th best, ties included: sorting only these is enough.

    prompt_K ascends. With one token an item every item is a candidate, and a sort of all of them would cost the most.
    """
    bounds = np.searchsorted(prompt_K, np.arange(num_prompts + 1))
    kept = []
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if high - low <= beam_width:
            kept.append(np.arange(low, high))
        else:
            scores = score_K[low:high]
            worst = np.partition(scores, high - low - beam_width)[high - low - beam_width]
            kept.append(low + np.flatnonzero(scores >= worst))
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _is_open(trie: Trie, depth: int, child_K: Int64s, prompt_K: Int64s, closed_flat: Int64s, stride: int) -> Bools:
    """Whether some item below a node is not excluded for its prompt.

    closed_flat: all prompts' excluded sorted rows, ascending, as row + prompt * stride.
    """
    if not len(closed_flat):
        return np.ones(len(child_K), dtype=np.bool_)
    low, high = trie.range_low[depth][child_K], trie.range_high[depth][child_K]
    offset = prompt_K * stride
    closed = np.searchsorted(closed_flat, high + offset) - np.searchsorted(closed_flat, low + offset)
    return closed < high - low


def _reorder(cache: SharedPrefixCache, parent_PW: Int64s, lm: LanguageModel) -> None:
    num_prompts, width = parent_PW.shape
    rows = (np.arange(num_prompts)[:, None] * cache.slots + parent_PW).reshape(-1)
    cache.select(None, torch.from_numpy(rows).to(lm.device), width)
