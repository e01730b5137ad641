"""The engine: one method a verb, over loaded models. No protobuf, no gRPC, no threads: callers serialise.

ForwardBackward and OptimStep are remembered by request id, so that a retry returns the first answer.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import beam, checkpoint, export, lm, losses, packing, ranking, sampler
from .constraints import CompiledConstraint, compile_constraint, replay
from .errors import FailedPrecondition, InvalidRequest, NotFound
from .memory import memory_guard
from .optimizer import AdamW
from .prefix_cache import PrefixCache
from .scoring import TargetTable, max_logits, score
from .types import (
    AdamWParams,
    BeamParams,
    BeamResult,
    Bools,
    CancelCheck,
    CrossEntropy,
    Float32s,
    ForwardSpec,
    GroupBatch,
    Int64s,
    LoadSpec,
    LossSpec,
    OptimResult,
    PermutationConstraint,
    SampledItem,
    SampleParams,
    TokenWatcher,
    TrainResult,
    TrainSpec,
    never_cancelled,
)

DEFAULT_MODEL = "policy"
REMEMBERED_REQUESTS = 1024
# Larger micro-batches fall out of the CPU's caches and are slower, whatever the caller allows.
PREFERRED_TOKENS_CPU = 2048


class LoadedModel:
    """A model, its optimizer and what it remembers of answered requests."""

    def __init__(self, model: lm.LanguageModel, prefix_cache_bytes: int) -> None:
        self.lm = model
        self.prefixes = PrefixCache(model, prefix_cache_bytes) if prefix_cache_bytes else None
        self.optimizer = AdamW(model.model) if model.trainable else None
        self.weight_version = 1
        self._answers: OrderedDict[tuple[str, str], Any] = OrderedDict()

    @property
    def reused_tokens(self) -> int:
        """Tokens of prompts that the prefix cache has spared, so far."""
        return self.prefixes.reused_tokens if self.prefixes is not None else 0

    @property
    def step(self) -> int:
        return self.optimizer.step_count if self.optimizer is not None else 0

    def answered(self, verb: str, request_id: str) -> Any | None:
        """The answer to an earlier request of this id, if remembered."""
        return self._answers.get((verb, request_id)) if request_id else None

    def remember(self, verb: str, request_id: str, answer: Any) -> None:
        """Keeps an answer for retries; the oldest are forgotten."""
        if request_id:
            self._answers[verb, request_id] = answer
            while len(self._answers) > REMEMBERED_REQUESTS:
                self._answers.popitem(last=False)

    def forget(self) -> None:
        """Request ids of before a restore may come again and mean new work."""
        self._answers.clear()


@dataclass(frozen=True)
class LoadedState:
    step: int
    weight_version: int
    sha256: str  # of the weights file
    metadata: dict[str, str]  # as given when it was saved


class Engine:
    """All loaded models of one process, on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._models: dict[str, LoadedModel] = {}

    @property
    def model_ids(self) -> list[str]:
        return sorted(self._models)

    # ------------------------------------------------------------ models

    def load_model(self, model_id: str, spec: LoadSpec) -> lm.LanguageModel:
        """Loads a model under an id; an earlier one of that id is freed first."""
        self._models.pop(model_id or DEFAULT_MODEL, None)
        with memory_guard("the model size, or load in bfloat16"):
            loaded = LoadedModel(lm.load(spec, self.device), spec.prefix_cache_bytes)
        self._models[model_id or DEFAULT_MODEL] = loaded
        return loaded.lm

    def unload_model(self, model_id: str) -> None:
        """Frees a model and its optimizer."""
        self.model(model_id)
        del self._models[model_id or DEFAULT_MODEL]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def model(self, model_id: str) -> LoadedModel:
        """The loaded model of that id ("" = policy)."""
        name = model_id or DEFAULT_MODEL
        if name in self._models:
            return self._models[name]
        if not self._models:
            raise FailedPrecondition("no model is loaded")
        raise NotFound(f"no model {name!r} is loaded; there are: {', '.join(self.model_ids)}")

    def _trainable(self, model_id: str) -> tuple[LoadedModel, AdamW]:
        loaded = self.model(model_id)
        if loaded.optimizer is None:
            raise FailedPrecondition(f"model {model_id or DEFAULT_MODEL!r} was loaded with trainable=false")
        return loaded, loaded.optimizer

    # ------------------------------------------------------------ forward

    def forward(
        self, model_id: str, spec: ForwardSpec, check: CancelCheck = never_cancelled
    ) -> tuple[Float32s, Float32s | None]:
        """Log-probs [N] and, if wanted, entropies [N] of the responses' tokens."""
        model, held = self.model(model_id).lm, self.model(model_id).prefixes
        targets = _targets(model, spec.batch, spec.constraint)
        logprobs = np.zeros(spec.batch.num_targets, dtype=np.float32)
        entropy = np.zeros_like(logprobs) if spec.want_entropy else None
        everything = np.ones(spec.batch.num_targets, dtype=np.bool_)
        with memory_guard("micro_batch_tokens"), torch.no_grad(), model.autocast():
            trees = targets.trees(everything)
            if held is not None:
                trees = held.find(trees)
                held.count(trees)
            for micro_batch in self._plan(trees, spec.micro_batch_tokens):
                check()
                hidden = model.predicting_states(micro_batch) if held is None else held.compute(model, micro_batch)[0]
                for scored in _scored(model, targets, micro_batch, hidden, spec.temperature, spec.want_entropy):
                    at = scored.targets.cpu().numpy()
                    logprobs[at] = scored.logprobs.cpu().numpy()
                    if entropy is not None and scored.entropy is not None:
                        entropy[at] = scored.entropy.cpu().numpy()
        return logprobs, entropy

    # ------------------------------------------------------------ forward-backward

    def forward_backward(
        self, model_id: str, request_id: str, spec: TrainSpec, check: CancelCheck = never_cancelled
    ) -> TrainResult:
        """Adds the gradient of sum_t weight_t * loss_t; all or nothing: a failed or cancelled call adds none of it."""
        loaded, optimizer = self._trainable(model_id)
        if (answer := loaded.answered("forward_backward", request_id)) is not None:
            return answer  # type: ignore[no-any-return]
        started = time.perf_counter()
        devices = [self.device] if self.device.type == "cuda" else []
        before = optimizer.snapshot_gradient()
        try:
            dropout = isinstance(spec.loss, CrossEntropy)
            with (
                memory_guard("micro_batch_tokens"),
                torch.random.fork_rng(devices=devices),
                loaded.lm.training(dropout),
            ):
                torch.manual_seed(spec.seed)
                loss, metrics, logprobs = self._accumulate(loaded.lm, spec, check)
        except BaseException:
            optimizer.restore_gradient(before)
            raise
        if not math.isfinite(loss):
            optimizer.zero_grad()
            raise FailedPrecondition(
                "the loss is not finite; the accumulated gradient was cleared: lower learning_rate or the weights"
            )
        result = TrainResult(loss, metrics, logprobs, time.perf_counter() - started)
        loaded.remember("forward_backward", request_id, result)
        return result

    def _accumulate(
        self, model: lm.LanguageModel, spec: TrainSpec, check: CancelCheck
    ) -> tuple[float, dict[str, float], Float32s | None]:
        """Loss, metrics and log-probs; the gradient goes into the parameters."""
        device = model.device
        targets = _targets(model, spec.batch, spec.constraint)
        weighted = spec.weights != 0
        wanted = np.ones_like(weighted) if spec.want_logprobs else weighted
        weights = torch.from_numpy(spec.weights.copy()).to(device)
        name, inputs = _loss_inputs(spec.loss, device)
        loss_fn = losses.LOSSES[name]
        want_entropy = name == "policy"
        sums = losses.MetricSums()
        total = torch.zeros((), dtype=torch.float64, device=device)
        logprobs = np.zeros(spec.batch.num_targets, dtype=np.float32) if spec.want_logprobs else None

        def weigh(token_logprobs: Tensor, at: Tensor) -> Tensor:
            """Weighted loss of some targets; adds their metrics."""
            trained = torch.nonzero(weights[at] != 0)[:, 0]
            chosen = at[trained]
            loss, metrics = loss_fn(token_logprobs[trained], inputs.select(chosen))
            sums.add(metrics)
            return (weights[chosen] * loss).sum()

        # Forced tokens have log-prob 0 and no gradient, yet belong to the loss.
        certain = torch.from_numpy(np.flatnonzero(targets.certain_N & weighted)).to(device)
        if len(certain):
            total += weigh(torch.zeros(len(certain), device=device), certain).double()
        for micro_batch in self._plan(targets.trees(wanted), spec.micro_batch_tokens):
            check()
            with model.autocast():
                hidden = model.predicting_states(micro_batch)
                # The graph is cut here, so that only one chunk's logits are ever alive.
                leaf = hidden.detach().requires_grad_()
                for scored in _scored(model, targets, micro_batch, leaf, spec.temperature, want_entropy):
                    at = scored.targets
                    loss = weigh(scored.logprobs, at)
                    if loss.requires_grad:
                        loss.backward()  # type: ignore[no-untyped-call]
                    total += loss.detach().double()
                    if scored.entropy is not None:
                        sums.add({"entropy": (scored.entropy * (weights[at] != 0)).sum()})
                    if logprobs is not None:
                        logprobs[at.cpu().numpy()] = scored.logprobs.detach().cpu().numpy()
            if leaf.grad is not None:
                hidden.backward(leaf.grad)
        num_trained = int(weighted.sum())
        metrics = sums.summarise(num_trained)
        metrics["forced_tokens"] = float((targets.certain_N & weighted).sum())
        return float(total), metrics, logprobs

    # ------------------------------------------------------------ optimizer

    def optim_step(self, model_id: str, request_id: str, params: AdamWParams) -> OptimResult:
        """One AdamW step with the accumulated gradient, which it clears."""
        loaded, optimizer = self._trainable(model_id)
        if (answer := loaded.answered("optim_step", request_id)) is not None:
            return answer  # type: ignore[no-any-return]
        with memory_guard("the model size"):
            grad_norm = optimizer.step(params)
        loaded.weight_version += 1
        result = OptimResult(grad_norm, optimizer.step_count, loaded.weight_version)
        loaded.remember("optim_step", request_id, result)
        return result

    # ------------------------------------------------------------ generation

    def sample(
        self,
        model_id: str,
        params: SampleParams,
        check: CancelCheck = never_cancelled,
        watch: TokenWatcher | None = None,
    ) -> Iterator[list[SampledItem]]:
        """Yields responses as they finish; `watch` is told of the tokens drawn one by one."""
        with memory_guard("max_batch_tokens"):
            loaded = self.model(model_id)
            yield from sampler.sample(loaded.lm, params, check, watch, loaded.prefixes)

    def beam_search(self, model_id: str, params: BeamParams, check: CancelCheck = never_cancelled) -> BeamResult:
        """The best catalogue rows of every prompt."""
        with memory_guard("the number of prompts or beam_width"):
            return beam.beam_search(self.model(model_id).lm, params, check)

    # ------------------------------------------------------------ state

    def save_state(
        self, model_id: str, path: str, include_optimizer: bool, metadata: dict[str, str] | None = None
    ) -> checkpoint.StateInfo:
        """Writes a model's state, atomically."""
        loaded = self.model(model_id)
        if include_optimizer and loaded.optimizer is None:
            raise FailedPrecondition("a model loaded with trainable=false has no optimizer state to save")
        tensors = loaded.optimizer.state() if include_optimizer and loaded.optimizer is not None else None
        return checkpoint.save(Path(path), loaded.lm, tensors, loaded.step, loaded.weight_version, metadata or {})

    def export_model(self, model_id: str, path: str, dtype: str, files: dict[str, bytes]) -> int:
        """Writes a model as an ordinary checkpoint, LoRA merged. Returns bytes of weights."""
        with memory_guard("the model size: merged weights are held in host memory"):
            return export.export(Path(path), self.model(model_id).lm, dtype, files)

    def load_state(self, model_id: str, path: str, include_optimizer: bool) -> LoadedState:
        """Restores a saved state; drops any accumulated gradient."""
        loaded = self.model(model_id)
        folder = Path(path)
        info = checkpoint.read_info(folder)
        if include_optimizer and loaded.optimizer is None:
            raise FailedPrecondition("a model loaded with trainable=false has no optimizer to restore")
        tensors = checkpoint.load_optimizer(folder) if include_optimizer else None
        if loaded.prefixes is not None:
            loaded.prefixes.clear()
        checkpoint.load_weights(folder, loaded.lm, info)
        loaded.lm.embedding_dropout = info.embedding_dropout
        if loaded.optimizer is not None:
            loaded.optimizer.load_state(tensors or {}, info.step if include_optimizer else 0)
        loaded.weight_version += 1
        loaded.forget()
        return LoadedState(loaded.step, loaded.weight_version, info.sha256, info.metadata)

    def _plan(self, trees: list[packing.Tree], micro_batch_tokens: int) -> list[packing.MicroBatch]:
        preferred = None if self.device.type == "cuda" else PREFERRED_TOKENS_CPU
        return packing.plan(trees, micro_batch_tokens, preferred)


@dataclass(frozen=True)
class Targets:
    """How the targets of a batch are scored: token by token, as a choice among whole sequences, or not at all."""

    batch: GroupBatch
    table: TargetTable
    token_path_N: Bools
    certain_N: Bools  # log-prob exactly 0
    ranked: Ranked | None = None

    def trees(self, wanted_N: Bools) -> list[packing.Tree]:
        """What has to be computed for the wanted targets."""
        wanted = wanted_N & self.token_path_N
        if self.ranked is None:
            return packing.trees_of(self.batch, wanted)
        compiled, choices, candidates = self.ranked.compiled, self.ranked.choices, self.ranked.candidates
        needed = np.zeros(len(choices.contexts), dtype=np.bool_)
        asked_RK = (choices.targets_RK >= 0) & wanted_N[choices.targets_RK]
        needed[choices.context_R[asked_RK.any(axis=1)]] = True
        return ranking.trees_of(self.batch, wanted, compiled, choices, candidates, needed)


@dataclass(frozen=True)
class Ranked:
    """Responses that end in a choice among whole sequences."""

    compiled: CompiledConstraint
    choices: ranking.Choices
    candidates: ranking.Candidates


def _targets(model: lm.LanguageModel, batch: GroupBatch, constraint: PermutationConstraint | None) -> Targets:
    """Checks a batch against the model and replays its constraint."""
    if len(batch.tokens) and (batch.tokens.min() < 0 or batch.tokens.max() >= model.vocab_size):
        raise InvalidRequest(f"batch holds a token outside of the vocabulary of {model.vocab_size}")
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
        choices = ranking.read_choices(compiled, found, batch)
        candidates = ranking.Candidates.of(compiled, choices.contexts, batch.num_targets)
        table = TargetTable.build(tokens, None, None, model.device)
        certain = ~choices.token_path_N & ~choices.choice_N
        return Targets(batch, table, choices.token_path_N, certain, Ranked(compiled, choices, candidates))
    table = TargetTable.build(tokens, compiled, found, model.device)
    return Targets(batch, table, ~found.forced_N, found.forced_N)


@dataclass(frozen=True)
class ScoredTargets:
    """Some targets of a request; log-probs with graph if gradients are on."""

    targets: Tensor  # int64 [n], flat
    logprobs: Tensor  # float32 [n]
    entropy: Tensor | None  # float32 [n], no gradient


def _scored(
    model: lm.LanguageModel,
    targets: Targets,
    micro_batch: packing.MicroBatch,
    hidden_nC: Tensor,
    temperature: float,
    want_entropy: bool,
) -> Iterator[ScoredTargets]:
    """Scores a micro-batch chunk by chunk: tokens first, then choices among whole sequences."""
    num_targets = targets.batch.num_targets
    is_token = micro_batch.targets < num_targets
    own = torch.nonzero(is_token)[:, 0].to(model.device)
    at = micro_batch.targets[is_token].to(model.device)
    if len(at):
        for scored in score(model, hidden_nC, own, at, targets.table, temperature, want_entropy):
            yield ScoredTargets(at[scored.positions], scored.logprobs, scored.entropy)
    if targets.ranked is None:
        return
    compiled, choices, candidates = targets.ranked.compiled, targets.ranked.choices, targets.ranked.candidates
    places = torch.nonzero(~is_token)[:, 0]
    of_S = micro_batch.targets[places].numpy() - num_targets
    for chunk in _runs(candidates.context_S[of_S], max_logits(model.device) // model.vocab_size):
        states = hidden_nC.index_select(0, places[chunk].to(model.device))
        contexts, scores_XJ = ranking.sequence_scores(model, compiled, candidates, states, of_S[chunk], temperature)
        rows = np.flatnonzero(np.isin(choices.context_R, contexts))
        row_of = torch.from_numpy(np.searchsorted(contexts, choices.context_R[rows])).to(model.device)
        order = torch.from_numpy(choices.order_RK[rows]).to(model.device)
        logprobs, entropy = ranking.choice_logprobs(scores_XJ[row_of], order)
        carriers = torch.from_numpy(choices.targets_RK[rows]).to(model.device)
        real = carriers >= 0
        yield ScoredTargets(carriers[real], logprobs[real], entropy[real])


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


def _loss_inputs(spec: LossSpec, device: torch.device) -> tuple[str, losses.LossInputs]:
    """The name of a loss and its per-target inputs on the device."""
    if isinstance(spec, CrossEntropy):
        return "cross_entropy", losses.LossInputs()
    to = {
        name: None if values is None else torch.from_numpy(values.copy()).to(device)
        for name, values in (
            ("advantages", spec.advantages),
            ("old_logprobs", spec.old_logprobs),
            ("reference_logprobs", spec.reference_logprobs),
        )
    }
    return "policy", losses.LossInputs(**to, clip_low=spec.clip_low, clip_high=spec.clip_high, kl_coef=spec.kl_coef)
