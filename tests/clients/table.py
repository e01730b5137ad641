"""The clients' results as the table of a document, and as a sum. Fails if a client failed or none passed.

A client that was skipped keeps the line that the document has of it.
Usage: table.py RESULTS DOCUMENT [--check]
"""

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- made by make test-clients: begin -->", "<!-- end -->"


def main(results: Path, document: Path, check: bool) -> int:
    outcomes = [json.loads(line) for line in results.read_text().splitlines()]
    text = document.read_text()
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    kept = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    lines = ["| client | package | speaks | |", "|---|---|---|---|"]
    for o in outcomes:
        line = f"| {o['name']} | `{o['package']}` {o['version']} | {o['speaks']} | {o['state']} |"
        lines.append(kept.get(o["name"], line) if o["state"] == "skipped" else line)
    made = "\n".join([before + BEGIN, *lines, END + after])
    for o in outcomes:
        if o["state"] != "passed":
            sys.stderr.write(f"clients: {o['state']}: {o['name']}: {o['fault']}\n")
    if check and made != text:
        sys.stderr.write(f"clients: the table of {document} is not what was found; make test-clients makes it\n")
    elif not check:
        document.write_text(made)
    count = {state: sum(o["state"] == state for o in outcomes) for state in ("passed", "failed", "skipped")}
    sys.stdout.write(f"clients: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped\n")
    return 1 if count["failed"] or (check and made != text) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), "--check" in sys.argv[3:]))
