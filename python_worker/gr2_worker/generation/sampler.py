"""Sampling with shared-prefix KV caching and constraints.

Every prompt is prefilled once, and the prefix that all prompts share only once; a prompt's G samples decode in lockstep
with all others of the batch. Forced tokens cost no logits, and no forward if every row is forced: runs of forced tokens
are fed as one chunk. Finished rows are compacted away. The noise of a row comes from Philox keyed by (seed, prompt,
sample), so a result does not depend on how prompts were batched.

Shape legend: P prompts, S slots per prompt, R = P*S rows, C hidden size, J allowed tokens, V vocabulary, T new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gr2_worker.errors import FailedPrecondition, InvalidRequest
from gr2_worker.generation.decoder import Decoder, for_generation
from gr2_worker.generation.prefill import prefill, prefill_cached, tokens_at_once
from gr2_worker.generation.stopping import Stops
from gr2_worker.model.attention import SharedPrefixCache
from gr2_worker.model.lm import LanguageModel
from gr2_worker.model.prefix_cache import PrefixCache
from gr2_worker.scoring import plackett_luce
from gr2_worker.scoring.constraints import Allowed, Automaton, CompiledConstraint, compile_constraint
from gr2_worker.scoring.logprobs import constrained_logits
from gr2_worker.types import (
    Bools,
    CancelCheck,
    DrawnToken,
    Float32s,
    Int32s,
    Int64s,
    SampledItem,
    SampleParams,
    TokenWatcher,
)

# Rows are compacted when at most this share of the slots would remain.
COMPACTION_SHARE = 0.75
# Prompts whose rankings are scored and returned together: bounds how long a caller waits for the first.
PROMPTS_RANKED_AT_ONCE = 256


def check_prompts(prompts: list[Int32s], lm: LanguageModel, new_tokens: int) -> None:
    """Raises InvalidRequest for tokens outside the vocabulary or sequences longer than the model's positions."""
    for number, prompt in enumerate(prompts):
        if len(prompt) and (prompt.min() < 0 or prompt.max() >= lm.vocab_size):
            raise InvalidRequest(f"prompt {number} contains a token outside the vocabulary of {lm.vocab_size}")
        if lm.max_positions and len(prompt) + new_tokens > lm.max_positions:
            raise InvalidRequest(
                f"prompt {number} has {len(prompt)} tokens and {new_tokens} more may follow, "
                f"but the model has {lm.max_positions} positions"
            )


def decode(lm: Decoder | LanguageModel, cache: SharedPrefixCache, tokens_RQ: npt.NDArray[np.integer]) -> Tensor:
    """Feeds Q new tokens to every row; returns the last hidden state [R, C]."""
    ids = torch.from_numpy(tokens_RQ.astype(np.int64)).to(lm.device)
    new = ids.shape[1]
    start = cache.prompt_lengths.repeat_interleave(cache.slots) + cache.suffix_length
    positions = start[:, None] + torch.arange(new, device=lm.device)
    cache.attended = 0
    hidden = lm.hidden(ids, positions, cache=cache)
    if cache.attended != lm.config.num_hidden_layers:
        raise FailedPrecondition(f"models of type {lm.config.model_type} cannot decode with the worker's attention")
    cache.advance(new)
    return hidden[:, -1]


def sample(
    lm: LanguageModel,
    params: SampleParams,
    check: CancelCheck,
    watch: TokenWatcher | None = None,
    prefixes: PrefixCache | None = None,
) -> Iterator[list[SampledItem]]:
    """Yields responses as they finish. The order is deterministic, but not that of the request.

    `watch` gets every token as it is drawn; rankings of whole sequences are only in their response.
    `prefixes`: a cache of prompts that need not be computed.
    """
    check_prompts(params.prompts, lm, params.max_new_tokens)
    compiled = None
    if params.constraint is not None:
        compiled = compile_constraint(params.constraint, len(params.prompts), lm.vocab_size)
    if compiled is not None and compiled.whole_sequences:
        for free in _free_parts(lm, params, compiled, check, watch, prefixes):
            yield from _ranked(lm, params, compiled, free, check, prefixes)
        return
    yield from _sample_tokens(lm, params, compiled, check, watch, prefixes)


def _sample_tokens(
    lm: LanguageModel,
    params: SampleParams,
    compiled: CompiledConstraint | None,
    check: CancelCheck,
    watch: TokenWatcher | None,
    prefixes: PrefixCache | None,
) -> Iterator[list[SampledItem]]:
    """Responses drawn token by token; with whole sequences they end where the ranking part would begin."""
    with torch.no_grad():
        generating = for_generation(lm)

    def fill(prompts: list[Int32s]) -> tuple[SharedPrefixCache, Tensor]:
        return prefill(generating, prompts, check) if prefixes is None else prefill_cached(lm, prefixes, prompts, check)

    for prompts, first, samples in _batches(params):
        with torch.no_grad(), lm.autocast():
            yield from _Batch(generating, fill, params, compiled, prompts, first, samples, check, watch).run()


def _free_parts(
    lm: LanguageModel,
    params: SampleParams,
    compiled: CompiledConstraint,
    check: CancelCheck,
    watch: TokenWatcher | None,
    prefixes: PrefixCache | None,
) -> Iterator[list[SampledItem]]:
    """The parts before the rankings: drawn, or empty if there is no trigger to wait for."""
    if len(compiled.trigger):
        yield from _sample_tokens(lm, params, compiled, check, watch, prefixes)
        return
    empty_i, empty_f = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    for start in range(0, len(params.prompts), PROMPTS_RANKED_AT_ONCE):
        prompts = range(start, min(start + PROMPTS_RANKED_AT_ONCE, len(params.prompts)))
        yield [SampledItem(p, s, empty_i, empty_f, True) for p in prompts for s in range(params.num_samples)]


def _ranked(
    lm: LanguageModel,
    params: SampleParams,
    compiled: CompiledConstraint,
    free: list[SampledItem],
    check: CancelCheck,
    prefixes: PrefixCache | None,
) -> Iterator[list[SampledItem]]:
    """Completes responses with a ranking, drawn in one forward pass per distinct context; others pass through."""
    trigger = compiled.trigger
    begins = [bool(np.array_equal(i.tokens[len(i.tokens) - len(trigger) :], trigger)) for i in free]
    unranked = [i for i, ranks in zip(free, begins, strict=True) if not ranks or not compiled.limits_E[i.prompt]]
    if unranked:
        yield unranked
    waiting = [i for i, ranks in zip(free, begins, strict=True) if ranks and compiled.limits_E[i.prompt]]
    by_context: dict[tuple[int, bytes], list[SampledItem]] = {}
    for item in waiting:
        by_context.setdefault((item.prompt, item.tokens.tobytes()), []).append(item)
    # Contexts of one prompt are adjacent, so that they are computed together.
    sharing = sorted(by_context.values(), key=lambda items: items[0].prompt)
    contexts = [
        plackett_luce.Context(items[0].prompt, params.prompts[items[0].prompt], items[0].tokens) for items in sharing
    ]
    budget = tokens_at_once(lm.device)
    temperature = params.temperature if params.temperature > 0 else 1.0
    for chunk in plackett_luce.chunks(compiled, contexts, budget):
        check()
        with torch.no_grad(), lm.autocast():
            scores_XJ = plackett_luce.scores(lm, compiled, contexts[chunk], temperature, budget, prefixes)
        rows = [(x, item) for x, items in enumerate(sharing[chunk]) for item in items]
        scores_np = scores_XJ.double().cpu().numpy()
        orders = []
        for x, item in rows:
            noise = _order_noise(params, item, scores_np.shape[1]) if params.temperature > 0 else None
            orders.append(plackett_luce.draw_order(scores_np[x], noise, int(compiled.limits_E[item.prompt])))
        padded = np.full((len(rows), max(len(o) for o in orders)), -1, dtype=np.int64)
        for row, order in enumerate(orders):
            padded[row, : len(order)] = order
        scores_RJ = scores_XJ[torch.tensor([x for x, _ in rows], device=scores_XJ.device)]
        logprobs, _ = plackett_luce.choice_logprobs(scores_RJ, torch.from_numpy(padded).to(scores_XJ.device))
        values = logprobs.cpu().numpy()
        finished = []
        for row, (_, item) in enumerate(rows):
            tokens, their_logprobs = plackett_luce.written(compiled, item.prompt, orders[row], values[row])
            finished.append(
                SampledItem(
                    item.prompt,
                    item.sample,
                    np.concatenate([item.tokens, np.asarray(tokens, dtype=np.int32)]),
                    np.concatenate([item.logprobs, np.asarray(their_logprobs, dtype=np.float32)]),
                    True,
                )
            )
        yield finished


def _batches(params: SampleParams) -> Iterator[tuple[list[int], int, int]]:
    """(prompts, first sample, number of samples) that fit the cache together: similar lengths, longest first."""
    order = sorted(range(len(params.prompts)), key=lambda p: (-len(params.prompts[p]), p))
    at = 0
    while at < len(order):
        width = len(params.prompts[order[at]])
        cells = width + params.num_samples * params.max_new_tokens
        if cells <= params.max_batch_tokens:
            size = params.max_batch_tokens // cells
            yield order[at : at + size], 0, params.num_samples
            at += size
            continue
        # One prompt's samples alone exceed the bound: split them.
        size = max(1, (params.max_batch_tokens - width) // params.max_new_tokens)
        for first in range(0, params.num_samples, size):
            yield [order[at]], first, min(size, params.num_samples - first)
        at += 1


class _Batch:
    """Rows that decode together, ordered by prompt, `slots` rows each. A row that is not alive is padding."""

    def __init__(
        self,
        lm: Decoder | LanguageModel,
        fill: Callable[[list[Int32s]], tuple[SharedPrefixCache, Tensor]],
        params: SampleParams,
        compiled: CompiledConstraint | None,
        prompts: list[int],
        first_sample: int,
        num_samples: int,
        check: CancelCheck,
        watch: TokenWatcher | None,
    ) -> None:
        self._lm, self._params, self._compiled, self._check = lm, params, compiled, check
        self._watch = watch
        self._prompt_R: Int64s = np.repeat(np.asarray(prompts, dtype=np.int64), num_samples)
        self._sample_R: Int64s = np.tile(np.arange(first_sample, first_sample + num_samples), len(prompts))
        rows = len(self._prompt_R)
        self._alive_R: Bools = np.ones(rows, dtype=np.bool_)
        self._tokens_RT: Int32s = np.zeros((rows, params.max_new_tokens), dtype=np.int32)
        self._logprobs_RT: Float32s = np.zeros((rows, params.max_new_tokens), dtype=np.float32)
        self._noise_RT = _noise(params, self._prompt_R, self._sample_R)
        self._automaton = Automaton(compiled, self._prompt_R) if compiled is not None else None
        self._stops = Stops(params.stop_tokens, params.stop_strings, lm.tokenizer)
        self._cache, last_PC = fill([params.prompts[p] for p in prompts])
        self._cache.start_decoding(num_samples)
        self._hidden_RC = last_PC.repeat_interleave(num_samples, dim=0)

    def run(self) -> Iterator[list[SampledItem]]:
        """Decodes until every row has finished."""
        fed = 0  # tokens of every row that are in the cache
        for t in range(self._params.max_new_tokens):
            self._check()
            allowed = None
            if self._automaton is not None and not self._automaton.idle:
                allowed = self._automaton.allowed()
            if allowed is not None and bool((~self._alive_R | (allowed.count_R == 1)).all()):
                tokens = np.where(self._alive_R, allowed.forced_R, 0).astype(np.int32)
            else:
                if fed < t:
                    self._hidden_RC = decode(self._lm, self._cache, self._tokens_RT[:, fed:t])
                    fed = t
                tokens, self._logprobs_RT[:, t] = self._choose(allowed, t)
            self._tokens_RT[:, t] = tokens
            if self._watch is not None:
                self._watch([self._drawn(row, t) for row in np.flatnonzero(self._alive_R).tolist()])
            if self._automaton is not None:
                self._automaton.advance(tokens, self._alive_R)
            ended = self._ended(t)
            last = t + 1 == self._params.max_new_tokens
            finished = self._alive_R & (ended | last)
            if finished.any():
                stopped = finished & ended
                yield [self._item(row, t + 1, bool(stopped[row])) for row in np.flatnonzero(finished).tolist()]
                self._alive_R &= ~finished
                if not self._alive_R.any():
                    return
                self._compact()

    def _ended(self, t: int) -> Bools:
        """Rows that ended by themselves with token t."""
        ended = self._stops.ended(self._tokens_RT, t)
        if self._automaton is not None:
            whole = self._compiled is not None and self._compiled.whole_sequences
            ended |= self._automaton.ranking_R if whole else self._automaton.done_R
        return ended

    def _drawn(self, row: int, t: int) -> DrawnToken:
        return DrawnToken(int(self._prompt_R[row]), int(self._sample_R[row]), t, int(self._tokens_RT[row, t]))

    def _item(self, row: int, length: int, stopped: bool) -> SampledItem:
        return SampledItem(
            prompt=int(self._prompt_R[row]),
            sample=int(self._sample_R[row]),
            tokens=self._tokens_RT[row, :length].copy(),
            logprobs=self._logprobs_RT[row, :length].copy(),
            stopped=stopped,
        )

    def _choose(self, allowed: Allowed | None, t: int) -> tuple[Int32s, Float32s]:
        """Next tokens and their log-probs for every row, from the hidden states of the latest tokens."""
        rows = len(self._alive_R)
        tokens, logprobs = np.zeros(rows, dtype=np.int32), np.zeros(rows, dtype=np.float32)
        constrained = np.zeros(rows, dtype=np.bool_) if allowed is None else allowed.constrained_R
        free = np.flatnonzero(self._alive_R & ~constrained)
        if len(free):
            index, chosen = self._draw(self._lm.logits(self._pick(free)) / self._temperature, free, t)
            tokens[free], logprobs[free] = index, chosen
        if allowed is None or self._compiled is None:
            return tokens, logprobs
        forced = self._alive_R & constrained & (allowed.count_R == 1)
        tokens[forced] = allowed.forced_R[forced]
        branching = np.flatnonzero(self._alive_R & constrained & (allowed.count_R > 1))
        if len(branching):
            ids = allowed.tokens_RJ[branching]
            logits = self._lm.compute_logits(
                self._pick(branching), torch.from_numpy(ids.astype(np.int64)).to(self._lm.device)
            )
            bias = torch.from_numpy(allowed.bias_RJ[branching]).to(self._lm.device)
            logits = constrained_logits(logits, bias, self._compiled.scale, self._temperature)
            column, chosen = self._draw(logits, branching, t)
            tokens[branching] = ids[np.arange(len(branching)), column]
            logprobs[branching] = chosen
        return tokens, logprobs

    @property
    def _temperature(self) -> float:
        """Greedy choices report log-probs at temperature 1."""
        return self._params.temperature if self._params.temperature > 0 else 1.0

    def _pick(self, rows: Int64s) -> Tensor:
        if len(rows) == len(self._alive_R):
            return self._hidden_RC
        return self._hidden_RC.index_select(0, torch.from_numpy(rows).to(self._lm.device))

    def _draw(self, logits_nV: Tensor, rows: Int64s, t: int) -> tuple[Int64s, Float32s]:
        """Index and log-prob of one draw per row of tempered logits: greedy, or top-p and inverse CDF."""
        if 0 < self._params.top_p < 1:
            logits_nV = _nucleus(logits_nV, self._params.top_p)
        log_probs = logits_nV.log_softmax(dim=-1)
        if self._params.temperature > 0:
            noise = torch.from_numpy(self._noise_RT[rows, t]).to(logits_nV.device)
            cumulative = log_probs.exp().to(noise.dtype).cumsum(dim=-1)
            best = torch.searchsorted(cumulative, (noise * cumulative[:, -1])[:, None], right=True)[:, 0]
            best = best.clamp(max=logits_nV.shape[1] - 1)
            chosen = log_probs.gather(1, best[:, None])[:, 0]
            # Rounding may land on an impossible token once in 2^53 draws.
            if bool((chosen == float("-inf")).any()):
                best = torch.where(chosen == float("-inf"), log_probs.argmax(dim=-1), best)
        else:
            best = log_probs.argmax(dim=-1)
        chosen = log_probs.gather(1, best[:, None])[:, 0]
        return best.cpu().numpy(), chosen.cpu().numpy()

    def _compact(self) -> None:
        """Drops prompts without a living row and slots that no prompt needs any more, when that is worth the copy."""
        slots = self._cache.slots
        alive_PS = self._alive_R.reshape(-1, slots)
        living = alive_PS.sum(axis=1)
        prompts = np.flatnonzero(living)
        new_slots = int(living.max())
        if len(prompts) * new_slots > COMPACTION_SHARE * alive_PS.size:
            return
        # Living slots first, in order; a prompt with fewer than new_slots keeps some dead ones as padding.
        order = np.argsort(~alive_PS[prompts], axis=1, kind="stable")[:, :new_slots]
        rows = (prompts[:, None] * slots + order).reshape(-1)
        self._prompt_R, self._sample_R, self._alive_R = self._prompt_R[rows], self._sample_R[rows], self._alive_R[rows]
        self._tokens_RT, self._logprobs_RT = self._tokens_RT[rows], self._logprobs_RT[rows]
        self._noise_RT = self._noise_RT[rows]
        if self._automaton is not None:
            self._automaton = self._automaton.select(rows)
        device = self._lm.device
        rows_on_device = torch.from_numpy(rows).to(device)
        kept = None if len(prompts) == len(alive_PS) else torch.from_numpy(prompts).to(device)
        self._cache.select(kept, rows_on_device, new_slots)
        self._hidden_RC = self._hidden_RC.index_select(0, rows_on_device)


def _nucleus(logits_nV: Tensor, top_p: float) -> Tensor:
    """Keeps the smallest set of most probable tokens whose mass reaches top_p; the others become -inf."""
    ordered, index = logits_nV.sort(dim=-1, descending=True, stable=True)
    probs = ordered.softmax(dim=-1)
    outside = probs.cumsum(dim=-1) - probs >= top_p
    return logits_nV.masked_fill(torch.zeros_like(outside).scatter(1, index, outside), float("-inf"))


def _order_noise(params: SampleParams, item: SampledItem, width: int) -> npt.NDArray[np.float64]:
    """Uniforms [J] for a row's order: the same key as its tokens' noise, another counter."""
    key = np.asarray([params.seed & 0xFFFFFFFFFFFFFFFF, (item.prompt << 32) | item.sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 1])).random(width)


def _noise(params: SampleParams, prompt_R: Int64s, sample_R: Int64s) -> npt.NDArray[np.float64]:
    """Uniforms in [0, 1) [R, T], keyed per row; empty for greedy decoding."""
    if params.temperature <= 0:
        return np.zeros((len(prompt_R), 0))
    noise = np.empty((len(prompt_R), params.max_new_tokens))
    low = params.seed & 0xFFFFFFFFFFFFFFFF
    for row, (prompt, number) in enumerate(zip(prompt_R.tolist(), sample_R.tolist(), strict=True)):
        key = np.asarray([low, (prompt << 32) | number], dtype=np.uint64)
        noise[row] = np.random.Generator(np.random.Philox(key=key)).random(params.max_new_tokens)
    return noise
