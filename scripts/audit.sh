#!/usr/bin/env bash
# Known vulnerabilities in the dependencies of both languages. Fails on one of level high or above. Says NOT CHECKED if
# it could not ask: no network, or a registry without such a report.
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

npm audit --json --fetch-retries=0 --fetch-timeout=20000 >"$work/npm.json" 2>/dev/null
node -e '
  const { readFileSync } = require("node:fs");
  let report;
  try { report = JSON.parse(readFileSync(process.argv[1], "utf8")); } catch { report = {}; }
  const counts = report.metadata?.vulnerabilities;
  if (!counts) { console.log("audit: Node packages NOT CHECKED: the registry gave no report"); process.exit(0); }
  const bad = Object.values(report.vulnerabilities ?? {}).filter((v) => ["high", "critical"].includes(v.severity));
  for (const v of bad) console.log(`audit: ${v.severity}: ${v.name} ${v.range}${v.fixAvailable ? "; a fix is available" : ""}`);
  console.log(`audit: Node packages: ${counts.high + counts.critical} high or critical, ${counts.total} in all`);
  process.exit(bad.length ? 1 : 0);
' "$work/npm.json" || failed=1

# In a separate environment: its dependencies must not mix with the worker's.
tool=.setup/pip-audit
if [ ! -x "$tool/bin/pip-audit" ]; then
  { .venv/bin/python -m venv "$tool" && "$tool/bin/pip" install --quiet --disable-pip-version-check pip-audit==2.10.1; } \
    >"$work/install.log" 2>&1 || rm -rf "$tool"
fi
if [ -x "$tool/bin/pip-audit" ]; then
  timeout 300 "$tool/bin/pip-audit" --progress-spinner off --disable-pip --no-deps --format json \
    -r python_worker/requirements.txt >"$work/pip.json" 2>"$work/pip.err"
  .venv/bin/python - "$work/pip.json" <<'PYTHON' || failed=1
import json, sys
try:
    with open(sys.argv[1]) as f:
        dependencies = json.load(f)["dependencies"]
except (OSError, ValueError, KeyError):
    print("audit: Python packages NOT CHECKED: the registry gave no report")
    sys.exit(0)
bad = [(d["name"], d["version"], v["id"]) for d in dependencies for v in d.get("vulns", [])]
for name, version, identifier in bad:
    print(f"audit: {name} {version}: {identifier}")
skipped = [d["name"] for d in dependencies if "skip_reason" in d]
if skipped:
    print(f"audit: {len(skipped)} of {len(dependencies)} Python packages NOT CHECKED: the registry does not know them")
if len(skipped) < len(dependencies):
    print(f"audit: Python packages: {len(bad)} known vulnerabilities")
sys.exit(1 if bad else 0)
PYTHON
else
  echo "audit: Python packages NOT CHECKED: pip-audit could not be installed"
fi
exit "$failed"
