#!/usr/bin/env bash
# Runs every test of both languages; the last line is the total, `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npx --no-install vitest run --reporter=default --reporter=json --outputFile.json="$work/vitest.json"
ts=$?
# The integration tests have fetched the embedding model; its Python tests use the same copy.
[ -d data/minilm-l6-v2 ] && export GR2_TEST_EMBED_MODEL="$PWD/data/minilm-l6-v2"
PYTHONPATH=python_worker .venv/bin/python -m pytest -q -p no:cacheprovider tests/python --junitxml="$work/pytest.xml"
py=$?

.venv/bin/python - "$work" "$ts" "$py" <<'PYTHON'
import json, os, sys, xml.etree.ElementTree as xml
from pathlib import Path
work, ts, py = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
passed = failed = skipped = 0
try:
    report = json.loads((work / "vitest.json").read_text())
    passed += report["numPassedTests"]
    skipped += report["numPendingTests"]
    failed += report["numFailedTests"]
    # a suite that could not be loaded has no tests to count, but is still a failure
    failed += sum(1 for s in report["testResults"] if s["status"] == "failed" and not s["assertionResults"])
except (OSError, ValueError, KeyError):
    failed += 1
try:
    for suite in xml.parse(work / "pytest.xml").getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        off = int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - off
        failed += bad
        skipped += off
except (OSError, xml.ParseError):
    failed += 1
clients = Path(os.environ.get("GR2_CLIENT_RESULTS", ""))
outcomes = [json.loads(line) for line in clients.read_text().splitlines()] if clients.is_file() else []
passed += sum(o["state"] == "passed" for o in outcomes)
failed += sum(o["state"] == "failed" for o in outcomes)
not_installed = [o["name"] for o in outcomes if o["state"] == "skipped"]
skipped += len(not_installed)
if (ts or py) and failed == 0:
    failed = 1
if not_installed:
    print(f"clients that cannot be installed here: {'; '.join(not_installed)}")
if skipped:
    print(f"{skipped} skipped: what they compare with is not installed here")
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or passed == 0 else 0)
PYTHON
