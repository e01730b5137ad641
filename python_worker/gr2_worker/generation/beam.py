"""Beam search over the items of a prefix trie (semantic IDs): exact trie, shared prompt caches.

A child is open to a prompt while some item below it is not excluded, so the allowed set of an open node is never empty
and excluded items are never returned. A beam whose item is complete keeps its slot and its score while longer ones
continue.

Scores are log p(sequence | prompt) = sum of log_softmax over the full vocabulary,
whatever the model's generation settings.

Shape legend: P prompts, W beams (slots) per prompt, R = P*W rows, K candidates, C hidden size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gr2_worker.errors import InvalidRequest
from gr2_worker.generation.prefill import prefill
from gr2_worker.generation.sampler import check_prompts, decode
from gr2_worker.model.attention import SharedPrefixCache
from gr2_worker.model.lm import LanguageModel
from gr2_worker.types import BeamParams, BeamResult, Bools, CancelCheck, Int32s, Int64s, Trie, segment_starts

# Rows x length of the KV cache in memory at once, in tokens.
MAX_CACHED_TOKENS = 1 << 18
# Logits in memory at once, in elements.
MAX_LOGITS = 1 << 27


def beam_search(lm: LanguageModel, params: BeamParams, check: CancelCheck) -> BeamResult:
    """The `beam_width` best items of every prompt as catalogue rows, best first;
    exact once beam_width >= open items.
    """
    trie, length, items = params.trie, params.trie.num_levels, len(params.trie.rows_I)
    if params.beam_width < 1:
        raise InvalidRequest("beam_width must be >= 1")
    if trie.edge_tokens_E.min() < 0 or trie.edge_tokens_E.max() >= lm.vocab_size:
        raise InvalidRequest(f"the trie contains a token outside the vocabulary of {lm.vocab_size}")
    check_prompts(params.prompts, lm, length)
    position = np.empty(items, dtype=np.int64)
    position[trie.rows_I] = np.arange(items)
    for number, rows in enumerate(params.excluded):
        if len(rows) and (rows.min() < 0 or rows.max() >= items):
            raise InvalidRequest(f"excluded rows of prompt {number} are outside the catalogue")
    shape = (len(params.prompts), params.beam_width)
    result = BeamResult(np.full(shape, -1, dtype=np.int32), np.full(shape, -np.inf, dtype=np.float32))
    order = sorted(range(len(params.prompts)), key=lambda p: (-len(params.prompts[p]), p))
    at = 0
    while at < len(order):
        width = len(params.prompts[order[at]]) + params.beam_width * length
        fits = min(MAX_CACHED_TOKENS // width, MAX_LOGITS // (lm.vocab_size * params.beam_width))
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
    stride = len(trie.rows_I) + 1
    closed_flat = np.concatenate([rows + prompt * stride for prompt, rows in enumerate(closed)])
    for depth in range(trie.num_levels):
        check()
        parent_PW, node_PW, score_PW = _expand(lm, hidden_RC, trie, node_PW, score_PW, beam_width, closed_flat, stride)
        if depth + 1 < trie.num_levels:
            # The results of complete and missing beams are not read, so any token will do.
            _reorder(cache, parent_PW, lm)
            hidden_RC = decode(lm, cache, trie.edge_tokens_E[np.maximum(node_PW - 1, 0)].reshape(-1, 1))
    rows = np.where(np.isfinite(score_PW), trie.rows_I[trie.row_starts_N[node_PW]], -1).astype(np.int32)
    return rows, score_PW.astype(np.float32)


def _expand(
    lm: LanguageModel,
    hidden_RC: Tensor,
    trie: Trie,
    node_PW: Int64s,
    score_PW: npt.NDArray[np.float64],
    beam_width: int,
    closed_flat: Int64s,
    stride: int,
) -> tuple[Int64s, Int64s, npt.NDArray[np.float64]]:
    """Best children of all beams: (parent slot, child node, score), each [P, W']; missing ones have score -inf."""
    num_prompts, width = node_PW.shape
    node_R, score_R = node_PW.reshape(-1), score_PW.reshape(-1)
    first_R = trie.edge_starts_N1[node_R]
    counts = np.where(np.isfinite(score_R), trie.edge_starts_N1[node_R + 1] - first_R, 0)
    beam_K = np.repeat(np.arange(len(node_R)), counts)  # K candidates, ordered by beam, then token
    edge_K = np.arange(len(beam_K)) - np.repeat(segment_starts(counts), counts) + first_R[beam_K]
    logits = lm.logits(hidden_RC)
    index = torch.from_numpy(beam_K * logits.shape[1] + trie.edge_tokens_E[edge_K]).to(logits.device)
    normaliser = logits.logsumexp(dim=-1).double().cpu().numpy()
    score_K = logits.flatten().index_select(0, index).double().cpu().numpy() - normaliser[beam_K]
    score_K += score_R[beam_K]
    child_K = edge_K + 1
    complete = np.flatnonzero(np.isfinite(score_R) & trie.is_leaf_N[node_R])
    if len(complete):
        beam_K, child_K = np.append(beam_K, complete), np.append(child_K, node_R[complete])
        score_K = np.append(score_K, score_R[complete])
    prompt_K = beam_K // width
    open_K = _is_open(trie, child_K, prompt_K, closed_flat, stride)
    beam_K, child_K, prompt_K, score_K = beam_K[open_K], child_K[open_K], prompt_K[open_K], score_K[open_K]
    near_K = _near_best(score_K, prompt_K, num_prompts, beam_width)
    beam_K, child_K, prompt_K, score_K = beam_K[near_K], child_K[near_K], prompt_K[near_K], score_K[near_K]
    # Best first within each prompt; equal scores in the order of the trie.
    ranking = np.lexsort((child_K, -score_K, prompt_K))
    per_prompt = np.bincount(prompt_K, minlength=num_prompts)
    rank_K = np.arange(len(ranking)) - np.repeat(segment_starts(per_prompt), per_prompt)
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

    With one token per item every item is a candidate, and sorting them all would dominate the cost.
    """
    order = np.argsort(prompt_K, kind="stable")  # nearly sorted: one pass
    bounds = np.searchsorted(prompt_K[order], np.arange(num_prompts + 1))
    kept = []
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if high - low <= beam_width:
            kept.append(order[low:high])
        else:
            scores = score_K[order[low:high]]
            worst = np.partition(scores, high - low - beam_width)[high - low - beam_width]
            kept.append(order[low + np.flatnonzero(scores >= worst)])
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _is_open(trie: Trie, child_K: Int64s, prompt_K: Int64s, closed_flat: Int64s, stride: int) -> Bools:
    """Whether some item below a node is not excluded for its prompt.

    closed_flat: all prompts' excluded sorted rows, ascending, as row + prompt * stride.
    """
    if not len(closed_flat):
        return np.ones(len(child_K), dtype=np.bool_)
    low, high = trie.row_starts_N[child_K], trie.row_ends_N[child_K]
    offset = prompt_K * stride
    closed = np.searchsorted(closed_flat, high + offset) - np.searchsorted(closed_flat, low + offset)
    return closed < high - low


def _reorder(cache: SharedPrefixCache, parent_PW: Int64s, lm: LanguageModel) -> None:
    num_prompts, width = parent_PW.shape
    rows = (np.arange(num_prompts)[:, None] * cache.slots + parent_PW).reshape(-1)
    cache.select(None, torch.from_numpy(rows).to(lm.device), width)
