"""The engine: one method per verb, over loaded models. No protobuf, no gRPC, no threads: callers serialise.

ForwardBackward and OptimStep are remembered by request id, so that a retry returns the first answer.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gr2_worker.errors import FailedPrecondition, NotFound
from gr2_worker.generation import beam, sampler
from gr2_worker.memory import memory_guard
from gr2_worker.model import checkpoint, export, lm, packing, vocabulary
from gr2_worker.model.optimizer import AdamW
from gr2_worker.model.prefix_cache import PrefixCache
from gr2_worker.scoring import losses
from gr2_worker.scoring.logprobs import Wanted
from gr2_worker.scoring.targets import Targets, scored
from gr2_worker.scoring.targets import read as read_targets
from gr2_worker.types import (
    AdamWParams,
    BeamParams,
    BeamResult,
    CancelCheck,
    CrossEntropy,
    Distill,
    Float32s,
    ForwardResult,
    ForwardSpec,
    LoadSpec,
    LossSpec,
    OptimResult,
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


def _new_weights_id() -> str:
    """An id of one set of weights in memory, new for every load and step, so that an answer can name its weights."""
    return secrets.token_hex(16)


class LoadedModel:
    """A model, its optimizer and the remembered answers to its requests."""

    def __init__(self, model: lm.LanguageModel, prefix_cache_bytes: int) -> None:
        self.lm = model
        self.prefixes = PrefixCache(model, prefix_cache_bytes) if prefix_cache_bytes else None
        self.optimizer = AdamW(model.model) if model.trainable else None
        self.weight_version = 1
        self.weights_id = _new_weights_id()
        self._answers: OrderedDict[tuple[str, str], Any] = OrderedDict()

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that the prefix cache has saved so far."""
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
        """After a restore, earlier request ids may be reused for new work."""
        self._answers.clear()


@dataclass(frozen=True)
class LoadedState:
    step: int
    weight_version: int
    sha256: str  # of the weights file
    metadata: dict[str, str]  # as given when it was saved
    weights_id: str


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

    def forward(self, model_id: str, spec: ForwardSpec, check: CancelCheck = never_cancelled) -> ForwardResult:
        """Log-probs of the responses' tokens and, if requested, entropies and the likeliest alternatives."""
        model, prefixes = self.model(model_id).lm, self.model(model_id).prefixes
        targets = read_targets(model, spec.batch, spec.constraint)
        logprobs = np.zeros(spec.batch.num_targets, dtype=np.float32)
        entropy = np.zeros_like(logprobs) if spec.want_entropy else None
        top = targets.nothing_but_certain(spec.top_k) if spec.top_k > 0 else None
        everything = np.ones(spec.batch.num_targets, dtype=np.bool_)
        named_rows = vocabulary.rows_needed(model.tokenizer) if spec.top_k > 0 else None
        wanted = Wanted(spec.want_entropy, spec.top_k, named_rows=named_rows)
        with memory_guard("micro_batch_tokens"), torch.no_grad(), model.autocast():
            trees = targets.trees(everything)
            if prefixes is not None:
                trees = prefixes.find(trees)
                prefixes.count(trees)
            for micro_batch in self._plan(trees, spec.micro_batch_tokens):
                check()
                hidden = (
                    model.predicting_states(micro_batch)
                    if prefixes is None
                    else prefixes.compute(model, micro_batch)[0]
                )
                for part in scored(model, targets, micro_batch, hidden, spec.temperature, wanted):
                    at = part.targets.cpu().numpy()
                    logprobs[at] = part.logprobs.cpu().numpy()
                    if entropy is not None and part.entropy is not None:
                        entropy[at] = part.entropy.cpu().numpy()
                    if top is not None and part.top is not None:
                        top.ids[at], top.logprobs[at] = (x.cpu().numpy() for x in part.top)
        return ForwardResult(logprobs, entropy, top)

    # ------------------------------------------------------------ forward-backward

    def forward_backward(
        self, model_id: str, request_id: str, spec: TrainSpec, check: CancelCheck = never_cancelled
    ) -> TrainResult:
        """Adds the gradient of sum_t weight_t * loss_t, or nothing if the call fails or is cancelled."""
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
        targets = read_targets(model, spec.batch, spec.constraint)
        weighted = spec.weights != 0
        wanted = np.ones_like(weighted) if spec.want_logprobs else weighted
        weights = torch.from_numpy(spec.weights.copy()).to(device)
        name, inputs = _loss_inputs(spec.loss, device)
        loss_fn = losses.LOSSES[name]
        negatives = spec.loss.negatives if isinstance(spec.loss, CrossEntropy) else 0
        wanted_details = Wanted(
            name != "cross_entropy", 0, _alternatives(spec, targets, model), negatives=min(negatives, model.vocab_size)
        )
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

        # Forced tokens have log-prob 0 and no gradient, but are part of the loss.
        certain = torch.from_numpy(np.flatnonzero(targets.certain_N & weighted)).to(device)
        if len(certain):
            columns = wanted_details.columns_NK
            size = (len(certain),) if columns is None else (len(certain), columns.shape[1] + 1)
            total += weigh(torch.zeros(size, device=device), certain).double()
        for micro_batch in self._plan(targets.trees(wanted), spec.micro_batch_tokens):
            check()
            with model.autocast():
                hidden = model.predicting_states(micro_batch)
                # The graph is cut here, so that only one chunk's logits are ever alive.
                leaf = hidden.detach().requires_grad_()
                for part in scored(model, targets, micro_batch, leaf, spec.temperature, wanted_details):
                    at = part.targets
                    loss = weigh(part.logprobs if part.given is None else part.given, at)
                    if loss.requires_grad:
                        loss.backward()  # type: ignore[no-untyped-call]
                    total += loss.detach().double()
                    if part.entropy is not None:
                        sums.add({"entropy": (part.entropy * (weights[at] != 0)).sum()})
                    if logprobs is not None:
                        logprobs[at.cpu().numpy()] = part.logprobs.detach().cpu().numpy()
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
        loaded.weights_id = _new_weights_id()
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
        """Yields responses as they finish; `watch` gets each token when it is drawn."""
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
        loaded.weights_id = _new_weights_id()  # even a load that fails half-way has changed the weights
        checkpoint.load_weights(folder, loaded.lm, info)
        loaded.lm.embedding_dropout = info.embedding_dropout
        if loaded.optimizer is not None:
            loaded.optimizer.load_state(tensors or {}, info.step if include_optimizer else 0)
        loaded.weight_version += 1
        loaded.forget()
        return LoadedState(loaded.step, loaded.weight_version, info.sha256, info.metadata, loaded.weights_id)

    def _plan(self, trees: list[packing.Tree], micro_batch_tokens: int) -> list[packing.MicroBatch]:
        preferred = None if self.device.type == "cuda" else PREFERRED_TOKENS_CPU
        return packing.plan(trees, micro_batch_tokens, preferred)


def _alternatives(spec: TrainSpec, targets: Targets, model: lm.LanguageModel) -> Tensor | None:
    """Columns of the loss's alternatives in every target's table [N, K]."""
    if not isinstance(spec.loss, Distill):
        return None
    columns = targets.columns(spec.loss.teacher.ids, model.vocab_size, spec.weights != 0)
    return torch.from_numpy(columns).to(model.device)


def _loss_inputs(spec: LossSpec, device: torch.device) -> tuple[str, losses.LossInputs]:
    """The name of a loss and its per-target inputs on the device."""
    if isinstance(spec, CrossEntropy):
        return "cross_entropy", losses.LossInputs()
    if isinstance(spec, Distill):
        teacher = torch.from_numpy(spec.teacher.logprobs.copy()).to(device)
        return "distill", losses.LossInputs(teacher_logprobs=teacher)
    to = {
        name: None if values is None else torch.from_numpy(values.copy()).to(device)
        for name, values in (
            ("advantages", spec.advantages),
            ("old_logprobs", spec.old_logprobs),
            ("reference_logprobs", spec.reference_logprobs),
        )
    }
    return "policy", losses.LossInputs(**to, clip_low=spec.clip_low, clip_high=spec.clip_high, kl_coef=spec.kl_coef)
