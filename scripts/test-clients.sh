#!/usr/bin/env bash
# Installs third-party clients into a separate environment (.clients/), runs them against the service, and writes the
# table of docs/clients.md. A client that cannot be installed is reported as skipped. Fails if a client fails.
# Usage: test-clients.sh [--check]   --check: compares the table with the document instead of writing it
set -uo pipefail
cd "$(dirname "$0")/.."
suite=tests/clients
env=.clients
results=$env/results.jsonl
deadline=$((SECONDS + 300)) # for all installations together: a slow or unreachable registry must not hold up the rest
mkdir -p $env/node

note() { echo "clients: $1" >&2; }
within_deadline() {
  local left=$((deadline - SECONDS))
  [ $left -gt 0 ] && timeout $left "$@"
}
pip() { within_deadline $env/venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 "$@"; }

key=$(cat $suite/requirements.txt $suite/constraints.txt $suite/package.json | sha256sum | cut -d' ' -f1)
if [ "$(cat $env/key 2>/dev/null)" != "$key" ]; then
  note "installing (half a gigabyte in .clients/)"
  complete=yes
  [ -x $env/venv/bin/python ] || .venv/bin/python -m venv $env/venv
  cp $suite/package.json $env/node/
  (cd $env/node && within_deadline npm install --no-audit --no-fund --no-package-lock --loglevel=error >npm.log 2>&1) ||
    { complete=no; note "Node's clients cannot be installed (see $env/node/npm.log)"; }
  # Everything is pinned, so there is nothing to resolve.
  if ! pip --no-deps -r $suite/constraints.txt >$env/pip.log 2>&1; then
    note "not all of them can be installed together; one by one"
    complete=no
    for package in $(grep -v '^#' $suite/requirements.txt); do
      pip -c $suite/constraints.txt "$package" >>$env/pip.log 2>&1 ||
        note "$package cannot be installed (see $env/pip.log)"
    done
  fi
  [ $complete = yes ] && echo "$key" >$env/key
fi

coproc SERVICE { npx --no-install tsx $suite/serve.ts; }
trap '[ -n "${SERVICE_PID:-}" ] && kill "$SERVICE_PID" 2>/dev/null' EXIT
read -r -t 60 http grpc token <&"${SERVICE[0]}" || { note "the service did not start"; exit 1; }
: >$results
whole=yes
timeout 300 $env/venv/bin/python $suite/clients.py "$http" "$grpc" "$token" >>$results || whole=no
cp $suite/clients.mjs $env/node/
timeout 60 node $env/node/clients.mjs "$http" "$token" >>$results || whole=no
.venv/bin/python $suite/table.py $results docs/clients.md "$@" || whole=no
[ $whole = yes ]
