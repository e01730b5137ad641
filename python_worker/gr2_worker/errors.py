"""The faults a verb may report. Each maps to one gRPC status code (rpc/service.py);
each message is one sentence for people.
"""

from __future__ import annotations


class WorkerFault(Exception):
    """Base of all expected faults."""


class InvalidRequest(WorkerFault):
    """The request is malformed or contradicts itself: do not retry."""


class PermissionDenied(WorkerFault):
    """The options that the worker was started with do not allow this: do not retry."""


class NotFound(WorkerFault):
    """A model or path does not exist."""


class FailedPrecondition(WorkerFault):
    """The worker's state does not allow the verb: no model loaded, vocabulary mismatch, diverged weights."""


class ResourceExhausted(WorkerFault):
    """Out of memory: the message names what to lower."""


class Unavailable(WorkerFault):
    """The worker is shutting down: retry elsewhere or later."""


class Cancelled(WorkerFault):
    """The caller went away or its deadline passed."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, for a one-sentence message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
