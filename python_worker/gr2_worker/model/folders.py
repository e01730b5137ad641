"""A folder that is written completely or not at all: next to its destination, flushed to disk, then renamed.

Replacing deletes what was there; a marker file says which folders are ours to replace.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from gr2_worker.errors import FailedPrecondition, InvalidRequest


@contextlib.contextmanager
def replacing(folder: Path, marker: str, what: str) -> Iterator[Path]:
    """Yields an empty folder that replaces `folder` at the end of the block. `folder` must be absent, empty or contain
    `marker`; errors call such a folder `what`. Raises InvalidRequest, or FailedPrecondition if the disk fails.
    """
    _check_replaceable(folder, marker, what)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise FailedPrecondition(f"cannot write under {folder.parent}: {error.strerror}") from error
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private,
        for file in staging.iterdir():
            file.chmod(0o644)  # and safetensors its files
            _flush(file)
        _flush(staging)
        _replace(staging, folder)
    except OSError as error:
        raise FailedPrecondition(f"cannot write {folder}: {error.strerror or error}") from error
    except SafetensorError as error:  # its writer reports a full disk this way
        raise FailedPrecondition(f"cannot write {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(folder: Path, marker: str, what: str) -> None:
    if not folder.is_absolute():
        raise InvalidRequest(f"path must be absolute, got {str(folder)!r}")
    if folder.is_file():
        raise InvalidRequest(f"{folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise InvalidRequest(f"{folder} is not {what}; refusing to replace it")


def _sweep(folder: Path) -> None:
    """Removes the leftovers of an earlier save to this path whose process was killed."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if leftover.suffix in (".partial", ".old"):
            shutil.rmtree(leftover, ignore_errors=True)


def _reason(error: SafetensorError) -> str:
    """The system's message, from the writer's "... I/O error: No space left on device (os error 28)"."""
    number = re.search(r"os error (\d+)", str(error))
    return os.strerror(int(number[1])) if number else str(error)


def _replace(staging: Path, folder: Path) -> None:
    """Renames `staging` to `folder`; an old folder is moved aside first and restored if the rename fails."""
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
