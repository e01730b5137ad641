/**
 * Validates requests of all protocols. Owns every rule that does not depend on a protocol's syntax; messages name the
 * field and the limit and never repeat the caller's input.
 */
import { isBlank } from "./blanks.ts";
import { type ItemReference, Refusal, type RerankRequest, type ServedModel } from "./types.ts";

/** Ids longer than this many UTF-8 bytes are refused. */
const maxIdBytes = 256;

/** The protocol's field names, for messages. */
export interface FieldNames {
  readonly candidates: string;
  readonly history: string;
}

const ownNames: FieldNames = { candidates: "candidates", history: "history" };

/**
 * Throws Refusal "invalid" or "too_large" at the first violated rule. Texts are measured in UTF-8 bytes. Blank texts
 * are accepted unless all are blank: see blanks.ts.
 */
export function checkRequest(
  request: RerankRequest,
  model: Pick<ServedModel, "limits" | "modes">,
  names: FieldNames = ownNames,
): void {
  const { limits } = model;
  const { history, candidates } = request;
  if (!model.modes.includes(request.mode))
    throw new Refusal(
      "invalid",
      `This model does not answer in mode ${request.mode}; it supports ${model.modes.join(", ")}.`,
    );
  if (candidates.length === 0) throw new Refusal("invalid", `${names.candidates} is empty: there is nothing to rank.`);
  const maxCandidates = request.mode === "think" ? limits.maxThinkCandidates : limits.maxCandidates;
  if (candidates.length > maxCandidates)
    throw tooMany(names.candidates, candidates.length, maxCandidates, request.mode === "think" ? " in mode think" : "");
  if (history.length > limits.maxHistory) throw tooMany(names.history, history.length, limits.maxHistory);
  history.forEach((item, i) => {
    checkItem(item, `${names.history}[${i}]`, limits.maxTextBytes);
  });

  const seen = new Map<string, number>();
  let numScored = 0;
  candidates.forEach((candidate, position) => {
    const field = `${names.candidates}[${position}]`;
    if (candidate.id === "") throw new Refusal("invalid", `${field}.id is empty.`);
    checkBytes(candidate.id, `${field}.id`, maxIdBytes);
    checkItem(candidate, field, limits.maxTextBytes);
    const earlier = seen.get(candidate.id);
    if (earlier !== undefined)
      throw new Refusal("invalid", `${field}.id equals that of ${names.candidates}[${earlier}]; ids must be unique.`);
    seen.set(candidate.id, position);
    if (candidate.score === undefined) return;
    if (!Number.isFinite(candidate.score)) throw new Refusal("invalid", `${field}.score is not a finite number.`);
    numScored++;
  });
  if (candidates.every(isBlank))
    throw new Refusal("invalid", `The texts of all ${names.candidates} are blank, including ${names.candidates}[0].`);
  if (numScored !== 0 && numScored !== candidates.length)
    throw new Refusal(
      "invalid",
      `${numScored} of ${candidates.length} ${names.candidates} have a score; all must, or none.`,
    );

  if (!Number.isInteger(request.topN) || request.topN < 0)
    throw new Refusal("invalid", "top_n must be a whole number from 0 (all).");
  if (!Number.isFinite(request.deadlineMs) || request.deadlineMs < 0)
    throw new Refusal("invalid", "deadline_ms must be a number from 0 (the service's default).");
  if (request.deadlineMs > limits.maxDeadlineMs)
    throw new Refusal("too_large", `deadline_ms may be at most ${limits.maxDeadlineMs}.`);
}

/** Throws Refusal at the first rule that the items to register break. */
export function checkItems(
  items: readonly ItemReference[],
  { maxItems, maxTextBytes }: Pick<ServedModel["limits"], "maxItems" | "maxTextBytes">,
): void {
  if (items.length === 0) throw new Refusal("invalid", "items is empty: there is nothing to register.");
  if (items.length > maxItems) throw tooMany("items", items.length, maxItems);
  items.forEach((item, i) => {
    checkItem(item, `items[${i}]`, maxTextBytes);
    if (item.text === undefined || isBlank({ text: item.text }))
      throw new Refusal("invalid", `items[${i}].text is missing or blank: items are encoded from their text.`);
  });
}

function checkItem(
  item: { readonly itemId?: string; readonly text?: string },
  field: string,
  maxTextBytes: number,
): void {
  const { itemId, text } = item;
  if (itemId === undefined && text === undefined)
    throw new Refusal("invalid", `${field} has neither an item id nor a text.`);
  if (itemId === "") throw new Refusal("invalid", `${field}.item_id is empty.`);
  if (itemId !== undefined) checkBytes(itemId, `${field}.item_id`, maxIdBytes);
  if (text !== undefined) checkBytes(text, `${field}.text`, maxTextBytes);
}

function checkBytes(text: string, field: string, most: number): void {
  if (text.length * 3 <= most) return; // a UTF-16 unit is at most three bytes of UTF-8
  const bytes = Buffer.byteLength(text);
  if (bytes > most) throw new Refusal("too_large", `${field} has ${bytes} bytes; at most ${most} are allowed.`);
}

const tooMany = (field: string, n: number, most: number, where = ""): Refusal =>
  new Refusal("too_large", `${field} has ${n} entries; at most ${most} are allowed${where}.`);
