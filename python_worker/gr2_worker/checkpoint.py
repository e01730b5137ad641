"""A model's state on disk: safetensors and JSON only, never pickle. The folder also loads as an ordinary pretrained model.

    config.json generation_config.json   the architecture (transformers' format)
    model.safetensors                    weights; tied ones once
    tokenizer.json tokenizer_config.json the tokenizer with added tokens
    optimizer.safetensors                AdamW moments by parameter name (optional)
    gr2_state.json                       step, weight_version, sha256, embedding_dropout, metadata

A folder is replaced atomically: written next to its place, flushed to disk, then renamed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import FailedPrecondition, InvalidRequest, NotFound
from .lm import STATE_FILE, LanguageModel

WEIGHTS_FILE = "model.safetensors"
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
    metadata: dict[str, str] = field(default_factory=dict)  # the caller's: what the weights belong to
    format_version: int = FORMAT_VERSION


def save(
    folder: Path,
    lm: LanguageModel,
    optimizer_state: dict[str, Tensor] | None,
    step: int,
    weight_version: int,
    metadata: dict[str, str],
) -> StateInfo:
    """Writes a state and returns what was written. `folder` is replaced if it is a saved state, else must be absent or empty."""
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise FailedPrecondition(f"cannot write under {folder.parent}: {error.strerror}") from error
    try:
        save_file(_weights(lm), staging / WEIGHTS_FILE, metadata={"format": "pt"})
        if optimizer_state is not None:
            save_file(optimizer_state, staging / OPTIMIZER_FILE, metadata={"format": "pt"})
        _write_tokenizer(staging, lm)
        lm.model.config.save_pretrained(staging)
        if getattr(lm.model, "generation_config", None) is not None:
            lm.model.generation_config.save_pretrained(staging)
        info = StateInfo(
            step=step,
            weight_version=weight_version,
            sha256=sha256_of(staging / WEIGHTS_FILE),
            weights_bytes=(staging / WEIGHTS_FILE).stat().st_size,
            embedding_dropout=lm.embedding_dropout,
            has_optimizer=optimizer_state is not None,
            metadata=metadata,
        )
        (staging / STATE_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n")
        staging.chmod(0o755)  # mkdtemp makes it private
        for file in staging.iterdir():
            _flush(file)
        _flush(staging)
        _replace(staging, folder)
    except OSError as error:
        raise FailedPrecondition(f"cannot write {folder}: {error.strerror or error}") from error
    except SafetensorError as error:  # its writer reports a full disk this way
        raise FailedPrecondition(f"cannot write {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return info


def read_info(folder: Path) -> StateInfo:
    """The JSON part of a saved state. Raises NotFound or FailedPrecondition."""
    if not (folder / STATE_FILE).is_file():
        raise NotFound(f"no saved state at {folder}")
    try:
        return StateInfo(**json.loads((folder / STATE_FILE).read_text()))
    except (TypeError, ValueError) as error:
        raise FailedPrecondition(f"{folder / STATE_FILE} is damaged or of another version") from error


def load_weights(folder: Path, lm: LanguageModel, info: StateInfo) -> None:
    """Copies saved weights into `lm`, whose architecture must match, after checking their hash."""
    if sha256_of(folder / WEIGHTS_FILE) != info.sha256:
        raise FailedPrecondition(f"{folder / WEIGHTS_FILE} is damaged: its sha256 differs from {STATE_FILE}")
    own = _weights(lm)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FailedPrecondition(f"{folder / WEIGHTS_FILE} cannot be read") from error
    if shapes != {name: tuple(weight.shape) for name, weight in own.items()}:
        raise FailedPrecondition(
            f"the state at {folder} is of another architecture or vocabulary than the loaded model"
        )
    saved = load_file(folder / WEIGHTS_FILE)
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


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(lm: LanguageModel) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; of tied ones only the first. Tensors are the live ones."""
    seen: set[int] = set()
    weights = {}
    for name, weight in lm.model.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            weights[name] = weight.detach()
    return weights


def _write_tokenizer(folder: Path, lm: LanguageModel) -> None:
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


def _check_replaceable(folder: Path) -> None:
    """Replacing deletes what was there: only ever do that to a saved state."""
    if not folder.is_absolute():
        raise InvalidRequest(f"path must be absolute, got {str(folder)!r}")
    if folder.is_file():
        raise InvalidRequest(f"{folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE_FILE).is_file():
        raise InvalidRequest(f"{folder} holds something else than a saved state; refusing to replace it")


def _sweep(folder: Path) -> None:
    """Removes what an earlier save to this place left when its process was killed."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if leftover.suffix in (".partial", ".old"):
            shutil.rmtree(leftover, ignore_errors=True)


def _reason(error: SafetensorError) -> str:
    """What the system said, out of the writer's "... I/O error: No space left on device (os error 28)"."""
    number = re.search(r"os error (\d+)", str(error))
    return os.strerror(int(number[1])) if number else str(error)


def _replace(staging: Path, folder: Path) -> None:
    """Renames `staging` to `folder`; an old folder is moved aside first and restored should the rename fail."""
    old = folder.with_name(f".{folder.name}.{staging.name[-16:-8]}.old")
    had_old = folder.exists()
    if had_old:
        folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        if had_old:
            old.rename(folder)
        raise
    _flush(folder.parent)
    if had_old:
        shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
