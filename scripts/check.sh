#!/usr/bin/env bash
# Every check of both languages that needs no test run. All parts run; the last line names those that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

# part NAME COMMAND...: one line if it passes, its output if it does not
part() {
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$log" 2>&1; then
    echo "check: $name: ok ($((SECONDS - start)) s)"
  else
    cat "$log"
    echo "check: $name: FAILED"
    failed+=("$name")
  fi
}

python=(python_worker tests/python bench)
settings=python_worker/pyproject.toml
released=$(ls proto/released/*.binpb | sort -V | tail -n 1)

part "biome (lint, format)" npx --no-install biome check .
part "tsc (types)" npx --no-install tsc -p .
part "buf lint (protos)" npx --no-install buf lint proto
part "buf breaking (protos against ${released#proto/released/})" npx --no-install buf breaking proto --against "$released"
part "ruff (lint)" .venv/bin/ruff check --config "$settings" "${python[@]}"
part "ruff (format)" .venv/bin/ruff format --check --config "$settings" "${python[@]}"
part "mypy (types)" .venv/bin/mypy --config-file "$settings" python_worker/gr2_worker
# Prints what it could not check, so its output is shown even when it finds nothing.
bash scripts/audit.sh || failed+=("audit (known vulnerabilities)")

if [ ${#failed[@]} -gt 0 ]; then
  printf 'check: FAILED: %s\n' "$(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
  exit 1
fi
echo "check: everything that could be checked passed"
