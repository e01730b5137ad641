"""Requests with what tests leave out: the worker's own types have no defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

from gr2_worker.items.config import QuantizerConfig
from gr2_worker.types import (
    AdamWParams,
    CrossEntropy,
    ForwardSpec,
    LoadSpec,
    PermutationConstraint,
    SampleParams,
    TrainSpec,
)

EVERYTHING = CrossEntropy(negatives=0)
_LEFT_OUT: dict[type, dict[str, Any]] = {
    QuantizerConfig: {
        "method": "rqvae",
        "levels": 4,
        "codes": 256,
        "latent_dim": 32,
        "hidden_dims": (256, 128),
        "epochs": 40,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "commitment": 0.25,
        "ema_decay": 0.97,
        "kmeans_init": True,
        "random_last_level": True,
        "diversity_weight": 0.1,
        "dead_code_reset_epochs": 5,
        "contrastive_weight": 0.0,
        "contrastive_temperature": 0.1,
        "seed": 0,
    },
    AdamWParams: {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 0.0},
    ForwardSpec: {
        "constraint": None,
        "temperature": 1.0,
        "want_entropy": False,
        "micro_batch_tokens": 16384,
        "top_k": 0,
    },
    TrainSpec: {
        "constraint": None,
        "temperature": 1.0,
        "micro_batch_tokens": 16384,
        "seed": 0,
        "want_logprobs": False,
    },
    SampleParams: {
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 0,
        "stop_tokens": (),
        "stop_strings": (),
        "constraint": None,
        "max_batch_tokens": 1 << 18,
    },
    PermutationConstraint: {
        "trigger": (),
        "separator": (),
        "terminator": (),
        "max_sequences": 0,
        "whole_sequences": False,
        "max_free_tokens": 0,
    },
    LoadSpec: {
        "architecture_json": "",
        "tokenizer_json": b"",
        "path": "",
        "gguf_file": "",
        "added_tokens": (),
        "dtype": "float32",
        "gradient_checkpointing": False,
        "seed": 0,
        "trainable": False,
        "pad_vocab_multiple": 0,
        "added_token_vectors": None,
        "lora": None,
        "prefix_cache_bytes": 0,
    },
}


def _make(kind: type, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{**_LEFT_OUT[kind], **dict(zip(names, args, strict=False)), **given})


def quantizer_config(*args: Any, **given: Any) -> QuantizerConfig:
    return _make(QuantizerConfig, args, given)


def adamw_params(*args: Any, **given: Any) -> AdamWParams:
    return _make(AdamWParams, args, given)


def forward_spec(*args: Any, **given: Any) -> ForwardSpec:
    return _make(ForwardSpec, args, given)


def train_spec(*args: Any, **given: Any) -> TrainSpec:
    return _make(TrainSpec, args, given)


def sample_params(*args: Any, **given: Any) -> SampleParams:
    return _make(SampleParams, args, given)


def permutation_constraint(*args: Any, **given: Any) -> PermutationConstraint:
    return _make(PermutationConstraint, args, given)


def load_spec(*args: Any, **given: Any) -> LoadSpec:
    return _make(LoadSpec, args, given)
