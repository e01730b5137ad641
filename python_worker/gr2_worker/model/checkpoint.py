"""A model's state on disk: safetensors and JSON only, never pickle. Without LoRA the folder also loads as an ordinary
pretrained model.

    config.json generation_config.json   the architecture (transformers' format)
    model.safetensors                    weights; tied ones once
    tokenizer.json tokenizer_config.json the tokenizer with added tokens
    optimizer.safetensors                AdamW moments by parameter name (optional)
    gr2_state.json                       step, weight_version, sha256, embedding_dropout, metadata

With LoRA, adapter.safetensors contains only what is trained (LoRA layers and the rows of added tokens) and replaces
config and weights: the state belongs to the base model it was trained on, whose fingerprint is stored.

A folder is replaced atomically (folders.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gr2_worker.errors import FailedPrecondition, NotFound
from gr2_worker.model.folders import replacing
from gr2_worker.model.lm import STATE_FILE, LanguageModel

WEIGHTS_FILE = "model.safetensors"
ADAPTER_FILE = "adapter.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class StateInfo:
    """The JSON part of a saved state."""

    step: int
    weight_version: int
    sha256: str  # of the weights file
    weights_bytes: int
    embedding_dropout: float
    has_optimizer: bool
    metadata: dict[str, str]  # the caller's, about the weights
    format_version: int
    base: str  # fingerprint of the frozen model that the LoRA weights belong to; "" = whole weights

    @property
    def weights_file(self) -> str:
        return ADAPTER_FILE if self.base else WEIGHTS_FILE


def save(
    folder: Path,
    lm: LanguageModel,
    optimizer_state: dict[str, Tensor] | None,
    step: int,
    weight_version: int,
    metadata: dict[str, str],
) -> StateInfo:
    """Writes a state and returns what was written. `folder` is replaced if it is a saved state,
    else must be absent or empty.
    """
    weights_file = WEIGHTS_FILE if lm.adapter is None else ADAPTER_FILE
    with replacing(folder, STATE_FILE, "a saved state") as staging:
        save_file(_weights(lm), staging / weights_file, metadata={"format": "pt"})
        if optimizer_state is not None:
            save_file(optimizer_state, staging / OPTIMIZER_FILE, metadata={"format": "pt"})
        write_tokenizer(staging, lm)
        if lm.adapter is None:
            lm.model.config.save_pretrained(staging)
            if getattr(lm.model, "generation_config", None) is not None:
                lm.model.generation_config.save_pretrained(staging)
        info = StateInfo(
            step=step,
            weight_version=weight_version,
            sha256=hash_file(staging / weights_file),
            weights_bytes=(staging / weights_file).stat().st_size,
            embedding_dropout=lm.embedding_dropout,
            has_optimizer=optimizer_state is not None,
            metadata=metadata,
            format_version=FORMAT_VERSION,
            base="" if lm.adapter is None else lm.adapter.fingerprint,
        )
        (staging / STATE_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n")
    return info


def read_info(folder: Path) -> StateInfo:
    """The JSON part of a saved state. Raises NotFound or FailedPrecondition."""
    if not (folder / STATE_FILE).is_file():
        raise NotFound(f"no saved state at {folder}")
    try:
        fields = json.loads((folder / STATE_FILE).read_text())
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise FailedPrecondition(
                f"{folder / STATE_FILE} has format_version {version}, this worker reads {FORMAT_VERSION}: "
                "use the release of GR2 that wrote it, or train again"
            )
        return StateInfo(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"{folder / STATE_FILE} is damaged") from error


def load_weights(folder: Path, lm: LanguageModel, info: StateInfo) -> None:
    """Copies saved weights into `lm`, whose architecture must match, after checking their hash."""
    file_ = folder / info.weights_file
    base = "" if lm.adapter is None else lm.adapter.fingerprint
    if bool(base) != bool(info.base):
        contents, loaded = ("LoRA weights", "without") if info.base else ("the weights of a whole model", "with")
        raise FailedPrecondition(f"the state at {folder} has {contents}, the model was loaded {loaded} LoRA")
    if base != info.base:
        raise FailedPrecondition(f"the LoRA weights at {folder} were trained on a different base model")
    if not file_.is_file() or hash_file(file_) != info.sha256:
        raise FailedPrecondition(f"{file_} is damaged: its sha256 differs from {STATE_FILE}")
    own = _weights(lm)
    try:
        with safe_open(file_, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FailedPrecondition(f"{file_} cannot be read") from error
    if shapes != {name: tuple(weight.shape) for name, weight in own.items()}:
        another = "architecture or vocabulary" if lm.adapter is None else "LoRA rank, target modules or vocabulary"
        raise FailedPrecondition(f"the state at {folder} differs from the loaded model in {another}")
    saved = load_file(file_)
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(saved[name])


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The saved optimizer tensors. Raises FailedPrecondition if the state was saved without."""
    if not (folder / OPTIMIZER_FILE).is_file():
        raise FailedPrecondition(f"the state at {folder} was saved without optimizer state")
    try:
        return load_file(folder / OPTIMIZER_FILE)
    except SafetensorError as error:
        raise FailedPrecondition(f"{folder / OPTIMIZER_FILE} cannot be read") from error


def hash_file(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def all_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; of tied ones only the first. The tensors are not copied."""
    seen: set[int] = set()
    weights = {}
    for name, weight in lm.model.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            weights[name] = weight.detach()
    return weights


def _weights(lm: LanguageModel) -> dict[str, Tensor]:
    """The tensors of a state: all, or with LoRA the trained ones."""
    return {name: w for name, w in all_weights(lm).items() if lm.adapter is None or lm.is_trained(name)}


def write_tokenizer(folder: Path, lm: LanguageModel) -> None:
    """tokenizer.json with added tokens, and what transformers needs to use it."""
    (folder / "tokenizer.json").write_bytes(lm.tokenizer_json)
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": lm.max_positions,
        "clean_up_tokenization_spaces": False,
    }
    if lm.eos_token_id >= 0:
        settings["eos_token"] = lm.tokenizer.id_to_token(lm.eos_token_id)
    if lm.bos_token:
        settings["bos_token"] = lm.bos_token
    if lm.chat_template:
        settings["chat_template"] = lm.chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
