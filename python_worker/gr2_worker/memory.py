"""Running out of memory, as an error that says what to lower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from gr2_worker.errors import ResourceExhausted


@contextlib.contextmanager
def memory_guard(knob: str) -> Iterator[None]:
    """Turns running out of memory into ResourceExhausted that names what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise ResourceExhausted(f"out of memory: lower {knob}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; PyTorch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
    return isinstance(error, RuntimeError | OSError) and any(w in str(error) for w in words)
