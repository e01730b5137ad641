/**
 * Maps common re-rank APIs to our request: `query` is the user's history, `documents` are the candidates in the order
 * of the caller's ranker.
 *
 * A query is plain text, one item per line, oldest first; or JSON, `{"history": [...]}`, whose entries are item ids or
 * `{item_id?, text?}`. A document is a text, or `{text?, id?, item_id?, score?}`. Texts of documents are never parsed;
 * other values of `rank_fields` (numbers, lists, objects) become text.
 */
import { z } from "zod";
import { checkRequest, type FieldNames } from "../request/check.ts";
import { type CandidateReference, type ItemReference, Refusal, type RerankRequest } from "../request/types.ts";
import { parseJson } from "./body.ts";
import { isObject, parseBody, type ReadContext } from "./dialects/dialect.ts";
import { Problem } from "./problem.ts";

const id = z.union([z.string(), z.int().transform(String)]);

export const historyEntry = z.union([
  id.describe("The id of an item the model knows."),
  z.strictObject({ item_id: id.optional(), text: z.string().optional() }),
]);

const historyObject = z.strictObject({ history: z.array(historyEntry).describe("Oldest first.") });

export const query = z
  .union([z.string(), historyObject])
  .describe(
    "The user's history, oldest first: plain text, one item per line; or JSON, as a string or as an object: " +
      '{"history": [...]} of item ids and {item_id?, text?}.',
  );

const documentObject = z.looseObject({
  text: z.string().optional(),
  id: id.optional().describe("The caller's id; returned with the result."),
  item_id: id.optional().describe("The id of an item the model knows."),
  score: z.number().optional().describe("Score from the caller's ranker."),
});

export const document = z.union([z.string(), documentObject]);

/** Fields that the bodies of the common APIs share. */
export const sharedBody = z.object({
  model: z.string().nullish().describe("Accepted and ignored: the service has one model."),
  query,
  documents: z.array(document).describe("Candidates in the order of your ranker."),
});

/** These APIs' names for the parts of a request, for errors. */
export const sharedNames: FieldNames = { candidates: "documents", history: "query.history" };

/** Fields that every result of these APIs has. */
export const sharedResult = z.object({
  index: z.int().describe("Into the request's documents."),
  relevance_score: z.number().describe("Probability of being the first choice."),
  id: z.string().optional().describe("The document's id, if it came with one."),
});

export type Query = z.output<typeof query>;
export type Document = z.output<typeof document>;

export interface Generic {
  readonly query: Query;
  readonly documents: readonly Document[];
  /** 0 = all. */
  readonly topN: number;
  /** The side at which long texts are cut instead of refused; undefined if the caller does not allow it. */
  readonly cut?: "left" | "right" | undefined;
  /** Fields of a document that make up its text, in this order; default `text`. */
  readonly textFields?: readonly string[] | undefined;
}

/** A checked request; `numCut` texts lost an end. @throws Refusal */
export function toRequest(
  generic: Generic,
  context: ReadContext,
  names: FieldNames,
): { readonly request: RerankRequest; readonly numCut: number } {
  if (generic.textFields !== undefined) checkFields(generic.textFields, generic.documents);
  let numCut = 0;
  const limit = (text: string): string => {
    if (generic.cut === undefined) return text;
    const kept = cutText(text, context.model.limits.maxTextBytes, generic.cut);
    if (kept !== text) numCut++;
    return kept;
  };
  const request: RerankRequest = {
    history: readHistory(generic.query, context).map((item) => withText(item, limit)),
    candidates: generic.documents.map((d, position) => withText(readCandidate(d, position, generic.textFields), limit)),
    topN: Math.min(generic.topN, generic.documents.length),
    mode: context.mode,
    ...(context.onFallback ? { onFallback: context.onFallback } : {}),
    ...(context.candidateOrder ? { candidateOrder: context.candidateOrder } : {}),
    deadlineMs: context.deadlineMs,
  };
  checkRequest(request, context.model, names);
  return { request, numCut };
}

function readHistory(from: Query, context: ReadContext): ItemReference[] {
  const object = typeof from === "string" ? jsonHistory(from, context) : from;
  if (object !== undefined) return object.history.map(toItem);
  return (from as string).split(/\r?\n/).flatMap((line) => (line.trim() === "" ? [] : [{ text: line }]));
}

/** A query that is a JSON object with the key "history"; any other query is plain text. */
function jsonHistory(text: string, context: ReadContext): z.output<typeof historyObject> | undefined {
  if (!/^\s*\{/.test(text) || !text.includes('"history"')) return undefined;
  let value: unknown;
  try {
    value = parseJson(Buffer.from(text), context.json);
  } catch (e) {
    if (e instanceof Problem) return undefined;
    throw e;
  }
  return isObject(value) && "history" in value ? parseBody(historyObject, value) : undefined;
}

/** A history entry, as a reference. */
export function toItem(entry: z.output<typeof historyEntry>): ItemReference {
  if (typeof entry === "string") return { itemId: entry };
  return {
    ...(entry.item_id === undefined ? {} : { itemId: entry.item_id }),
    ...(entry.text === undefined ? {} : { text: entry.text }),
  };
}

/** Candidates without an id are identified by their positions. */
function readCandidate(
  from: Document,
  position: number,
  textFields: readonly string[] | undefined,
): CandidateReference {
  if (typeof from === "string") return { id: `#${position}`, text: from };
  const text =
    textFields === undefined
      ? from.text
      : textFields
          .map((f) => fieldText(from[f]))
          .filter((t) => t !== "")
          .join("\n");
  return {
    id: from.id ?? `#${position}`,
    ...(from.item_id === undefined ? {} : { itemId: from.item_id }),
    ...(text === undefined ? {} : { text }),
    ...(from.score === undefined ? {} : { score: from.score }),
  };
}

/** A field's value as text: lists separated by commas, objects as the texts of their values. */
function fieldText(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  return Object.values(value)
    .map(fieldText)
    .filter((t) => t !== "")
    .join(", ");
}

/** A field that no document has is a typo; without this check there would be nothing to rank by. */
function checkFields(fields: readonly string[], documents: readonly Document[]): void {
  const objects = documents.filter((d) => typeof d !== "string");
  fields.forEach((field, i) => {
    if (objects.length > 0 && !objects.some((d) => d[field] !== undefined))
      throw new Refusal("invalid", `rank_fields[${i}] names a field that no document has.`);
  });
}

/** The caller's id of a document, for the results; absent if none was given. */
export const callersId = (from: Document | undefined): { readonly id?: string } =>
  from === undefined || typeof from === "string" || from.id === undefined ? {} : { id: from.id };

/** The document's original text; "" if it has only an id. */
export const readText = (from: Document | undefined): string =>
  from === undefined ? "" : typeof from === "string" ? from : (from.text ?? "");

const withText = <T extends ItemReference>(item: T, change: (text: string) => string): T =>
  item.text === undefined ? item : { ...item, text: change(item.text) };

/** Cuts a text to a number of UTF-8 bytes, at character boundaries. */
function cutText(text: string, maxBytes: number, side: "left" | "right"): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return text;
  const isTail = (i: number): boolean => ((bytes[i] as number) & 0xc0) === 0x80;
  if (side === "right") {
    let end = maxBytes;
    while (end > 0 && isTail(end)) end--;
    return bytes.toString("utf8", 0, end);
  }
  let start = bytes.length - maxBytes;
  while (start < bytes.length && isTail(start)) start++;
  return bytes.toString("utf8", start);
}
