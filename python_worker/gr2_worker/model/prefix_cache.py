"""A cache of prompts: keys and values that a request with the same prefix need not compute again.

Belongs to one frozen model; whoever changes its weights must clear it. Tokens are stored in blocks of BLOCK, identified
by their own tokens and the block before, so that any shared prefix is found, whatever follows it, and is stored once
(as in PagedAttention, 2309.06180). All memory is allocated at the start. The least recently used block is evicted
first: a prompt's end before its start, and never a block that the running request uses. packing.py decides what follows
a cached prefix (Tree.cached).

Shape legend: N tokens cached, P tokens of a request's past, L layers, K key-value heads, D head size, C hidden size,
n targets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gr2_worker.errors import InvalidRequest
from gr2_worker.memory import memory_guard
from gr2_worker.model.lm import LanguageModel
from gr2_worker.model.packing import MicroBatch, PastTokens, PlacedPrompt, Tree
from gr2_worker.model.past import Earlier, Past
from gr2_worker.types import Int32s, Int64s

# Tokens per block. Smaller blocks share more of a prefix, larger ones take fewer steps to find it.
BLOCK = 8
# A shorter shared prefix is computed again: reusing it saves less than a separate row costs.
MIN_REUSED = 16

# The number of the block before (0 = none, a prompt begins here) and a block's tokens.
_Key = tuple[int, bytes]


@dataclass
class _Block:
    number: int  # never given twice
    slot: int  # its tokens begin at slot * BLOCK
    request: int  # the last request that used it


class PrefixCache:
    """The prompts of one model."""

    def __init__(self, model: LanguageModel, max_bytes: int) -> None:
        """Takes at most max_bytes. Raises InvalidRequest if no block fits,
        ResourceExhausted if there is not enough memory.
        """
        if model.trainable:
            raise InvalidRequest("prefix_cache_bytes needs trainable = false: training would invalidate the cache")
        keys, values = _one_token(model)
        block_bytes = BLOCK * (keys.numel() * keys.element_size() + values.numel() * values.element_size())
        self._slots = max_bytes // block_bytes
        if not self._slots:
            raise InvalidRequest(
                f"prefix_cache_bytes = {max_bytes} is too little for {BLOCK} tokens of this model, "
                f"which take {block_bytes}"
            )
        with memory_guard("prefix_cache_bytes"), torch.no_grad():
            self._keys_NLKD = keys.new_empty((self._slots * BLOCK, *keys.shape))
            self._values_NLKD = values.new_empty((self._slots * BLOCK, *values.shape))
        self._device = model.device
        self._request = 0
        self.reused_tokens = 0  # of prompts, so far
        self.clear()

    def clear(self) -> None:
        """Forgets everything: the weights have changed."""
        # Least recently used first, a block before the one it follows.
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._numbers = 0
        self._free = list(range(self._slots))

    def __len__(self) -> int:
        """Number of cached tokens."""
        return BLOCK * len(self._blocks)

    # ------------------------------------------------------------ finding

    def length(self, tokens: Int32s) -> int:
        """How many of the first tokens are cached."""
        return BLOCK * len(self._chain(tokens))

    def find(self, trees: Sequence[Tree]) -> list[Tree]:
        """A request's trees with their cached prefixes, which are not evicted before the next request."""
        self._request += 1
        return [replace(tree, cached=self._cached(tree.prompt)) for tree in trees]

    def count(self, trees: Sequence[Tree], apart: int = 0) -> None:
        """Counts the reused tokens of a request's prompts;
        apart: tokens of their shared prefix that were computed once.
        """
        self.reused_tokens += max(0, sum(len(tree.cached) for tree in trees) - apart)

    def _cached(self, prompt: Int32s) -> Int64s:
        chain = self._chain(prompt[:-1])  # the last token's hidden state is not cached, so it has to be computed
        self._touch(chain)
        return _block_positions([self._blocks[key].slot for key in chain] if BLOCK * len(chain) >= MIN_REUSED else [])

    def _chain(self, tokens: Int32s) -> list[_Key]:
        """The cached blocks of a prefix."""
        chain: list[_Key] = []
        before = 0
        for part in _parts(tokens):
            block = self._blocks.get((before, part))
            if block is None:
                break
            chain.append((before, part))
            before = block.number
        return chain

    def _touch(self, chain: list[_Key]) -> None:
        for key in reversed(chain):
            self._blocks[key].request = self._request
            self._blocks.move_to_end(key)

    # ------------------------------------------------------------ computing

    def compute(self, model: LanguageModel, micro_batch: MicroBatch) -> tuple[Tensor, Past]:
        """Hidden states [n, C] that predict a micro-batch's targets;
        its prompts are cached from now on, if there is room.
        """
        past = Past(None if micro_batch.past is None else self._earlier(micro_batch.past))
        hidden = model.predicting_states(micro_batch, past)
        self._hold(micro_batch.prompts, past)
        return hidden, past

    def _earlier(self, tokens: PastTokens) -> Earlier:
        at = torch.from_numpy(tokens.cached).to(self._device)
        positions = torch.from_numpy(tokens.positions).to(self._device)
        return Earlier(self._keys_NLKD.index_select(0, at), self._values_NLKD.index_select(0, at), positions)

    def _hold(self, prompts: Sequence[PlacedPrompt], past: Past) -> None:
        slots: list[int] = []
        sources: list[Int64s] = []
        for prompt in prompts:
            chain: list[_Key] = []
            before = 0
            for number, part in enumerate(_parts(prompt.tokens)):
                key = (before, part)
                if key not in self._blocks:
                    slot = self._room()
                    if slot is None:
                        break
                    self._numbers += 1
                    self._blocks[key] = _Block(self._numbers, slot, self._request)
                    slots.append(slot)
                    sources.append(prompt.at[number * BLOCK : (number + 1) * BLOCK])
                self._touch([key])
                chain.append(key)
                before = self._blocks[key].number
            self._touch(chain)
        if slots:
            self._write(_block_positions(slots), np.concatenate(sources), past)

    def _room(self) -> int | None:
        """A free slot; None if the running request uses all."""
        if self._free:
            return self._free.pop()
        key, oldest = next(iter(self._blocks.items()))
        if oldest.request == self._request:
            return None
        del self._blocks[key]
        return oldest.slot

    def _write(self, at: Int64s, sources: Int64s, past: Past) -> None:
        try:
            to, of = torch.from_numpy(at).to(self._device), torch.from_numpy(sources).to(self._device)
            for layer, (keys, values) in enumerate(past.computed):
                self._keys_NLKD[to, layer] = keys[of]
                self._values_NLKD[to, layer] = values[of]
        except BaseException:
            self.clear()  # the blocks are registered already, but still empty
            raise


def _parts(tokens: Int32s) -> Iterator[bytes]:
    """The whole blocks of some tokens."""
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        yield tokens[end - BLOCK : end].tobytes()


def _block_positions(slots: list[int]) -> Int64s:
    """Indices of the tokens of slots."""
    return (np.asarray(slots, dtype=np.int64)[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)


def _one_token(model: LanguageModel) -> tuple[Tensor, Tensor]:
    """Shape and type of a token's keys and values [L, K, D]."""
    past = Past()
    one = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    with torch.no_grad(), model.autocast():
        model.hidden(one, one, past=past)
    keys, values = zip(*past.computed, strict=True)
    return torch.cat(keys), torch.cat(values)
