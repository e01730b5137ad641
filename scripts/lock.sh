#!/usr/bin/env bash
# Writes python_worker/requirements.txt: every package of a fresh environment made from requirements.in, pinned.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$(grep '^torch==' python_worker/requirements.in)"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r python_worker/requirements.in
{
  echo "# Made by \`make lock\` from requirements.in. Do not edit."
  "$work/venv/bin/pip" freeze | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'
} > python_worker/requirements.txt
