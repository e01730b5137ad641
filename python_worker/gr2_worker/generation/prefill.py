"""Prefills a SharedPrefixCache for decoding: every prompt once, and the prefix that all prompts share only once.

With a prefix cache, only the tokens it lacks are computed, by the model's own layers and not by a Decoder's.

Shape legend: P prompts, C hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gr2_worker.generation.decoder import Decoder
from gr2_worker.model import packing
from gr2_worker.model.attention import SharedPrefixCache
from gr2_worker.model.lm import LanguageModel
from gr2_worker.model.prefix_cache import BLOCK, PrefixCache
from gr2_worker.types import CancelCheck, Int32s

# Tokens prefilled at once: activations of a prefill are much larger than its keys and values.
TOKENS_CUDA = 32768
TOKENS_CPU = 4096
# A prefix shared by all prompts of a batch (instructions) is computed once if it has at least this many tokens.
MIN_COMMON = 64


def tokens_at_once(device: torch.device) -> int:
    """Tokens that a prefill computes at once."""
    return TOKENS_CUDA if device.type == "cuda" else TOKENS_CPU


def prefill(lm: Decoder | LanguageModel, prompts: list[Int32s], check: CancelCheck) -> tuple[SharedPrefixCache, Tensor]:
    """Computes the prompts. Returns the cache (not yet decoding) and every prompt's last hidden state [P, C]."""
    lengths = np.asarray([len(p) for p in prompts], dtype=np.int64)
    lengths_P = torch.from_numpy(lengths).to(lm.device)
    common = common_length(prompts)
    cache = SharedPrefixCache(lengths_P, common)
    if common:
        positions = torch.arange(common, device=lm.device)[None]
        lm.hidden(torch.from_numpy(prompts[0][None, :common].astype(np.int64)).to(lm.device), positions, cache=cache)
    budget = tokens_at_once(lm.device)
    last: list[Tensor] = []
    start = 0
    while start < len(prompts):
        check()
        end, width = start, 0
        while end < len(prompts) and (end == start or max(width, lengths[end]) * (end + 1 - start) <= budget):
            width = max(width, int(lengths[end]))
            end += 1
        # Padding is on the right, where causal attention hides it.
        ids = np.zeros((end - start, width - common), dtype=np.int64)
        for row, prompt in enumerate(prompts[start:end]):
            ids[row, : len(prompt) - common] = prompt[common:]
        positions = torch.arange(common, width, device=lm.device).expand(end - start, -1)
        cache.filling = slice(start, end)
        hidden = lm.hidden(torch.from_numpy(ids).to(lm.device), positions, cache=cache)
        last.append(hidden[torch.arange(end - start, device=lm.device), lengths_P[start:end] - common - 1])
        start = end
    return cache, torch.cat(last)


def prefill_cached(
    model: LanguageModel, prefixes: PrefixCache, prompts: list[Int32s], check: CancelCheck
) -> tuple[SharedPrefixCache, Tensor]:
    """The same, reusing what the prefix cache has of the prompts; it keeps the prompts from now on."""
    common = common_length(prompts)
    cache = SharedPrefixCache(torch.tensor([len(p) for p in prompts], device=model.device), common)
    budget = tokens_at_once(model.device)
    begin, apart = prompts[0][:common], 0
    if prefixes.length(begin) + BLOCK <= common:
        (tree,) = prefixes.find([packing.prompt_alone(begin, 0)])
        (alone,) = packing.plan([tree], budget)
        prefixes.compute(model, alone)
        apart = tree.length
    trees = prefixes.find([packing.prompt_alone(prompt, number) for number, prompt in enumerate(prompts)])
    prefixes.count(trees, apart)
    last: dict[int, Tensor] = {}
    for micro_batch in packing.plan(trees, budget):
        check()
        hidden_nC, past = prefixes.compute(model, micro_batch)
        numbers = micro_batch.targets.numpy()
        cache.take(numbers, [p.at for p in micro_batch.prompts], past)
        last |= dict(zip(numbers.tolist(), hidden_nC, strict=True))
    return cache, torch.stack([last[number] for number in range(len(prompts))])


def common_length(prompts: list[Int32s]) -> int:
    """Length of the shared prefix if it is worth computing once,
    at most the shortest prompt without its last token; else 0.
    """
    shortest = min(len(p) for p in prompts) - 1
    if len(prompts) < 2 or shortest < MIN_COMMON:
        return 0
    differs = np.any([p[:shortest] != prompts[0][:shortest] for p in prompts], axis=0)
    length = int(differs.argmax()) if differs.any() else shortest
    return length if length >= MIN_COMMON else 0
