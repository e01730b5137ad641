"""k-means on residuals: the gradient-free tokenizer (RQ-KMeans), and the initial codebooks of the RQ-VAE.

Shapes: N items, D dims, H latent dims, C codes, L levels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]
from sklearn.decomposition import PCA  # type: ignore[import-untyped, unused-ignore]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped, unused-ignore]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

Floats = NDArray[np.float64]
Layers = list[tuple[Floats, Floats]]  # weight [out, in] and bias [out] of linear layers

SPREAD = 1e-2  # spread of surplus codes around the points they copy, relative to the data's standard deviation


def principal_components(points_ND: NDArray[np.floating], latent_dim: int) -> tuple[Layers, Layers]:
    """Encoder and decoder of one linear layer each, onto the `latent_dim` directions of largest variance and back.

    In the few hundred dimensions of a text embedding all distances are similar and k-means finds little; the other
    directions are lost. ([], []) if there are no more dims than that, or if latent_dim is 0. Deterministic.
    """
    items, dims = points_ND.shape
    if not 0 < latent_dim < min(items, dims):
        return [], []
    # Identical items have no variance to explain.
    with threadpool_limits(limits=1), np.errstate(invalid="ignore"):
        pca = PCA(latent_dim, svd_solver="covariance_eigh").fit(points_ND.astype(np.float64))
    components_HD = np.asarray(pca.components_, dtype=np.float64)
    mean_D = np.asarray(pca.mean_, dtype=np.float64)
    return [(components_HD, -components_HD @ mean_D)], [(components_HD.T.copy(), mean_D)]


def kmeans_codebook(points_ND: NDArray[np.floating], codes: int, max_iterations: int, seed: int) -> Floats:
    """Centres of k-means++ / Lloyd, float64 [codes, D]; deterministic for a seed whatever the number of threads.

    With fewer distinct points than codes, every point gets its own centre and the surplus codes are scattered closely
    around points: they stay available, and are never nearer to a point than its own centre.
    """
    points = np.ascontiguousarray(points_ND, dtype=np.float64)
    distinct = np.unique(points, axis=0) if len(points) <= codes * 64 else points
    if len(distinct) <= codes:
        rng = np.random.default_rng(seed)
        copies = distinct[rng.integers(len(distinct), size=codes - len(distinct))]
        noise = rng.standard_normal(copies.shape) * (SPREAD * float(points.std()) + 1e-6)
        return np.concatenate([distinct, copies + noise])
    model = KMeans(
        codes, init="k-means++", n_init=1, max_iter=max_iterations, random_state=seed % 2**32, algorithm="lloyd"
    )
    # One thread: scikit-learn adds up partial centres in whatever order threads finish.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points.astype(np.float32))
    return np.asarray(model.cluster_centers_, dtype=np.float64)


def nearest_codes(points_ND: Floats, codebook_CD: Floats) -> NDArray[np.int64]:
    """argmin_j ||r - e_j||, ties to the lower index. float64, so that batch size and BLAS do not decide near-ties."""
    # ||r||^2 is the same for every code: left out.
    distances = (codebook_CD**2).sum(axis=1)[None, :] - 2.0 * (points_ND @ codebook_CD.T)
    return np.asarray(distances.argmin(axis=1), dtype=np.int64)


def fit_residual_codebooks(
    points_ND: NDArray[np.floating],
    levels: int,
    codes: int,
    max_iterations: int,
    seed: int,
    on_level: Callable[[int, Floats], None] | None = None,
) -> list[Floats]:
    """One codebook per level: k-means on the residuals of earlier levels.
    Each ends with on_level(levels done, residuals).
    """
    residual = np.ascontiguousarray(points_ND, dtype=np.float64)
    codebooks: list[Floats] = []
    for level in range(levels):
        codebook = kmeans_codebook(residual, codes, max_iterations, seed + level)
        residual = residual - codebook[nearest_codes(residual, codebook)]
        codebooks.append(codebook)
        if on_level is not None:
            on_level(level + 1, residual)
    return codebooks
