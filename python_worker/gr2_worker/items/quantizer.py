"""Semantic IDs: fits a residual quantizer on item embeddings, gives every item an ID of L codes,
and encodes further items.

    encoder (MLP or principal components) -> nearest code per level -> assignment -> IDs
    (the last level is drawn among free codes)

Owns the assignment of IDs, the artifact and the metrics; training is rqvae.py and rqkmeans.py. Assignment works on
float64 NumPy, item by item, from hashes of the embeddings: an ID depends on the artifact, the embedding and the IDs
already assigned, not on batch size, process or thread count. Shapes: N items, D input dims, H latent dims, L levels, C
codes per level.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from gr2_worker.errors import InvalidRequest
from gr2_worker.items.config import QuantizerConfig
from gr2_worker.items.rqkmeans import fit_residual_codebooks, nearest_codes, principal_components
from gr2_worker.items.rqvae import train_rqvae

ARTIFACT_VERSION = 1
METADATA_KEY = "gr2_quantizer"  # one key, canonical JSON: equal fits give equal bytes

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class FitResult:
    codes: Ints  # [N, L]
    artifact: bytes  # safetensors: weights, codebooks, IDs of the fitted items by embedding hash; metadata: config
    metrics: dict[str, float]
    code_vectors: NDArray[np.float32]  # [L * C, D] mean residual of the items with that code, 0 if there are none
    """uniqueness: share of items whose full ID no other item has;
    uniqueness_nearest: the same with nearest codes throughout.
    reconstruction: share of the embeddings' variance that the nearest codes lose (0 = nothing, 1 = all).
    reconstruction_assigned: the same with the assigned IDs. usage_k, perplexity_k: share of codes in use and
    exp(entropy) at level k, as assigned. largest_bucket: most items whose nearest codes agree at all levels but the
    last. moved_items: items that had to leave their nearest prefix because it was full. colliding_items: items that
    share their ID.
    dead_code_resets: codes re-seeded in training.
    """


@dataclass(frozen=True)
class _Quantizer:
    """The artifact's contents: z = W_n relu(... relu(W_1 (x - mean) / scale)), then L codebooks,
    then the mirrored decoder.
    """

    config: QuantizerConfig
    mean_D: Floats
    scale: float
    encoder: list[tuple[Floats, Floats]]
    decoder: list[tuple[Floats, Floats]]
    codebooks: list[Floats]
    fitted_hashes: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), np.uint8))
    fitted_codes: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    def latents(self, embeddings_ND: NDArray[np.float32]) -> Floats:
        return _mlp(self.encoder, (embeddings_ND.astype(np.float64) - self.mean_D) / self.scale)

    def nearest(self, latents_NH: Floats) -> Ints:
        residual = latents_NH
        codes: list[NDArray[np.int64]] = []
        for codebook in self.codebooks:
            codes.append(nearest_codes(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return np.stack(codes, axis=1).astype(np.int32)

    def lost_variance(self, embeddings_ND: NDArray[np.float32], codes_NL: Ints) -> float:
        latent = sum((book[codes_NL[:, k]] for k, book in enumerate(self.codebooks)), np.zeros(()))
        x = (embeddings_ND.astype(np.float64) - self.mean_D) / self.scale
        return float(((_mlp(self.decoder, np.asarray(latent)) - x) ** 2).mean())


def code_vectors(x: NDArray[np.float32], codes: Ints, num_codes: int) -> NDArray[np.float32]:
    """Every code's position in embedding space: per level, the mean residual of the items that have the code.

    [levels * num_codes, D], level-major; zeros for unused codes. With a random last level, the last codes mean little.
    """
    residual = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    levels = []
    for level in range(codes.shape[1]):
        sums = np.zeros((num_codes, x.shape[1]))
        np.add.at(sums, codes[:, level], residual)
        counts = np.bincount(codes[:, level], minlength=num_codes)
        vectors = sums / np.maximum(counts, 1)[:, None]
        residual = residual - vectors[codes[:, level]]
        levels.append(vectors)
    return np.concatenate(levels).astype(np.float32)


def fit(
    embeddings: NDArray[np.float32],
    config: QuantizerConfig,
    pairs: NDArray[np.integer] | None = None,
    on_progress: Progress | None = None,
) -> FitResult:
    """Fits on float32 [N, D] and gives every row an ID. Equal inputs give the same bits on the same kind of machine.

    pairs: int [P, 2], rows of co-interacted items; only the contrastive loss of "rqvae" uses them. on_progress(epoch,
    epochs, metrics) is called after every epoch ("rqkmeans": after every level).
    Raises InvalidRequest for malformed input.
    """
    x = _checked(embeddings)
    if len(x) == 0:
        raise InvalidRequest("there are no item embeddings to fit a quantizer on")
    positives = _checked_pairs(pairs, len(x))
    report = on_progress if on_progress is not None else _ignore
    mean = x.astype(np.float64).mean(axis=0)
    # One scale for all dimensions: distances keep their meaning,
    # and losses do not depend on the embedding model's units.
    scale = float(np.sqrt(((x - mean) ** 2).mean())) or 1.0
    standard = ((x - mean) / scale).astype(np.float32)

    num_resets = 0
    if config.method == "rqvae":
        model, num_resets = train_rqvae(standard, config, positives, report)
        encoder, decoder = _weights(model.encoder), _weights(model.decoder)
        codebooks = [_float64(book) for book in model.codebook_list()]
    else:
        variance = float((standard.astype(np.float64) ** 2).sum()) or 1.0
        encoder, decoder = principal_components(standard, config.latent_dim)
        points = _mlp(encoder, standard.astype(np.float64))

        def on_level(done: int, residual: Floats) -> None:
            kept = float((points**2).sum() - (residual**2).sum())
            report(done, config.levels, {"reconstruction": 1.0 - kept / variance})

        codebooks = fit_residual_codebooks(points, config.levels, config.codes, config.epochs, config.seed, on_level)
    quantizer = _Quantizer(config, mean, scale, encoder, decoder, codebooks)

    latents = quantizer.latents(x)
    nearest = quantizer.nearest(latents)
    hashes = _row_hashes(x)
    codes, num_moved = nearest.copy(), 0
    if config.random_last_level:
        allocator = _Allocator(quantizer, taken=())
        # If a prefix has too many items, the closest ones keep it.
        for row in np.lexsort((np.arange(len(x)), _prefix_errors(quantizer, latents, nearest))):
            given = allocator.give(latents[row], hashes[row])
            if given is None:  # more items than IDs: the item keeps its nearest ID and collides
                continue
            codes[row] = given
            num_moved += int((codes[row, :-1] != nearest[row, :-1]).any())

    fitted = dataclasses.replace(
        quantizer, fitted_hashes=np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32), fitted_codes=codes
    )
    metrics = {
        "uniqueness": uniqueness(codes),
        "uniqueness_nearest": uniqueness(nearest),
        "reconstruction": quantizer.lost_variance(x, nearest),
        "reconstruction_assigned": quantizer.lost_variance(x, codes),
        "largest_bucket": float(max(Counter(map(tuple, nearest[:, :-1].tolist())).values())),
        "moved_items": float(num_moved),
        "colliding_items": float(round((1.0 - uniqueness(codes)) * len(codes))),
        "dead_code_resets": float(num_resets),
    }
    for level in range(config.levels):
        share = np.bincount(codes[:, level], minlength=config.codes) / len(codes)
        used = share[share > 0]
        metrics[f"usage_{level}"] = len(used) / config.codes
        metrics[f"perplexity_{level}"] = float(np.exp(-(used * np.log(used)).sum()))
    return FitResult(codes, _to_bytes(fitted), metrics, code_vectors(x, codes, config.codes))


def encode(
    artifact: bytes, embeddings: NDArray[np.float32], taken: NDArray[np.integer] | None = None, apart: bool = False
) -> Ints:
    """IDs of float32 [N, D] as int32 [N, L], from a fitted artifact.

    A row that was fitted gets its stored ID back (equal rows: in the order they were fitted). `taken` [M, L] are IDs of
    items that are not in this call: none of them is ever returned, so a stored ID that is taken is treated as that of
    another item with an equal embedding. New rows avoid taken IDs, the fitted items' IDs and each other, in row order,
    so several calls that pass on the assigned IDs equal one call. Without random_last_level they get the nearest last
    code still free. With `apart` every row gets the ID it would get in a call of its own, so several rows may get the
    same ID.
    Raises InvalidRequest if the artifact is damaged, the shapes do not fit, or no ID is free.
    """
    quantizer = _from_bytes(artifact)
    config = quantizer.config
    x = _checked(embeddings)
    if x.shape[1] != len(quantizer.mean_D):
        raise InvalidRequest(f"embeddings have {x.shape[1]} dims, the quantizer was fitted on {len(quantizer.mean_D)}")
    taken_ids = _checked_taken(taken, config)
    stored: dict[bytes, list[tuple[int, ...]]] = {}
    for hash_row, row_codes in zip(quantizer.fitted_hashes, quantizer.fitted_codes.tolist(), strict=True):
        if tuple(row_codes) not in taken_ids:
            stored.setdefault(hash_row.tobytes(), []).append(tuple(row_codes))
    for ids in stored.values():
        ids.reverse()  # pop() then gives them in the order they were fitted

    codes = np.zeros((len(x), config.levels), dtype=np.int32)
    new_rows: list[int] = []
    hashes = _row_hashes(x)
    for row, row_hash in enumerate(hashes):
        ids = stored.get(row_hash, [])
        if ids:
            codes[row] = ids[-1] if apart else ids.pop()
        else:
            new_rows.append(row)
    if new_rows:
        latents = quantizer.latents(x[new_rows])
        allocator = _Allocator(quantizer, taken=[*taken_ids, *map(tuple, quantizer.fitted_codes.tolist())])
        for row, latent in zip(new_rows, latents, strict=True):
            given = allocator.give(latent, hashes[row], keep=not apart)
            if given is None:
                capacity = config.codes**config.levels
                raise InvalidRequest(f"all {capacity} semantic IDs are taken; fit again with more codes or levels")
            codes[row] = given
    return codes


def uniqueness(codes_NL: NDArray[np.integer]) -> float:
    """Share of rows that no other row equals; 1 for no rows."""
    if len(codes_NL) == 0:
        return 1.0
    _, counts = np.unique(codes_NL, axis=0, return_counts=True)
    return float((counts == 1).sum() / len(codes_NL))


class _Allocator:
    """Assigns unused IDs. Levels before the last are nearest codes; instead of a full prefix its nearest sibling at the
    level before the last is taken, instead of a full parent the parent's nearest sibling, and so on: no search ever
    enters a full subtree.
    """

    def __init__(self, quantizer: _Quantizer, taken: Iterable[tuple[int, ...]]) -> None:
        self._quantizer = quantizer
        self._codes = quantizer.config.codes
        self._levels = quantizer.config.levels
        self._used: set[tuple[int, ...]] = set()
        self._used_below: Counter[tuple[int, ...]] = Counter()  # number of IDs assigned under every proper prefix
        for codes in taken:
            self._take(codes)

    def give(self, latent_H: Floats, row_hash: bytes, keep: bool = True) -> tuple[int, ...] | None:
        """An ID, marked as used if `keep`; None if every ID is used."""
        codes = None if self._full(()) else self._descend((), latent_H, row_hash)
        if codes is not None and keep:
            self._take(codes)
        return codes

    def _take(self, codes: tuple[int, ...]) -> None:
        if codes not in self._used:
            self._used.add(codes)
            self._used_below.update(codes[:level] for level in range(self._levels))

    def _full(self, prefix: tuple[int, ...]) -> bool:
        capacity: int = self._codes ** (self._levels - len(prefix))
        return self._used_below[prefix] >= capacity

    def _descend(self, prefix: tuple[int, ...], residual_H: Floats, row_hash: bytes) -> tuple[int, ...]:
        """Precondition: prefix is not full."""
        level = len(prefix)
        codebook = self._quantizer.codebooks[level]
        if level == self._levels - 1:
            free = [code for code in range(self._codes) if (*prefix, code) not in self._used]
            if self._quantizer.config.random_last_level:
                return (*prefix, free[_draw(self._quantizer.config.seed, row_hash, len(free))])
            return (*prefix, free[int(_distances(residual_H, codebook[free]).argmin())])
        distances = _distances(residual_H, codebook)
        code = int(distances.argmin())
        if self._full((*prefix, code)):
            code = next(int(c) for c in distances.argsort(kind="stable") if not self._full((*prefix, int(c))))
        return self._descend((*prefix, code), residual_H - codebook[code], row_hash)


def _distances(point_H: Floats, codebook_CH: Floats) -> Floats:
    """Distances as in nearest_codes: ||e||^2 - 2 r.e."""
    return np.asarray((codebook_CH**2).sum(axis=1) - 2.0 * (codebook_CH @ point_H))


def _draw(seed: int, row_hash: bytes, count: int) -> int:
    """Uniform in [0, count), a function of the seed and the embedding alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + row_hash).digest()[:8], "little") % count


def _prefix_errors(quantizer: _Quantizer, latents_NH: Floats, nearest_NL: Ints) -> Floats:
    """Squared distance of each item to the centre of its prefix (all levels but the last)."""
    residual = latents_NH
    for level in range(quantizer.config.levels - 1):
        residual = residual - quantizer.codebooks[level][nearest_NL[:, level]]
    return np.asarray((residual**2).sum(axis=1))


def _row_hashes(x_ND: NDArray[np.float32]) -> list[bytes]:
    rows = np.ascontiguousarray(x_ND, dtype="<f4")
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def _mlp(layers: Sequence[tuple[Floats, Floats]], x: Floats) -> Floats:
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if index < len(layers) - 1:
            x = np.maximum(x, 0.0)
    return x


def _float64(tensor: Any) -> Floats:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _weights(layers: Any) -> list[tuple[Floats, Floats]]:
    return [(_float64(layer.weight), _float64(layer.bias)) for layer in layers]


def _ignore(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
    return None


# ---------------------------------------------------------------- checks of what callers send


def _checked(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    x = np.asarray(embeddings, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] == 0:
        raise InvalidRequest(f"embeddings have shape {list(x.shape)}; expected [items, dims]")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad) > 0:
        raise InvalidRequest(f"embeddings of {len(bad)} items are not finite, the first in row {bad[0]}")
    return np.ascontiguousarray(x + np.float32(0))  # -0.0 becomes 0.0: equal rows have equal bytes


def _checked_pairs(pairs: NDArray[np.integer] | None, num_items: int) -> NDArray[np.int64] | None:
    if pairs is None or np.asarray(pairs).size == 0:
        return None
    array = np.asarray(pairs, dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InvalidRequest(f"positive pairs have shape {list(array.shape)}; expected [pairs, 2]")
    if array.min() < 0 or array.max() >= num_items:
        raise InvalidRequest(f"positive pairs name rows {array.min()}..{array.max()}; there are {num_items} items")
    return array


def _checked_taken(taken: NDArray[np.integer] | None, config: QuantizerConfig) -> set[tuple[int, ...]]:
    if taken is None or np.asarray(taken).size == 0:
        return set()
    array = np.asarray(taken)
    if array.ndim != 2 or array.shape[1] != config.levels:
        raise InvalidRequest(f"taken IDs have shape {list(array.shape)}; expected [items, {config.levels}]")
    if array.min() < 0 or array.max() >= config.codes:
        raise InvalidRequest(f"taken IDs have codes {array.min()}..{array.max()}; there are {config.codes} per level")
    return {tuple(row) for row in array.tolist()}


# ---------------------------------------------------------------- artifact


def _to_bytes(quantizer: _Quantizer) -> bytes:
    tensors: dict[str, NDArray[Any]] = {
        "mean": quantizer.mean_D,
        "scale": np.array([quantizer.scale]),
        "fitted_hashes": np.ascontiguousarray(quantizer.fitted_hashes),
        "fitted_codes": np.ascontiguousarray(quantizer.fitted_codes),
    }
    # Weights come from float32 training and go back to float64 exactly; k-means centres are kept as they are.
    dtype = np.float32 if quantizer.config.method == "rqvae" else np.float64
    for level, codebook in enumerate(quantizer.codebooks):
        tensors[f"codebook.{level}"] = codebook.astype(dtype)
    for name, layers in (("encoder", quantizer.encoder), ("decoder", quantizer.decoder)):
        for index, (weight, bias) in enumerate(layers):
            tensors[f"{name}.{index}.weight"] = weight.astype(dtype)
            tensors[f"{name}.{index}.bias"] = bias.astype(dtype)
    metadata = {
        "version": ARTIFACT_VERSION,
        "config": dataclasses.asdict(quantizer.config),
        "embedding_dim": len(quantizer.mean_D),
        "items": len(quantizer.fitted_codes),
    }
    packed = safetensors.numpy.save(tensors, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    return bytes(packed)


def _from_bytes(artifact: bytes) -> _Quantizer:
    try:
        tensors = safetensors.numpy.load(artifact)
        header_length = int.from_bytes(artifact[:8], "little")
        header = json.loads(artifact[8 : 8 + header_length])
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        if metadata["version"] != ARTIFACT_VERSION:
            raise InvalidRequest(f"it has version {metadata['version']}, this worker reads version {ARTIFACT_VERSION}")
        config = QuantizerConfig(**metadata["config"])
        return _Quantizer(
            config=config,
            mean_D=tensors["mean"].astype(np.float64),
            scale=float(tensors["scale"][0]),
            encoder=_layers(tensors, "encoder"),
            decoder=_layers(tensors, "decoder"),
            codebooks=[tensors[f"codebook.{level}"].astype(np.float64) for level in range(config.levels)],
            fitted_hashes=tensors["fitted_hashes"],
            fitted_codes=tensors["fitted_codes"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise InvalidRequest(f"this is not a usable quantizer artifact: {error}") from error


def _layers(tensors: dict[str, NDArray[Any]], name: str) -> list[tuple[Floats, Floats]]:
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in tensors)
    return [
        (tensors[f"{name}.{i}.weight"].astype(np.float64), tensors[f"{name}.{i}.bias"].astype(np.float64))
        for i in range(count)
    ]
