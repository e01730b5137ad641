"""Facts about this Python for `gr2 doctor`: versions, device, memory. Called through pythonia; judges nothing.

report('{"packages": ["torch", "numpy"]}')  ->  '{"ok": true, "python": "3.11.7", ...}'  or  '{"ok": false, ...}'
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any


def report(request_json: str) -> str:
    """Never raises: the bridge cannot carry exceptions."""
    try:
        return json.dumps({"ok": True, **_report(json.loads(request_json))}, allow_nan=False)
    except BaseException as error:
        return json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"})


def _report(request: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in request["packages"]},
    }
    try:
        import psutil

        memory = psutil.virtual_memory()
        facts |= {"memory_total": memory.total, "memory_available": memory.available, "cores": psutil.cpu_count()}
    except ImportError:
        pass
    try:
        import torch

        facts |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "sum": float(torch.ones(8).sum())}
        facts["cuda_build"] = torch.version.cuda
        facts["devices"] = [
            {"name": torch.cuda.get_device_name(i), "memory": torch.cuda.get_device_properties(i).total_memory}
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ]
    except Exception as error:  # a broken build raises OSError, RuntimeError, ImportError, ...
        facts["torch_error"] = f"{type(error).__name__}: {error}"
    try:
        import lightgbm  # noqa: F401
    except Exception as error:  # without the system's OpenMP library: OSError
        facts["lightgbm_error"] = f"{type(error).__name__}: {error}"
    return facts


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
