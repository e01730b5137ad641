"""Who may call a worker, which verbs it offers, and where on its disk it reads and writes.

A caller sends a shared secret as `authorization: Bearer TOKEN` with every call. On a unix socket or a loopback address
the secret is optional: only users of this machine can reach those. Beyond loopback a token and at least one root are
required.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gr2_worker.errors import InvalidRequest, PermissionDenied

MIN_TOKEN_LENGTH = 16
WORKER_PREFIX = "/gr2.v1.Worker/"
# The verbs that serving needs. None writes a file or changes a weight; LoadModel is limited further (service.py).
SERVING_VERBS = frozenset(
    [
        "GetInfo",
        "LoadModel",
        "UnloadModel",
        "LoadState",
        "Forward",
        "Sample",
        "BeamSearch",
        "Embed",
        "EncodeSemanticIds",
    ]
)


@dataclass(frozen=True)
class Access:
    """token "": anybody who can connect. roots (): any path. serving: only SERVING_VERBS, no training."""

    token: str = ""
    roots: tuple[Path, ...] = ()
    serving: bool = False

    def path(self, given: str) -> str:
        """The real path of `given`, symbolic links resolved. Raises PermissionDenied if it is in none of the roots."""
        if not self.roots:
            return given
        if not os.path.isabs(given):
            raise PermissionDenied(
                f"{given!r} is not an absolute path: this worker reads and writes only in its roots, "
                "so name a folder, not a model of a hub"
            )
        try:
            real = Path(os.path.realpath(given))
        except ValueError as error:  # a NUL byte
            raise InvalidRequest("a path contains a NUL character") from error
        if not any(real.is_relative_to(root) for root in self.roots):
            raise PermissionDenied(
                f"{given!r} is outside the folders that this worker may use; to add one, start it with --root"
            )
        return str(real)


def make_access(address: str, token_file: str, roots: list[str], serving: bool) -> Access:
    """Checks the options a worker is started with. Raises ValueError that says what to do."""
    token = read_token(token_file) if token_file else ""
    real = []
    for root in roots:
        folder = Path(os.path.realpath(root))
        if not folder.is_dir():
            raise ValueError(f"--root {root}: there is no such folder")
        if folder.parent == folder:
            raise ValueError(f"--root {root}: the whole disk would not confine requests; name a folder")
        real.append(folder)
    if not is_local(address):
        if not token:
            raise ValueError(
                f"listening on {address} without a token would let everybody run code here: make one "
                "(openssl rand -base64 32 > worker.token) and give it with --token-file, or listen on 127.0.0.1"
            )
        if not real:
            raise ValueError(
                f"listening on {address} needs at least one --root: the folders (runs, models) that callers may use"
            )
    return Access(token, tuple(real), serving)


def read_token(file: str) -> str:
    """The secret in a file. Raises ValueError if it cannot be read or is too short to be one."""
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {file} cannot be read: {error}") from error
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"--token-file {file}: a token has at least {MIN_TOKEN_LENGTH} printable ASCII characters and no spaces"
        )
    return token


def is_local(address: str) -> bool:
    """True for a unix socket and for loopback; False for anything that is not clearly one of the two."""
    if address.startswith("unix:"):
        return True
    host = address.rsplit(":", 1)[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gatekeeper(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the token, and of verbs this worker does not offer, before their request is read."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._expected = f"Bearer {access.token}".encode()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """See grpc.ServerInterceptor."""
        if self._access.token and not self._knows_token(details):
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "this worker requires its token (runtime.tokenFile)")
        verb = details.method.removeprefix(WORKER_PREFIX)
        if self._access.serving and verb != details.method and verb not in SERVING_VERBS:
            return _refusal(
                grpc.StatusCode.PERMISSION_DENIED, f"this worker was started for serving and does not offer {verb}"
            )
        return continuation(details)

    def _knows_token(self, details: Any) -> bool:
        given = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        shown = given[0].encode() if len(given) == 1 and isinstance(given[0], str) else b""
        return hmac.compare_digest(shown, self._expected)


def _refusal(code: grpc.StatusCode, message: str) -> Any:
    def refuse(_: Any, context: grpc.ServicerContext) -> None:
        context.abort(code, message)

    return grpc.unary_unary_rpc_method_handler(refuse)
