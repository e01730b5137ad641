#!/usr/bin/env bash
# Mutation tests: changes one operator, constant or statement at a time and checks whether a test notices.
# TypeScript (src/reward, src/rl, src/prompts) with Stryker, Python (scoring/losses.py) with mutmut. Their packages are in
# tests/mutation and .setup, not among the project's. Results in .setup/mutation/; docs/testing.md says how to read them.
#   scripts/mutation.sh [typescript|python]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD which=${1:-all}
case $which in all | typescript | python) ;; *) echo "mutation: no such part: $which (typescript, python)" >&2 && exit 2 ;; esac
export OMP_NUM_THREADS=1
mkdir -p .setup/mutation

if [ "$which" != python ]; then
  [ -d tests/mutation/node_modules ] ||
    npm ci --prefix tests/mutation --legacy-peer-deps --no-audit --no-fund --loglevel=error >/dev/null
  nice tests/mutation/node_modules/.bin/stryker run tests/mutation/stryker.config.json
fi

if [ "$which" != typescript ]; then
  tool=$root/.setup/mutmut python=$root/.venv/bin/python work=$root/.setup/mutation/python
  [ -d "$tool/mutmut" ] || "$python" -m pip install -qq --disable-pip-version-check --target "$tool" mutmut==3.8.1
  rm -rf "$work" && mkdir -p "$work/tests"
  cp -r python_worker/gr2_worker "$work/"
  cp tests/python/conftest.py tests/python/test_losses.py "$work/tests/"
  cp tests/mutation/mutmut.cfg "$work/setup.cfg"
  cd "$work"
  # The environment's own packages come first: the tool's folder has its own pytest.
  run() { "$python" -c "import sys; sys.path.append('$tool'); sys.argv[0] = 'mutmut'; from mutmut.__main__ import cli; cli()" "$@"; }
  run run --max-children 1 >mutmut.log 2>&1 || { tail -n 20 mutmut.log >&2 && exit 1; }
  run results
  run export-cicd-stats >/dev/null
  "$python" - <<'PYTHON'
import json

stats = json.load(open("mutants/mutmut-cicd-stats.json"))
print(f"losses.py: {stats['killed']} of {stats['total']} mutants killed, {100 * stats['killed'] / stats['total']:.1f} %")
PYTHON
fi
