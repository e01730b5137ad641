"""What the orchestrator's embedded runtime (pythonia) calls: start the server inside this process, answer with JSON.

    boot('{"address": "unix:/run/gr2.sock", "threads": 2, "device": "cpu", "parent_pid": 123}')
      -> '{"ok": true, "address": "unix:/run/gr2.sock", "pid": 456}'  or  '{"ok": false, "error": "..."}'

All keys are optional; the address defaults to 127.0.0.1:0. No exception escapes and nothing is written to stdout, which
belongs to the bridge. The process does not outlive its parent: on Linux the kernel kills it, elsewhere a watchdog does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

PR_SET_PDEATHSIG = 1
WATCHDOG_SECONDS = 1.0
DEFAULT_ADDRESS = "127.0.0.1:0"
KNOWN_KEYS = {"address", "threads", "device", "parent_pid"}

_lock = threading.Lock()
_server: Any = None


def boot(request_json: str) -> str:
    """Starts the server in background threads. A second call answers with the first one's address."""
    try:
        return json.dumps(_boot(json.loads(request_json)), allow_nan=False)
    except BaseException as error:  # the bridge cannot carry exceptions
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return json.dumps({"ok": False, "error": message})


def die_with_parent(parent_pid: int) -> None:
    """Ends this process by SIGKILL as soon as its parent is gone, even while torch computes."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise RuntimeError(f"the parent process {parent_pid} is gone")

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(WATCHDOG_SECONDS)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=watch, name="gr2-watchdog", daemon=True).start()


def _boot(request: Any) -> dict[str, Any]:
    global _server
    if not isinstance(request, dict) or not set(request) <= KNOWN_KEYS:
        raise ValueError(f"boot takes an object with the keys {', '.join(sorted(KNOWN_KEYS))}")
    with _lock:
        if _server is None:
            die_with_parent(int(request.get("parent_pid", os.getppid())))
            from gr2_worker.rpc.server import Server  # imports torch: seconds

            _server = Server(
                str(request.get("address", DEFAULT_ADDRESS)),
                str(request.get("device", "auto")),
                int(request.get("threads", 0)),
            )
            # Shutdown (the verb) ends the embedded process as well.
            threading.Thread(target=_leave_when_stopped, args=(_server,), name="gr2-stop", daemon=True).start()
        return {"ok": True, "address": _server.address, "pid": os.getpid()}


def _leave_when_stopped(server: Any) -> None:
    server.wait()
    os._exit(0)
