#!/usr/bin/env bash
# Which lines the fast tests run: unit tests and the pipeline on a fake worker (TypeScript), every test of the worker (Python).
# Tests that start a real worker or service are left out: their processes would not be counted. Reports in coverage/.
#   scripts/coverage.sh [typescript|python]
set -euo pipefail
cd "$(dirname "$0")/.."
which=${1:-all}
case $which in all | typescript | python) ;; *) echo "coverage: no such part: $which (typescript, python)" >&2 && exit 2 ;; esac

if [ "$which" != python ]; then
  # coverage makes tests slower: allow each more time
  npx --no-install vitest run tests/unit fake.test.ts --coverage --reporter=dot --testTimeout=120000
fi
if [ "$which" != typescript ]; then
  [ -d data/minilm-l6-v2 ] && export GR2_TEST_EMBED_MODEL="$PWD/data/minilm-l6-v2"
  COVERAGE_FILE=coverage/python.data PYTHONPATH=python_worker .venv/bin/python -m pytest -q -p no:cacheprovider tests/python \
    --cov=gr2_worker --cov-branch --cov-config=python_worker/pyproject.toml \
    --cov-report=term:skip-covered --cov-report=html:coverage/python
fi
