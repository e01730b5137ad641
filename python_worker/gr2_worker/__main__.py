"""`python -m gr2_worker --address 127.0.0.1:50051`: a standalone worker, e.g. on a GPU machine."""

from __future__ import annotations

import argparse
import logging
import signal
import sys


def main() -> int:
    """Serves until SIGTERM, SIGINT or Shutdown. Exit code 0, or 1 if it could not start."""
    parser = argparse.ArgumentParser(prog="gr2_worker", description="GR2's tensor worker (gRPC).")
    parser.add_argument(
        "--address",
        default="127.0.0.1:50051",
        help="host:port (port 0 = any free one) or unix:/path; beyond loopback --token-file and --root are required "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--token-file", default="", help="file with the secret that callers must send (runtime.tokenFile)"
    )
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        help="a folder in which requests may read and write, subfolders included; may be repeated (default, only on "
        "loopback and unix sockets: any)",
    )
    parser.add_argument("--serving", action="store_true", help="only answer requests: no training, saving or exporting")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch (default: all cores)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--parent-pid", type=int, default=0, help="exit as soon as this process, the parent, has ended")
    arguments = parser.parse_args()
    if arguments.threads < 0:
        parser.error("--threads must be >= 0")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    from gr2_worker.boot import die_with_parent
    from gr2_worker.errors import WorkerFault
    from gr2_worker.rpc.access import is_local, make_access
    from gr2_worker.rpc.server import Server

    try:
        if arguments.parent_pid:
            die_with_parent(arguments.parent_pid)
        access = make_access(arguments.address, arguments.token_file, arguments.root, arguments.serving)
        server = Server(arguments.address, arguments.device, arguments.threads, access)
    except (OSError, RuntimeError, ValueError, WorkerFault) as error:
        print(f"gr2_worker: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    if not is_local(arguments.address):
        logging.getLogger("gr2_worker").warning(
            "%s: token, prompts and weights travel unencrypted; use a closed network or a tunnel", server.address
        )
    print(server.address, flush=True)
    server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
