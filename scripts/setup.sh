#!/usr/bin/env bash
# Installs everything GR2 needs into this folder: node_modules/, .venv/, generated code. Needs Node >= 20.19, Python >= 3.11.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "setup: $1" >&2; exit 7; }

command -v node >/dev/null || fail "Node.js is missing; install Node 20.19 or newer."
node -e 'const [a,b]=process.versions.node.split(".").map(Number); process.exit(a>20||(a===20&&b>=19)?0:1)' ||
  fail "Node $(node --version) is too old; GR2 needs 20.19 or newer."
python=""
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
    "$candidate" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' 2>/dev/null && python="$candidate" && break
done
[ -n "$python" ] || fail "Python 3.11 or newer is missing; install it, or name it: PYTHON=/path/to/python3.11 make setup."

echo "setup: Node packages"
# `npm ci` installs exactly package-lock.json and never rewrites it, so that the checkout stays clean.
npm ci --no-audit --no-fund --loglevel=error >/dev/null ||
  fail "npm could not install what package-lock.json says. Out of step with package.json? See CONTRIBUTING.md, Dependencies."
if [ ! -x .venv/bin/python ]; then
  echo "setup: Python environment ($($python --version))"
  "$python" -m venv .venv || fail "$python cannot create a virtual environment; install its venv module."
fi
echo "setup: Python packages (torch is large: a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r python_worker/requirements.txt
bash scripts/proto.sh
mkdir -p .setup && touch .setup/done
echo "setup: done"
