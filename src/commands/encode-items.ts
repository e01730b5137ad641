/**
 * IDs for new items: read, neutralised, embedded and encoded as the run's own items were, without changing any existing
 * ID. IDs already in OUT stay as they are, so one file can grow with the catalogue.
 *
 * A new item has no co-occurrence: with sid.collaborativeDims that part of its embedding is zero, as for the run's
 * items without evidence. Its ID then reflects only its text and says less about users than those of the run's items.
 */
import { existsSync } from "node:fs";
import { adapterOptions } from "../artifacts/dataset.ts";
import { embeddingFile } from "../artifacts/embeddings.ts";
import { readLines, readMatrix, writeLines } from "../artifacts/files.ts";
import type { EncodedItem } from "../artifacts/semantic-ids.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { CheckpointError, DataError, WorkerError } from "../core/errors.ts";
import type { ItemColumns } from "../data/adapters/items.ts";
import { readLaterItems } from "../data/adapters/later-items.ts";
import type { RawItem } from "../data/adapters/readers.ts";
import { loadDataset } from "../data/cache.ts";
import { openDuck, Quarantine } from "../data/duck.ts";
import { embedTexts, itemText } from "../models/embedder.ts";
import { checkEmbedder, type ItemEncoder, openItemEncoder, toCodes, withoutEvidence } from "../models/item-encoder.ts";
import type { RunFolder } from "../run/run-folder.ts";
import type { Catalogue } from "../sid/catalogue.ts";
import type { TokenizerIdentity } from "../sid/identity.ts";
import { nearestRows } from "../sid/nearest.ts";
import { neutralise } from "../sid/sanitise.ts";
import { type Codes, formatSid, parseSid } from "../sid/semantic-id.ts";
import type { IntMatrix, Matrix, WorkerClient } from "../worker/types.ts";

export interface EncodeOptions {
  readonly run: RunFolder;
  /** In the layout of the run's own item file; or CSV, TSV, JSON (each may be compressed) or Parquet. */
  readonly items: string;
  /** Column names; left out: those of the run's items, or item_id, title, brand, categories, description. */
  readonly columns: Partial<ItemColumns>;
  readonly out: string;
  /** Started only if there is something to encode. */
  readonly worker: (config: Config) => Promise<WorkerClient>;
  readonly log: (message: string) => void;
  readonly signal: AbortSignal;
}

export interface EncodeSummary {
  /** Items that had an ID in the run. */
  readonly known: number;
  /** Items already in OUT. */
  readonly earlier: number;
  readonly added: number;
}

const maxNearest = 3;

export async function encodeItems(options: EncodeOptions): Promise<EncodeSummary> {
  const { run, out } = options;
  const config = loadConfig(run.file("config.resolved.yaml"), []);
  const tokenizer = openItemEncoder(run);
  const { catalogue, identity } = tokenizer;
  const { items } = await loadDataset(run.file("stages", "data"));
  const rowById = new Map<string, number>(items.map((item, row) => [item.id, row]));
  const earlier = existsSync(out) ? readLines<EncodedItem>(out) : [];
  checkEarlier(out, earlier, identity, catalogue, rowById);

  const asked = await readItems(options, config);
  const known = new Set(earlier.map((e) => e.item_id));
  const fresh = asked.filter((item) => !known.has(item.id));
  const unknown = fresh.filter((item) => !rowById.has(item.id));
  const given = await encodeUnknown(options, config, tokenizer, unknown, earlier);

  const points = readMatrix(embeddingFile(run.file("stages", "embed")));
  const rows = fresh.map((item) => rowById.get(item.id));
  const queries = new Float32Array(fresh.length * points.cols);
  let next = 0;
  const ids = rows.map((row, i): Codes => {
    const [from, at] = row === undefined ? [given.text, next] : [points, row];
    queries.set(from.data.subarray(at * points.cols, (at + 1) * points.cols), i * points.cols);
    return row === undefined ? (given.codes[next++] as Codes) : catalogue.codesAt(row);
  });
  const near = nearestRows(points, { rows: fresh.length, cols: points.cols, data: queries }, maxNearest, rows);
  const added = fresh.map((item, i): EncodedItem => {
    const codes = ids[i] as Codes;
    return {
      item_id: item.id,
      codes,
      sid: formatSid(codes, catalogue.shape.format),
      known: rows[i] !== undefined,
      nearest: (near[i] ?? []).map((n) => ({
        item_id: String(items[n.row]?.id),
        title: items[n.row]?.title ?? "",
        sid: catalogue.textAt(n.row),
        similarity: Math.round(1e4 * n.similarity) / 1e4,
      })),
      tokenizer: identity.hash,
    };
  });
  if (added.length > 0) writeLines(out, [...earlier, ...added]);
  return { known: fresh.length - unknown.length, earlier: asked.length - fresh.length, added: unknown.length };
}

/** Text embeddings and codes of items without an ID. Starts the worker only if there are any. */
async function encodeUnknown(
  options: EncodeOptions,
  config: Config,
  { catalogue, artifact, identity }: ItemEncoder,
  unknown: readonly RawItem[],
  earlier: readonly EncodedItem[],
): Promise<{ text: Matrix; codes: readonly Codes[] }> {
  const { signal, log } = options;
  if (unknown.length === 0) return { text: { rows: 0, cols: 0, data: new Float32Array() }, codes: [] };
  const worker = await options.worker(config);
  const modelPath = await checkEmbedder(config, identity, log, signal);
  // One text at a time: padding to a batch would change the last bits, and an ID must not depend on the rest of the
  // file.
  const texts = unknown.map((item) => itemText(item, config.embed.fields));
  const text = await embedTexts(worker, modelPath, texts, 1, { signal });
  const taken = toIntMatrix([...catalogue.allCodes(), ...earlier.map((e) => e.codes)], catalogue.shape.levels);
  const embeddings = withoutEvidence(text, config.sid.collaborativeDims);
  const codes = toCodes(await worker.encodeSemanticIds({ artifact, embeddings, taken }, { signal }));
  const used = new Set(toCodes(taken).map((c) => c.join()));
  for (const id of codes) {
    if (used.has(id.join()))
      throw new WorkerError(`the worker assigned the semantic ID [${id.join(", ")}] twice`, { retryable: false });
    used.add(id.join());
  }
  return { text, codes };
}

/** Throws unless this tokenizer could have assigned every ID in OUT. */
function checkEarlier(
  out: string,
  earlier: readonly EncodedItem[],
  identity: TokenizerIdentity,
  catalogue: Catalogue,
  rowById: ReadonlyMap<string, number>,
): void {
  const advice = "Write to another --out, or restore the file.";
  const seen = new Set<string>();
  earlier.forEach((e, i) => {
    if (e.tokenizer !== identity.hash)
      throw new CheckpointError(
        `${out}:${i + 1}: assigned by tokenizer ${e.tokenizer ?? "(not recorded)"}, this run's is ${identity.hash}`,
        { advice },
      );
    const row = rowById.get(e.item_id);
    const codes = parseSid(e.sid, catalogue.shape);
    const fits = codes !== undefined && Array.isArray(e.codes) && codes.join() === e.codes.join();
    const own = fits && (row === undefined ? catalogue.findRows(codes).length === 0 : e.sid === catalogue.textAt(row));
    if (!own || seen.has(e.item_id) || (row === undefined && seen.has(e.sid)))
      throw new CheckpointError(`${out}:${i + 1}: item ${e.item_id} has an ID that is not its own`, { advice });
    seen.add(e.item_id).add(e.sid);
  });
}

/** The items of the file in order, neutralised; of duplicates only the first. */
async function readItems({ items: file, columns, log }: EncodeOptions, config: Config): Promise<RawItem[]> {
  const duck = await openDuck();
  const quarantine = new Quarantine();
  const found = new Map<string, RawItem>();
  try {
    const later = await readLaterItems(duck, file, adapterOptions(config.data), columns, quarantine);
    for (const note of later.notes) log(note);
    for await (const item of later.items) {
      if (found.has(item.id)) continue;
      const plain = (text: string): string => neutralise(text, []);
      found.set(item.id, {
        id: item.id,
        title: plain(item.title),
        brand: plain(item.brand),
        categories: item.categories.map(plain).filter((c) => c !== ""),
        description: plain(item.description),
      });
    }
    quarantine.settle(config.data.maxBadShare, undefined);
  } finally {
    duck.close();
  }
  if (quarantine.count() > 0) log(`left out: ${quarantine.count()} malformed rows of ${file}`);
  if (found.size === 0) throw new DataError(`${file}: contains no items`);
  return [...found.values()];
}

const toIntMatrix = (ids: readonly Codes[], levels: number): IntMatrix => ({
  rows: ids.length,
  cols: levels,
  data: Int32Array.from(ids.flat()),
});
