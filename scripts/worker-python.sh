#!/bin/sh
# The Python that pythonia starts: $GR2_PYTHON in its own session (a terminal's Ctrl-C reaches only the orchestrator,
# which then stops the worker cleanly), with all output going to $GR2_WORKER_LOG.
if command -v setsid >/dev/null 2>&1; then
  exec setsid "$GR2_PYTHON" "$@" </dev/null >>"$GR2_WORKER_LOG" 2>&1
fi
exec "$GR2_PYTHON" "$@" </dev/null >>"$GR2_WORKER_LOG" 2>&1
