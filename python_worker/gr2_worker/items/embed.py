"""Sentence embeddings of item texts with sentence-transformers. Local folders load without any network access."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from gr2_worker.errors import FailedPrecondition, NotFound

_lock = threading.Lock()
_models: dict[tuple[str, str], SentenceTransformer] = {}


def embed_texts(
    model_path: str, texts: Sequence[str], batch_size: int, normalize: bool, device: str
) -> NDArray[np.float32]:
    """Returns float32 [texts, dims], rows in the order of `texts`; empty texts are allowed.

    The result is a function of the set of texts: equal texts get equal rows, and their order changes nothing, not even
    the last bit (batches are cut from the distinct texts sorted by length, then by spelling).
    Raises NotFound if model_path is neither a folder nor a model that can be loaded.
    """
    model = _load(model_path, device)
    if not texts:
        return np.zeros((0, _dims(model)), dtype=np.float32)
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    rows = model.encode(
        distinct,
        batch_size=batch_size,
        normalize_embeddings=normalize,
        convert_to_numpy=True,
        show_progress_bar=False,
    )
    row_by_text = {text: row for row, text in enumerate(distinct)}
    embeddings = np.asarray(rows, dtype=np.float32)[[row_by_text[text] for text in texts]]
    if not np.isfinite(embeddings).all():
        raise FailedPrecondition(f"the embedding model {model_path} returned numbers that are not finite")
    return np.ascontiguousarray(embeddings)


def _dims(model: SentenceTransformer) -> int:
    dims = model.get_embedding_dimension()
    if dims is None:
        raise FailedPrecondition("the embedding model does not say how many dimensions it has")
    return int(dims)


def _load(model_path: str, device: str) -> SentenceTransformer:
    folder = Path(model_path).expanduser()
    local = model_path != "" and folder.is_dir()
    if not local and (not model_path or folder.is_absolute() or model_path[0] in ".~" or len(folder.parts) > 2):
        raise NotFound(f"there is no embedding model at {model_path!r}: expected a sentence-transformers folder")
    key = (str(folder.resolve()) if local else model_path, device)
    with _lock:
        model = _models.get(key)
        if model is None:
            try:
                model = SentenceTransformer(key[0], device=device, local_files_only=local)
            except (OSError, ValueError) as error:
                raise NotFound(f"cannot load an embedding model from {model_path!r}: {error}") from error
            model.eval()
            _models[key] = model
        return model
