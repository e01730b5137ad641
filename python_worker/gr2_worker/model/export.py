"""Exports a trained model as an ordinary checkpoint: LoRA and trained rows merged, safetensors in shards, config,
tokenizer with added tokens, chat template. Plain transformers, vLLM and others load it and compute the same.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gr2_worker.errors import InvalidRequest
from gr2_worker.model import checkpoint, lora
from gr2_worker.model.folders import replacing
from gr2_worker.model.lm import STATE_FILE, LanguageModel

MARKER = "gr2_export.json"
MAX_SHARD = "5GB"
# Documents next to the weights: never a path, never anything that a program runs, never a file of the export itself.
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|md|txt|jinja)")
RESERVED = frozenset(
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def export(folder: Path, lm: LanguageModel, dtype: str, files: dict[str, bytes]) -> int:
    """Writes the checkpoint and `files` (name -> content) next to it, including `gr2_export.json`.
    Returns the bytes of weights.

    Raises InvalidRequest, or FailedPrecondition if the disk fails.
    """
    if MARKER not in files:
        raise InvalidRequest(f"files must include {MARKER}")
    for name in files:
        if not FILE_NAME.fullmatch(name) or name in RESERVED:
            raise InvalidRequest(f"files: {name[:80]!r} is not the plain name of a document (.json, .md, .txt, .jinja)")
    weights = _merged(lm, DTYPES[dtype])
    with replacing(folder, MARKER, "an exported model") as staging:
        from huggingface_hub import save_torch_state_dict

        save_torch_state_dict(weights, staging, max_shard_size=MAX_SHARD)
        checkpoint.write_tokenizer(staging, lm)
        config = copy.deepcopy(lm.model.config)
        config.architectures = [type(lm.model).__name__]
        config.dtype = DTYPES[dtype]
        config.save_pretrained(staging)
        _generation(lm).save_pretrained(staging)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        assert not (staging / STATE_FILE).exists()
    return sum(w.numel() * w.element_size() for w in weights.values())


@torch.no_grad()
def _merged(lm: LanguageModel, dtype: torch.dtype) -> dict[str, Tensor]:
    weights = checkpoint.all_weights(lm)
    if lm.adapter is not None:
        weights = lora.merged(lm.model, weights)
    return {
        name: weight.to(device="cpu", dtype=dtype if weight.is_floating_point() else weight.dtype).contiguous()
        for name, weight in weights.items()
    }


def _generation(lm: LanguageModel) -> Any:
    """The base model's generation settings, with at least the tokens to stop at."""
    from transformers import GenerationConfig

    given = getattr(lm.model, "generation_config", None)
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    if config.eos_token_id is None and lm.eos_token_id >= 0:
        config.eos_token_id = lm.eos_token_id
    return config
