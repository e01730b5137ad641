"""Truncated singular value decomposition of a sparse square matrix (scipy), with deterministic signs."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from gr2_worker.errors import InvalidRequest


def factorize(
    size: int,
    rows: npt.NDArray[np.int32],
    cols: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    dims: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    """U sqrt(S) of the `dims` largest singular values, [size, dims], strongest first. Repeated entries add up."""
    if not 0 < dims < size:
        raise InvalidRequest(f"dims must be between 1 and size - 1 = {size - 1}, got {dims}")
    if not len(rows) == len(cols) == len(values):
        raise InvalidRequest(f"rows, cols and values differ in length: {len(rows)}, {len(cols)}, {len(values)}")
    if len(rows) and not (min(rows.min(), cols.min()) >= 0 and max(rows.max(), cols.max()) < size):
        raise InvalidRequest(f"an entry is outside the {size} x {size} matrix")
    matrix = csr_matrix((values.astype(np.float64), (rows, cols)), shape=(size, size))
    start = np.random.default_rng(seed).standard_normal(size)
    left, singular, _ = svds(matrix, k=dims, v0=start)
    order = np.argsort(-singular, kind="stable")
    factors = left[:, order] * np.sqrt(np.maximum(singular[order], 0.0))
    # A singular vector's sign is arbitrary: its largest entry is made positive.
    signs = np.sign(factors[np.abs(factors).argmax(axis=0), np.arange(dims)])
    return np.asarray(factors * np.where(signs == 0, 1.0, signs), dtype=np.float32)
