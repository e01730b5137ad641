/**
 * Items that callers have registered beforehand: a text for an id that the run does not know, encoded once. They belong
 * to the service, not to a run: they are stored in a file next to the runs, and a run with other semantic IDs encodes
 * the texts again. The file is append-only, which lets several processes share it; each reads what the others have
 * added.
 *
 *   {"item": {"id": ..., "text": ...}}                     a registration; the latest one of an id counts
 *   {"text": ..., "lineage": ..., "codes": [...]}          the semantic ID of a text from one item tokenizer
 *
 * The version is the number of registrations.
 */
import { appendFileSync, closeSync, fstatSync, openSync, readSync } from "node:fs";
import { z } from "zod";
import { EnvironmentError } from "../../core/errors.ts";
import type { Codes } from "../../sid/semantic-id.ts";

const line = z.union([
  z.strictObject({ item: z.strictObject({ id: z.string(), text: z.string() }) }),
  z.strictObject({ text: z.string(), lineage: z.string(), codes: z.array(z.int().nonnegative()) }),
]);

export class RegisteredItems {
  /** Text by id. */
  private readonly texts = new Map<string, string>();
  private readonly path: string;
  private readonly lineage: string;
  private readonly onCodes: (text: string, codes: Codes) => void;
  private readAt = 0;
  private numRegistered = 0;

  /**
   * @param path of the file; created by the first registration
   * @param lineage of the tokenizer whose codes count
   * @param onCodes receives codes found in the file
   * @throws EnvironmentError if the file cannot be read or is not such a file
   */
  constructor(path: string, lineage: string, onCodes: (text: string, codes: Codes) => void) {
    this.path = path;
    this.lineage = lineage;
    this.onCodes = onCodes;
    this.refresh();
  }

  get version(): number {
    return this.numRegistered;
  }

  get size(): number {
    return this.texts.size;
  }

  /** The text of an id, as far as the file was read. */
  find(id: string): string | undefined {
    return this.texts.get(id);
  }

  /** All texts, each once. */
  allTexts(): string[] {
    return [...new Set(this.texts.values())];
  }

  /** Stores items that are new or have a changed text. @returns how many @throws EnvironmentError */
  add(items: readonly { readonly id: string; readonly text: string }[]): number {
    this.refresh();
    const changed = items.filter(({ id, text }) => this.texts.get(id) !== text);
    this.append(changed.map(({ id, text }) => ({ item: { id, text } })));
    return changed.length;
  }

  /** Stores the codes of texts. @throws EnvironmentError */
  addCodes(found: readonly { readonly text: string; readonly codes: Codes }[]): void {
    this.append(found.map(({ text, codes }) => ({ text, lineage: this.lineage, codes: [...codes] })));
  }

  private append(lines: readonly z.output<typeof line>[]): void {
    if (lines.length === 0) return;
    try {
      appendFileSync(this.path, lines.map((l) => `${JSON.stringify(l)}\n`).join(""), { mode: 0o600 });
    } catch (cause) {
      throw new EnvironmentError(`${this.path} cannot be written: ${cause instanceof Error ? cause.message : cause}`, {
        cause,
        advice: "It stores registered items; make it writable, or name another file with serve.items.",
      });
    }
    this.refresh();
  }

  /** Reads what was appended since. An incomplete last line is read once it is complete. @throws EnvironmentError */
  refresh(): void {
    let file: number;
    try {
      file = openSync(this.path, "r");
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ENOENT") return;
      throw new EnvironmentError(`${this.path} cannot be read: ${cause instanceof Error ? cause.message : cause}`, {
        cause,
      });
    }
    try {
      const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - this.readAt));
      const numRead = readSync(file, bytes, 0, bytes.length, this.readAt);
      const end = bytes.subarray(0, numRead).lastIndexOf(10) + 1;
      const text = bytes.toString("utf8", 0, end);
      for (const entry of text.split("\n")) if (entry !== "") this.take(entry);
      this.readAt += end;
    } finally {
      closeSync(file);
    }
  }

  private take(entry: string): void {
    let parsed: z.output<typeof line>;
    try {
      parsed = line.parse(JSON.parse(entry));
    } catch (cause) {
      throw new EnvironmentError(`${this.path} contains a line that is not a registered item: ${entry.slice(0, 80)}`, {
        cause,
        advice: "Remove that line; only gr2 serve writes to this file.",
      });
    }
    if ("item" in parsed) {
      this.texts.set(parsed.item.id, parsed.item.text);
      this.numRegistered++;
    } else if (parsed.lineage === this.lineage) this.onCodes(parsed.text, parsed.codes);
  }
}
