"""The attention function of all models of the worker, the blocks of packed rows, and the cache for decoding.

Without blocks or cache it is plain SDPA. With `Blocks`, the tokens of one packed row attend block by block, so that
branches of a prompt cost no more than they need, instead of the square of the row. With a `SharedPrefixCache` in decode
mode, the G rows that continue one prompt attend to ONE copy of the prompt's keys and values (as one matrix product per
prompt) and to their own suffix; the prefix shared by all prompts is one product for all rows, and all parts share a
softmax. All rows of a cache decode in lockstep, so the suffix needs no padding mask.

Layers may see only a window of their latest keys (Gemma), and may cap their scores (Gemma 2): a query sees the
keys less than `window` positions back; scores become cap * tanh(score / cap).

Shape legend: P prompts, S slots per prompt, R = P*S rows, H query heads, K key-value heads, Q new tokens, T cached (or
packed) tokens, D head size, M problems per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from gr2_worker.model.past import Past
from gr2_worker.types import Bools, Int64s

NAME = "gr2_shared_prefix"
FIRST_SUFFIX_CAPACITY = 32


def _capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else cap * torch.tanh(scores / cap)


class SharedPrefixCache(Cache):
    """Keys and values of P prompts (each stored once, their shared prefix only once) and of the R rows
    that continue them.
    """

    def __init__(self, prompt_lengths: Tensor, common: int = 0) -> None:
        """prompt_lengths [P] int64 on the model's device;
        common: length of the shared prefix, less than any prompt's.
        """
        super().__init__(layers=[])
        self.prompt_lengths = prompt_lengths
        self.common = common
        self.prefix_width = int(prompt_lengths.max()) - common
        self.slots = 0  # S; 0 = still filling prompts
        self.suffix_length = 0
        self.filling: slice | None = None  # prompts that the running prefill computes; None = their common prefix
        self.attended = 0  # decode attention calls of the running forward: proves that the model uses this cache
        # Per layer keys [P, K, D, T] (laid out as decoding multiplies them) and values [P, K, T, D]; in common: P = 1.
        self._common: dict[int, tuple[Tensor, Tensor]] = {}
        self._prefix: dict[int, tuple[Tensor, Tensor]] = {}
        self._suffix: dict[int, tuple[Tensor, Tensor]] = {}  # per layer [R, K, capacity, D]
        self._hidden_prefix: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores a layer's new keys and values; returns those that new tokens attend to,
        without a decoding row's prefix.
        """
        if self.slots == 0:
            return self._store_prompts(key_states, value_states, layer_idx)
        new = key_states.shape[2]
        end = self.suffix_length + new
        keys, values = self._suffix_buffers(key_states, layer_idx, end)
        keys[:, :, self.suffix_length : end] = key_states
        values[:, :, self.suffix_length : end] = value_states
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.common + self.prefix_width + self.suffix_length if self.slots else 0

    def start_decoding(self, slots: int) -> None:
        """Ends prefill: from now on every prompt is continued by `slots` rows."""
        self.slots = slots
        positions = torch.arange(self.prefix_width, device=self.prompt_lengths.device)
        hidden = positions[None, :] >= self.prompt_lengths[:, None] - self.common
        self._hidden_prefix = hidden if bool(hidden.any()) else None

    def select(self, prompts: Tensor | None, rows: Tensor | None, slots: int) -> None:
        """Keeps the given prompts and rows (repeats allowed; rows ordered by prompt, `slots` each). None = all."""
        self.slots = slots
        if prompts is not None:
            self.prompt_lengths = self.prompt_lengths[prompts]
            width = int(self.prompt_lengths.max()) - self.common
            self.prefix_width = width
            self._prefix = {
                i: (k[prompts, :, :, :width].contiguous(), v[prompts, :, :width].contiguous())
                for i, (k, v) in self._prefix.items()
            }
            self.start_decoding(slots)
        if rows is not None and self.suffix_length:
            self._suffix = {i: (k.index_select(0, rows), v.index_select(0, rows)) for i, (k, v) in self._suffix.items()}

    def advance(self, tokens: int) -> None:
        """Declares `tokens` new suffix positions valid; called once after every decode forward."""
        self.suffix_length += tokens

    def take(self, numbers: Int64s, at: list[Int64s], past: Past) -> None:
        """Fills in the prompts with these numbers, computed without this cache;
        at: indices of their tokens in all of past's.
        """
        device = self.prompt_lengths.device
        rows = torch.from_numpy(numbers).to(device)
        common_at = torch.from_numpy(at[0][: self.common]).to(device)
        at_QT = torch.from_numpy(_padded([own[self.common :] for own in at])[0]).to(device)
        for layer in range(len(past.computed)):
            keys, values = past.all(layer)
            if self.common:
                turned, same = keys[common_at].permute(1, 2, 0), values[common_at].transpose(0, 1)
                self._common[layer] = (turned[None].contiguous(), same[None].contiguous())
            keys_QKDT, values_QKTD = keys[at_QT].permute(0, 2, 3, 1), values[at_QT].transpose(1, 2)
            stored_keys, stored_values = self._prefix_buffers(layer, keys_QKDT.transpose(2, 3), values_QKTD)
            stored_keys[rows, :, :, : at_QT.shape[1]] = keys_QKDT
            stored_values[rows, :, : at_QT.shape[1]] = values_QKTD

    def _prefix_buffers(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._prefix:
            count, heads, width = len(self.prompt_lengths), keys.shape[1], self.prefix_width
            self._prefix[layer] = (
                keys.new_zeros((count, heads, keys.shape[3], width)),
                values.new_zeros((count, heads, width, values.shape[3])),
            )
        return self._prefix[layer]

    def _store_prompts(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        turned = keys.transpose(2, 3)
        if self.filling is None:
            self._common[layer] = (turned.contiguous(), values.contiguous())
            return keys, values
        stored_keys, stored_values = self._prefix_buffers(layer, keys, values)
        stored_keys[self.filling, :, :, : keys.shape[2]] = turned
        stored_values[self.filling, :, : keys.shape[2]] = values
        if not self.common:
            return keys, values
        common_keys, common_values = (x.expand(len(keys), -1, -1, -1) for x in self._common[layer])
        return torch.cat([common_keys.transpose(2, 3), keys], dim=2), torch.cat([common_values, values], dim=2)

    def _suffix_buffers(self, like: Tensor, layer: int, needed: int) -> tuple[Tensor, Tensor]:
        rows, heads, _, size = like.shape
        stored = self._suffix.get(layer)
        if stored is not None and self.suffix_length and stored[0].shape[2] >= needed:
            return stored
        capacity = max(FIRST_SUFFIX_CAPACITY, needed, 0 if stored is None else 2 * stored[0].shape[2])
        value_size = self._prefix[layer][1].shape[3]
        grown = (like.new_zeros((rows, heads, capacity, size)), like.new_zeros((rows, heads, capacity, value_size)))
        if stored is not None and self.suffix_length:
            for new, old in zip(grown, stored, strict=True):
                new[:, :, : self.suffix_length] = old[:, :, : self.suffix_length]
        self._suffix[layer] = grown
        return grown

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None = None,
        cap: float | None = None,
    ) -> Tensor:
        """Attention of query [R, H, Q, D] over prompts and suffix keys/values [R, K, T, D]; returns [R, Q, H, D].

        A shared part is one matrix product for all rows that share it:
        the common prefix for all rows, a prompt for its slots.
        """
        self.attended += 1
        rows, heads, new, size = query.shape
        kv_heads, length = keys.shape[1], keys.shape[2]
        prompts, per_row = rows // self.slots, heads // kv_heads * new
        by_row = (query * scaling).reshape(prompts, self.slots, kv_heads, per_row, size)  # [P, S, K, X, D]
        # Each level: keys [.., D, T], values [.., T, D], and the order of dimensions that makes its sharers adjacent.
        prefix_keys, prefix_values = self._prefix[layer]
        levels: list[tuple[Tensor, Tensor, tuple[int, ...]]] = [
            (prefix_keys.flatten(0, 1), prefix_values.flatten(0, 1), (0, 2, 1, 3, 4)),
            (keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1), (0, 1, 2, 3, 4)),
        ]
        if self.common:
            common_keys, common_values = self._common[layer]
            levels.insert(0, (common_keys[0], common_values[0], (2, 0, 1, 3, 4)))
        scores = [_capped(_shared_bmm(by_row, k, order), cap) for k, _, order in levels]  # [P, S, K, X, T] each
        if self._hidden_prefix is not None:
            scores[-2].masked_fill_(self._hidden_prefix[:, None, None, None, :], float("-inf"))
        if new > 1:
            position = torch.arange(length - new, length, device=query.device)
            later = torch.arange(length, device=query.device)[None, :] > position[:, None]
            scores[-1] = scores[-1].unflatten(3, (-1, new)).masked_fill(later, float("-inf")).flatten(3, 4)
        if window is not None and self.common + self.prefix_width + length > window:
            scores = self._within(window, scores, new)
        weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        parts = weights.split([s.shape[-1] for s in scores], dim=-1)
        seen = [_shared_bmm(w, v, order) for w, (_, v, order) in zip(parts, levels, strict=True)]
        return reduce(torch.add, seen).reshape(rows, heads, new, -1).transpose(1, 2)

    def _within(self, window: int, scores: list[Tensor], new: int) -> list[Tensor]:
        """Scores [P, S, K, heads * Q, T] of common part, prompts and suffix with the keys outside the window hidden."""
        device, length = scores[-1].device, scores[-1].shape[-1]
        repeat = scores[-1].shape[-2] // new
        step_Q = torch.arange(length - new, length, device=device)
        position_PQ = self.prompt_lengths[:, None] + step_Q
        hidden = []
        start = 0
        for shared in scores[:-1]:
            at_T = torch.arange(start, start + shared.shape[-1], device=device)
            start += shared.shape[-1]
            far_PQT = position_PQ[:, :, None] - at_T >= window
            # A row's queries are ordered by head, then by new token.
            hidden.append(shared.masked_fill(far_PQT.repeat(1, repeat, 1)[:, None, None], float("-inf")))
        far_QT = step_Q[:, None] - torch.arange(length, device=device) >= window
        return [*hidden, scores[-1].masked_fill(far_QT.repeat(repeat, 1), float("-inf"))]


def _shared_bmm(rows_PSKXD: Tensor, matrices: Tensor, order: tuple[int, ...]) -> Tensor:
    """Products [P, S, K, X, T] of rows with matrices [B, D, T], each for all rows
    that are adjacent in the given order.
    """
    ordered = rows_PSKXD.permute(order)
    product = torch.bmm(ordered.reshape(len(matrices), -1, rows_PSKXD.shape[-1]), matrices)
    back = sorted(range(len(order)), key=lambda i: order[i])
    return product.view(*ordered.shape[:-1], -1).permute(back)


@dataclass(frozen=True)
class Block:
    """Queries and keys of M problems, as flat indices of tokens. Padding repeats some token and is never read."""

    query_at_MQ: Tensor  # int64
    key_at_MK: Tensor  # int64
    seen_MQK: Tensor | None  # bool [M, 1, Q, K], True = may be seen; None: the keys are the queries, causal
    real_MQ: Bools  # which queries are not padding

    def seen_within(self, window: int | None, position_T: Tensor) -> Tensor | None:
        """seen_MQK of a layer, which may have a window."""
        if window is None:
            return self.seen_MQK
        near = (position_T[self.query_at_MQ][:, :, None] - position_T[self.key_at_MK][:, None, :]) < window
        near = near[:, None]
        if self.seen_MQK is not None:
            return self.seen_MQK & near
        return near & torch.ones(near.shape[-2:], dtype=torch.bool, device=near.device).tril()


def causal_block(sequences: list[Int64s]) -> Block:
    """Sequences that attend to themselves."""
    at, real = _padded(sequences)
    return Block(torch.from_numpy(at), torch.from_numpy(at), None, real)


def prefix_block(families: list[tuple[Int64s, list[Int64s]]]) -> Block:
    """One problem per (prefix, its branches): a branch attends to the prefix and to itself."""
    queries_at, real = _padded([np.concatenate(branches) for _, branches in families])
    prefix_at, prefix_real = _padded([prefix for prefix, _ in families])
    number_at, _ = _padded([np.repeat(np.arange(len(b)), [len(x) for x in b]) for _, b in families])
    own = (number_at[:, :, None] == number_at[:, None, :]) & np.tri(queries_at.shape[1], dtype=np.bool_)
    own &= real[:, None, :] | np.eye(queries_at.shape[1], dtype=np.bool_)  # padding sees itself: no row without a key
    seen = np.concatenate([np.broadcast_to(prefix_real[:, None, :], (*own.shape[:2], prefix_at.shape[1])), own], axis=2)
    keys_at = np.concatenate([prefix_at, queries_at], axis=1)
    return Block(torch.from_numpy(queries_at), torch.from_numpy(keys_at), torch.from_numpy(seen[:, None]), real)


def _padded(rows: list[Int64s]) -> tuple[Int64s, Bools]:
    """Rows as a matrix, padded with each row's first entry, and which entries are real."""
    lengths = np.asarray([len(row) for row in rows])
    real = np.arange(lengths.max())[None, :] < lengths[:, None]
    out = np.repeat(np.asarray([row[0] for row in rows])[:, None], real.shape[1], axis=1)
    out[real] = np.concatenate(rows)
    return out, real


@dataclass(frozen=True)
class Blocks:
    """How the T tokens of one packed row attend: every token is a query of exactly one block."""

    blocks: tuple[Block, ...]
    output_at_T: Tensor  # int64: index of a token's output among all queries, block by block

    @staticmethod
    def of(blocks: list[Block], tokens: int) -> Blocks:
        at = np.full(tokens, -1, dtype=np.int64)
        start = 0
        for block in blocks:
            query_at = block.query_at_MQ.numpy()
            at[query_at[block.real_MQ]] = start + np.flatnonzero(block.real_MQ)
            start += query_at.size
        assert (at >= 0).all()
        return Blocks(tuple(blocks), torch.from_numpy(at))

    def to(self, device: torch.device) -> Blocks:
        """The same with all indices on a device."""
        moved = (
            Block(b.query_at_MQ.to(device), b.key_at_MK.to(device), _to(b.seen_MQK, device), b.real_MQ)
            for b in self.blocks
        )
        return Blocks(tuple(moved), self.output_at_T.to(device))

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout: float,
        scaling: float,
        position_T: Tensor,
        window: int | None = None,
        cap: float | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]; position_T is only used for a window.

        past: keys and values [P, K, D], appended to the row's.
        """
        query, key, value = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        if past is not None:
            key, value = torch.cat([key, past[0]]), torch.cat([value, past[1]])
        outputs = []
        for block in self.blocks:
            q, k, v = (
                x.index_select(0, at.flatten()).view(*at.shape, *x.shape[1:]).transpose(1, 2)
                for x, at in ((query, block.query_at_MQ), (key, block.key_at_MK), (value, block.key_at_MK))
            )
            out = _sdpa(q, k, v, block.seen_within(window, position_T), dropout, scaling, cap)
            outputs.append(out.transpose(1, 2).reshape(-1, *query.shape[1:2], value.shape[2]))
        return torch.cat(outputs).index_select(0, self.output_at_T)[None]


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, scaling: float, cap: float | None = None
) -> Tensor:
    """[B, H, Q, D], [B, K, T, D] -> [B, H, Q, D]; causal without a mask;
    a mask has True or 0 for keys that may be seen.
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    causal = mask is None and q.shape[2] > 1
    if cap is None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scaling
        )
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = _capped(q @ k.transpose(2, 3) * scaling, cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype), dropout) @ v


def _causal_mask(window: int | None, queries: int, tokens: int, device: torch.device) -> Tensor | None:
    """bool [Q, T] of causal rows whose queries are the last Q of T tokens; None if that needs no mask."""
    if window is None or tokens <= window:
        if queries in (1, tokens):
            return None
        window = tokens
    at = torch.arange(tokens, device=device)
    distance = at[tokens - queries :, None] - at
    return (distance >= 0) & (distance < window)


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """query [B, H, Q, D], the last of the tokens; key and value [B, K, T, D] -> [B, Q, H, D],
    each from the past and itself.
    """
    mask = _causal_mask(None, query.shape[2], key.shape[2], query.device)
    return _sdpa(query, key, value, mask, 0.0, scaling).transpose(1, 2)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    gr2_cache: SharedPrefixCache | None = None,
    gr2_blocks: Blocks | None = None,
    gr2_positions: Tensor | None = None,
    gr2_past: Past | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [B, H, T, D], key and value [B, K, T, D] -> ([B, T, H, D], None).

    gr2_positions: [T] of the packed row of gr2_blocks, followed by those of gr2_past.
    """
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention with sinks is not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if gr2_cache is not None and gr2_cache.slots:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        return gr2_cache.attend(layer, query, key, value, scale, sliding_window, softcap), None
    earlier = None if gr2_past is None else gr2_past.add(key, value)
    if gr2_blocks is not None and gr2_positions is not None:
        out = gr2_blocks.attend(query, key, value, dropout, scale, gr2_positions, sliding_window, softcap, earlier)
        return out, None
    mask = attention_mask
    if mask is None:
        mask = _causal_mask(sliding_window, query.shape[2], key.shape[2], key.device)
    return _sdpa(query, key, value, mask, dropout, scale, softcap).transpose(1, 2).contiguous(), None


def register() -> None:
    """Makes `attn_implementation=NAME` known to transformers. Safe to call again.

    No mask function is registered on purpose: transformers then passes 4-D masks and None through untouched, instead of
    guessing packed sequences from position ids.
    """
    AttentionInterface.register(NAME, attention)
