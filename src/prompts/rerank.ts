/**
 * The re-ranking prompt and its answer. What is rendered here is what prompts/parse reads back.
 *
 * compact   <|history|> ids [<|candidates|> ids] <|think|>   reasoning <|answer|> ids <|end|>
 *           without visible reasoning the prompt ends with <|answer|> and the response is   ids <|end|>
 * json      instructions in words; the answer, whose beginning is given, is
 *           {"reasoning": "...", "ranking": ["<id>", ...]}.
 *           GR2 v1's five principles: knowledge priming, items cited by semantic ID, the whole history and all
 *           candidates at once, fixed steps (pattern -> complement -> choice), a structured answer
 *
 * Both are wrapped in the model's chat template if one is used (chat.ts).
 */
import { candidate, type Encoder, type ItemPiece, item, marker, type Piece, text, turn } from "./pieces.ts";

/**
 * How a language model orders candidates.
 *
 *   think    it writes its reasoning, then the order
 *   answer   it writes the order at once
 *   direct   it writes nothing: the order follows from the likelihood of every candidate
 */
export type Mode = "think" | "answer" | "direct";
/** The modes that generate text and so use the prompts of this file. */
export type PromptMode = Exclude<Mode, "direct">;

export interface PromptOptions {
  readonly format: "compact" | "json";
  readonly historyItems: number;
  readonly showCandidates: boolean;
  readonly showTitles: boolean;
  /** Most tokens of a title; 0 = any number. */
  readonly maxTitleTokens: number;
  readonly knowledgePriming: boolean;
}

/** What a prompt shows. Rows of items; titles only if `showTitles`. */
export interface PromptInput {
  /** Oldest first. */
  readonly history: ArrayLike<number>;
  /** In pre-rank order. */
  readonly candidates: readonly number[];
  readonly getTitle: (row: number) => string;
}

/** Knowledge priming (GR2 v1: KP): what a shopper knows before reading a history. */
export const knowledge =
  "Shoppers move along chains: one item calls for its complement, a started series for its next part, a used-up " +
  "item for its refill. Recent interest weighs more than old interest.";

/** The wording of the json format, shared by every model that is prompted in words. */
export const instructions = {
  task: "You re-rank recommendations for one user.",
  history: "The user's history, oldest first:",
  candidates: "The candidates, in the order of the stage before:",
  steps:
    "Reason in three steps. Pattern: what the history has in common. Complement: which candidates continue or complete " +
    "it, and why. Choice: the best candidate. Cite items by their ID.",
  answer:
    'Answer with JSON alone: {"reasoning": "pattern: ... complement: ... choice: ID", "ranking": [all candidate IDs, best first]}',
} as const;

/** The text of a json answer around reasoning and IDs. */
export const jsonParts = {
  open: '{"reasoning": "',
  answer: '", "ranking": ["',
  separator: '", "',
  close: '"]}',
} as const;
/** The beginning of a json answer, written by the prompt; the response continues it. */
export const jsonOpening: Readonly<Record<PromptMode, string>> = {
  think: jsonParts.open,
  answer: jsonParts.open + jsonParts.answer,
};

const takeLast = (rows: ArrayLike<number>, n: number): number[] =>
  Array.prototype.slice.call(rows, Math.max(0, rows.length - n)) as number[];

/** An item in a list, with its title if titles are shown. */
export const listing = (piece: ItemPiece, title: string, options: PromptOptions): Piece[] =>
  options.showTitles ? [piece, text(` ${title}`, options.maxTitleTokens), text("\n")] : [piece];

/** The prompt up to where the model takes over. */
export function renderPrompt(input: PromptInput, mode: PromptMode, options: PromptOptions): Piece[] {
  const listed = (items: readonly ItemPiece[]): Piece[] =>
    items.flatMap((piece) => listing(piece, input.getTitle(piece.row), options));
  const history = listed(takeLast(input.history, options.historyItems).map(item));
  const candidates = listed(input.candidates.map(candidate));
  if (options.format === "compact")
    return [
      turn("question"),
      marker("history"),
      ...history,
      ...(options.showCandidates ? [marker("candidates"), ...candidates] : []),
      turn("answer"),
      marker(mode === "think" ? "think" : "answer"),
    ];
  const end = options.showTitles ? "" : "\n"; // a title ends its line itself
  return [
    turn("question"),
    text(`${instructions.task}${options.knowledgePriming ? ` ${knowledge}` : ""}\n${instructions.history}\n`),
    ...history,
    text(`${end}${instructions.candidates}\n`),
    ...candidates,
    text(`${end}${instructions.steps}\n${instructions.answer}\n`),
    turn("answer"),
    text(jsonOpening[mode]),
  ];
}

/** The items a rendered prompt shows as history and as candidates. */
export function itemsShown(pieces: readonly Piece[]): { history: number[]; candidates: number[] } {
  const items = pieces.filter((p) => p.kind === "item");
  return {
    history: items.filter((p) => !p.candidate).map((p) => p.row),
    candidates: items.filter((p) => p.candidate).map((p) => p.row),
  };
}

/** The evidence a trace states, by item row (GR2 v1's fixed steps: pattern -> complement -> choice). */
export interface ReasoningSteps {
  /** Dominant categories of the recent history, strongest first. */
  readonly pattern: readonly string[];
  /** History items that support the chosen candidate, strongest first. */
  readonly support: readonly number[];
  /** Latest history items, repeated oldest first so that the answer directly follows them; may be empty. */
  readonly recap: readonly number[];
  /** The chosen item; null leaves it to the ranking that follows. */
  readonly choice: number | null;
}

/** Reasoning in a teacher's own words: text, and item rows where it cites items. Untrusted, like any text. */
export interface FreeReasoning {
  readonly words: readonly (string | number)[];
}

export type AnyReasoning = ReasoningSteps | FreeReasoning;

/** Visible reasoning, without its closing marker. In a json answer it is the content of a JSON string. */
export function renderReasoning(reasoning: AnyReasoning, format: PromptOptions["format"]): Piece[] {
  const written = format === "json" ? (s: string) => text(JSON.stringify(s).slice(1, -1)) : (s: string) => text(s);
  if ("words" in reasoning) return reasoning.words.map((w) => (typeof w === "string" ? written(w) : item(w)));
  const pieces: Piece[] = [];
  const names = format === "json" ? [" complement:", " choice:", " after:"] : [" because:", " choice:", " after:"];
  const [support, choice, recap] = names as [string, string, string];
  if (reasoning.pattern.length) pieces.push(written(`pattern: ${reasoning.pattern.join(", ")}`));
  if (reasoning.support.length) pieces.push(text(support), ...reasoning.support.map(item));
  if (reasoning.choice !== null) pieces.push(text(choice), item(reasoning.choice));
  if (reasoning.recap.length) pieces.push(text(recap), ...reasoning.recap.map(item));
  return pieces;
}

export type Part = "reasoning" | "ranking";

/** A piece of a response with its role; `rank` = an item's 0-based position in the answer, for position weights. */
export interface ResponsePiece {
  readonly piece: Piece;
  readonly part: Part;
  readonly rank: number;
}

/** The full response: the reasoning (if any), then all candidates best first. */
export function renderResponse(
  reasoning: AnyReasoning | null,
  order: readonly number[],
  options: PromptOptions,
): ResponsePiece[] {
  const rendered = reasoning ? renderReasoning(reasoning, options.format) : [];
  const compact = options.format === "compact";
  const open: Piece[] = reasoning ? [compact ? marker("answer") : text(jsonParts.answer)] : [];
  const out: ResponsePiece[] = [...rendered, ...open].map((piece) => ({ piece, part: "reasoning", rank: 0 }));
  order.forEach((row, rank) => {
    if (rank > 0 && !compact) out.push({ piece: text(jsonParts.separator), part: "ranking", rank });
    out.push({ piece: item(row), part: "ranking", rank });
  });
  if (!compact) out.push({ piece: text(jsonParts.close), part: "ranking", rank: order.length });
  out.push({ piece: turn("end"), part: "ranking", rank: order.length });
  return out;
}

/** Token sequences that the decoding constraint is built from; see PermutationConstraint in worker.proto. */
export interface ConstraintTokens {
  /** What the model must write before the constraint takes over; empty: at once. */
  readonly trigger: readonly number[];
  readonly separator: readonly number[];
  readonly terminator: readonly number[];
}

export function constraintTokens(mode: PromptMode, options: PromptOptions, encoder: Encoder): ConstraintTokens {
  const compact = options.format === "compact";
  const end = encoder.encode([turn("end")]);
  return {
    trigger: mode === "answer" ? [] : compact ? [encoder.marker("answer")] : encoder.encode([text(jsonParts.answer)]),
    separator: compact ? [] : encoder.encode([text(jsonParts.separator)]),
    terminator: compact ? end : [...encoder.encode([text(jsonParts.close)]), ...end],
  };
}

export const promptModes: readonly PromptMode[] = ["think", "answer"];
