/**
 * Reads slates from a file, one at a time, in file order; only the current slate is in memory. Two layouts, recognised
 * by the first record:
 *   wide   one slate per record: slate?, history? or user?, candidates, scores?
 *   long   one candidate per record, a slate's candidates in consecutive records: slate, item, score?, text?,
 *          history? or user?
 * Lists are lists; in CSV, JSON text. Owns the parsing of records; request/check decides what can be ranked.
 */
import { z } from "zod";
import { DataError } from "../../core/errors.ts";
import { sha256 } from "../../core/hash.ts";
import { detectFormat } from "../../data/adapters/fields.ts";
import { openDuck, sqlText } from "../../data/duck.ts";
import { delimitedRecords, type Found, jsonRecords, parseJson } from "../../data/records.ts";
import type { CandidateReference, ItemReference } from "../request/types.ts";

export interface InputSlate {
  /** From 1; for Parquet the row. In the long layout: the slate's first line. */
  readonly line: number;
  /** The id in the file, else the line. */
  readonly slate: string;
  readonly history: readonly ItemReference[];
  readonly candidates: readonly CandidateReference[];
}

/** A slate, or why it is invalid. */
export type ReadSlate = InputSlate | { readonly line: number; readonly slate: string; readonly fault: string };

export type Layout = "wide" | "long";

export interface SlateSource {
  readonly file: string;
  /** Columns with other names: {candidates: "shown"}. */
  readonly columns: Readonly<Record<string, string>>;
  /** A user's history in the run's data, oldest first; undefined for an unknown user. */
  readonly findHistory: (user: string) => readonly ItemReference[] | undefined;
}

export const columnNames = ["slate", "user", "history", "candidates", "scores", "item", "score", "text"] as const;

const id = z.union([z.string().min(1), z.number().transform(String)]);
/** Lists in CSV cells and Parquet text columns are JSON. */
const acceptList = <T extends z.ZodType>(entry: T) =>
  z.preprocess((value) => (typeof value === "string" ? parseList(value) : (value ?? undefined)), z.array(entry));
const optional = <T extends z.ZodType>(type: T) =>
  z.preprocess((v) => (v === null || v === "" ? undefined : v), type.optional());
const reference = z.object({ item_id: optional(id), text: optional(z.string()) });
const historyEntry = z.union([id.transform((itemId) => ({ itemId })), reference.transform(toReference)]);
const candidate = z.union([
  id.transform((itemId): CandidateReference => ({ id: itemId, itemId })),
  reference
    .extend({ id: optional(id), score: optional(z.coerce.number()) })
    .transform((c, context): CandidateReference => {
      const own = c.id ?? c.item_id;
      if (own === undefined) context.addIssue({ code: "custom", message: "has neither id nor item_id" });
      return { ...toReference(c), id: own ?? "", ...(c.score === undefined ? {} : { score: c.score }) };
    }),
]);
const whose = { slate: optional(id), user: optional(id), history: acceptList(historyEntry).optional() };
const wideRecord = z.object({
  ...whose,
  candidates: acceptList(candidate),
  scores: acceptList(z.coerce.number()).optional(),
});
const longRecord = z.object({
  ...whose,
  slate: id,
  item: id,
  score: optional(z.coerce.number()),
  text: optional(z.string()),
});

function toReference({ item_id, text }: { item_id?: string | undefined; text?: string | undefined }): ItemReference {
  return { ...(item_id === undefined ? {} : { itemId: item_id }), ...(text === undefined ? {} : { text }) };
}

function parseList(text: string): unknown {
  if (text.trim() === "") return undefined;
  try {
    return parseJson(text);
  } catch {
    return text; // zod reports that it is not a list
  }
}

type RawRecord = Readonly<Record<string, unknown>>;

/** Throws DataError if the file as a whole is unusable; a bad slate is yielded with its fault. */
export async function* readSlates(source: SlateSource): AsyncGenerator<ReadSlate> {
  const rename = new Map(Object.entries(source.columns).map(([field, column]) => [column, field]));
  const renamed = (record: RawRecord): RawRecord =>
    rename.size === 0
      ? record
      : Object.fromEntries(Object.entries(record).map(([column, value]) => [rename.get(column) ?? column, value]));
  let reader: LongReader | "wide" | undefined;
  for await (const found of readRecords(source.file)) {
    if ("fault" in found) {
      yield { line: found.line, slate: String(found.line), fault: found.fault };
      continue;
    }
    const record = renamed(found.value);
    reader ??= detectLayout(record, source.file, found.line) === "wide" ? "wide" : new LongReader(source);
    if (reader === "wide") yield readWide(record, found.line, source);
    else yield* reader.push(record, found.line);
  }
  if (reader === undefined) throw new DataError(`${source.file}: the file contains no slates`);
  if (reader !== "wide") yield* reader.end();
}

/** The layout of a file with this first record. */
function detectLayout(record: RawRecord, file: string, line: number): Layout {
  if ("candidates" in record) return "wide";
  if ("item" in record && "slate" in record) return "long";
  throw new DataError(
    `${file}:${line}: neither a column "candidates" nor columns "slate" and "item"; ` +
      `the columns are ${Object.keys(record).join(", ")}.`,
    { advice: "Rename the columns, or map them: --column candidates=shown." },
  );
}

/** The layout of a file, by its first record. */
export async function readLayout(source: SlateSource): Promise<Layout> {
  for await (const found of readRecords(source.file)) {
    if ("fault" in found) continue;
    const fields = new Set(Object.keys(found.value));
    for (const [field, column] of Object.entries(source.columns)) {
      if (!fields.delete(column))
        throw new DataError(`${source.file} has no column "${column}"; it has ${[...fields].join(", ")}.`);
      fields.add(field);
    }
    return detectLayout(Object.fromEntries([...fields].map((f) => [f, true])), source.file, found.line);
  }
  throw new DataError(`${source.file}: the file contains no slates`);
}

function readWide(raw: RawRecord, line: number, source: SlateSource): ReadSlate {
  const parsed = wideRecord.safeParse(raw);
  const slate = typeof raw.slate === "string" || typeof raw.slate === "number" ? String(raw.slate) : String(line);
  if (!parsed.success) return { line, slate, fault: describe(parsed.error) };
  const { candidates, scores, ...rest } = parsed.data;
  if (scores && scores.length !== candidates.length)
    return { line, slate, fault: `scores has ${scores.length} entries, candidates ${candidates.length}` };
  const history = findHistory(rest, source);
  if (typeof history === "string") return { line, slate, fault: history };
  return {
    line,
    slate,
    history,
    candidates: scores ? candidates.map((c, i) => ({ ...c, score: scores[i] ?? Number.NaN })) : candidates,
  };
}

function findHistory(
  { user, history }: { user?: string | undefined; history?: readonly ItemReference[] | undefined },
  source: SlateSource,
): readonly ItemReference[] | string {
  if (history !== undefined) return history;
  if (user === undefined) return [];
  return source.findHistory(user) ?? `the run's data has no user ${user}, and the slate has no history of its own`;
}

/** Collects the records of a long file into slates. */
class LongReader {
  private readonly source: SlateSource;
  private open:
    | {
        line: number;
        slate: string;
        history: readonly ItemReference[];
        candidates: CandidateReference[];
        fault?: string;
      }
    | undefined;
  /** 48-bit hashes of complete slates. */
  private readonly closed = new Set<number>();

  constructor(source: SlateSource) {
    this.source = source;
  }

  *push(raw: RawRecord, line: number): Generator<ReadSlate> {
    const parsed = longRecord.safeParse(raw);
    const slate = parsed.success ? parsed.data.slate : String(raw.slate ?? "");
    if (this.open?.slate !== slate) {
      yield* this.end();
      const again = !this.remember(slate);
      const history = parsed.success ? findHistory(parsed.data, this.source) : [];
      this.open = { line, slate, history: typeof history === "string" ? [] : history, candidates: [] };
      if (typeof history === "string") this.open.fault = history;
      if (again) this.open.fault = `slate ${slate} was already complete: the records of a slate must be consecutive`;
    }
    if (!parsed.success) {
      this.open.fault ??= `line ${line}: ${describe(parsed.error)}`;
      return;
    }
    const { item, score, text } = parsed.data;
    this.open.candidates.push({
      id: item,
      itemId: item,
      ...(text === undefined ? {} : { text }),
      ...(score === undefined ? {} : { score }),
    });
  }

  *end(): Generator<ReadSlate> {
    if (!this.open) return;
    const { fault, ...slate } = this.open;
    this.open = undefined;
    yield fault === undefined ? slate : { line: slate.line, slate: slate.slate, fault };
  }

  private remember(slate: string): boolean {
    const key = Number.parseInt(sha256(slate).slice(0, 12), 16);
    if (this.closed.has(key)) return false;
    this.closed.add(key);
    return true;
  }
}

function describe(error: z.ZodError): string {
  const [first] = error.issues;
  const where = first?.path.map((p) => (typeof p === "number" ? `[${p}]` : String(p))).join("") ?? "";
  return `${where || "the record"}: ${first?.message ?? "not as expected"}`;
}

async function* readRecords(file: string): AsyncGenerator<Found<RawRecord>> {
  const format = detectFormat(file);
  if (format === "parquet") yield* parquetRecords(file);
  else if (format === "jsonl") yield* jsonObjects(file);
  else yield* delimitedObjects(file, format === "tsv" ? "\t" : ",");
}

async function* jsonObjects(file: string): AsyncGenerator<Found<RawRecord>> {
  for await (const batch of jsonRecords(file))
    for (const found of batch) {
      if ("fault" in found) yield found;
      else if (typeof found.value === "object" && found.value !== null && !Array.isArray(found.value))
        yield { ...found, value: found.value as RawRecord };
      else yield { line: found.line, lines: found.lines, fault: "not a JSON object", text: "" };
    }
}

async function* delimitedObjects(file: string, delimiter: string): AsyncGenerator<Found<RawRecord>> {
  let names: readonly string[] | undefined;
  for await (const batch of delimitedRecords(file, { delimiter, quoted: true }, "auto"))
    for (const found of batch) {
      if ("fault" in found) {
        if (names === undefined)
          throw new DataError(`${file}:${found.line}: the header line cannot be read: ${found.fault}.`);
        yield found;
      } else if (names === undefined) names = found.value.map((name) => name.trim());
      else if (found.value.length !== names.length)
        yield {
          line: found.line,
          lines: found.lines,
          fault: `${found.value.length} cells, but the header has ${names.length}`,
          text: "",
        };
      else yield { ...found, value: Object.fromEntries(names.map((name, k) => [name, found.value[k]])) };
    }
}

const parquetMemoryMb = 256;

async function* parquetRecords(file: string): AsyncGenerator<Found<RawRecord>> {
  const duck = await openDuck({ memoryMb: parquetMemoryMb, threads: 1 });
  try {
    const result = await duck.connection
      .stream(`SELECT to_json(rows)::VARCHAR FROM read_parquet(${sqlText(file)}) AS rows`)
      .catch((cause: unknown) => {
        throw new DataError(
          `${file} cannot be read: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`,
          { cause },
        );
      });
    let line = 0;
    for (;;) {
      const chunk = await result.fetchChunk();
      if (chunk === null || chunk.rowCount === 0) return;
      const column = chunk.getColumnVector(0);
      for (let k = 0; k < chunk.rowCount; k++)
        yield { line: ++line, lines: 1, value: parseJson(String(column.getItem(k))) as RawRecord };
    }
  } finally {
    duck.close();
  }
}
