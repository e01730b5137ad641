/**
 * Files with a Python literal a line (`{u'user': u'x', 'early': False}`), as the UCSD data sets have them: told from JSON
 * lines by their first line, and handed to whoever reads JSON lines as a copy with the same lines.
 */
import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type BadRow, Quarantine, readStart, streamLines } from "../duck.ts";
import { parsePythonLiteral } from "./python-literal.ts";

/** Whether the first line is a Python literal and not JSON. */
export function isPythonLines(file: string): boolean {
  const first =
    readStart(file)
      .split(/\r?\n/)
      .find((l) => l.trim() !== "") ?? "";
  if (!/^\s*\{/.test(first)) return false;
  try {
    JSON.parse(first);
    return false;
  } catch {
    return /^\s*\{\s*u?'/.test(first) || parses(first);
  }
}

const parses = (text: string): boolean => {
  try {
    parsePythonLiteral(text);
    return true;
  } catch {
    return false;
  }
};

/**
 * Runs `read` on a copy of `file` as JSON lines, line by line the same; what is malformed stays as it is and is malformed
 * there too. The quarantine names the original.
 */
export async function asJsonLines<T>(
  file: string,
  quarantine: Quarantine,
  read: (copy: string, quarantine: Quarantine) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "gr2-python-lines-"));
  const copy = join(folder, `${basename(file).replace(/(\.gz)?$/, "")}l`);
  try {
    await pipeline(Readable.from(jsonLines(file)), createWriteStream(copy));
    return await read(copy, new Renamed(quarantine, copy, file));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function* jsonLines(file: string): AsyncGenerator<string> {
  let next = 1;
  for await (const { line, text } of streamLines(file)) {
    yield "\n".repeat(line - next); // blank lines keep the numbers right
    next = line + 1;
    let json = text;
    try {
      json = JSON.stringify(parsePythonLiteral(text));
    } catch {
      // malformed; the reader counts it
    }
    yield `${json}\n`;
  }
}

/** Writes to another quarantine under another file name. */
class Renamed extends Quarantine {
  private readonly to: Quarantine;
  private readonly name: (file: string) => string;

  constructor(to: Quarantine, copy: string, original: string) {
    super();
    this.to = to;
    this.name = (file) => (file === copy ? original : file);
  }

  override saw(file: string, rows: number): void {
    this.to.saw(this.name(file), rows);
  }

  override addMany(file: string, count: number, rows: readonly BadRow[]): void {
    this.to.addMany(
      this.name(file),
      count,
      rows.map((r) => ({ ...r, file: this.name(r.file) })),
    );
  }
}
