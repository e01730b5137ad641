/**
 * The re-ranking prompt and its answer. What is rendered here is what prompts/parse reads back.
 *
 * compact   <|history|> ids [<|candidates|> ids] <|think|>   reasoning <|answer|> ids <|end|>
 *           without visible reasoning the prompt ends with <|answer|> and the response is   ids <|end|>
 * json      instructions in words, and {"reasoning": "...", "ranking": ["<id>", ...]} as the answer (GR2 v1's
 *           principles: knowledge priming, items cited by semantic ID, everything shown at once, fixed steps, JSON out)
 */
import { type Encoder, item, marker, markers, type Piece, text } from "./pieces.ts";

export type Mode = "think" | "answer";

export interface PromptOptions {
  readonly format: "compact" | "json";
  readonly historyItems: number;
  readonly showCandidates: boolean;
  readonly showTitles: boolean;
  /** Tokens a title may take; 0 = any number. */
  readonly maxTitleTokens: number;
  readonly knowledgePriming: boolean;
}

/** What a prompt shows. Rows of items; titles only if `showTitles`. */
export interface PromptInput {
  /** Oldest first. */
  readonly history: ArrayLike<number>;
  /** In pre-rank order. */
  readonly candidates: readonly number[];
  readonly titleOf: (row: number) => string;
}

const knowledge =
  "Shoppers move along chains: one item calls for its complement, a started series for its next part, a used-up " +
  "item for its refill. Recent interest weighs more than old interest.";

const jsonOpen = '{"reasoning": "';
const jsonAnswer = '", "ranking": ["';
const jsonNoThought = '{"reasoning": "", "ranking": ["';
const jsonSeparator = '", "';
const jsonClose = '"]}';

const lastOf = (rows: ArrayLike<number>, n: number): number[] =>
  Array.prototype.slice.call(rows, Math.max(0, rows.length - n)) as number[];

/** The prompt up to where the model takes over. */
export function renderPrompt(input: PromptInput, mode: Mode, options: PromptOptions): Piece[] {
  const history = lastOf(input.history, options.historyItems);
  const listed = (rows: readonly number[]): Piece[] =>
    rows.flatMap((row) =>
      options.showTitles
        ? [item(row), text(` ${input.titleOf(row)}`, options.maxTitleTokens), text("\n")]
        : [item(row)],
    );
  if (options.format === "compact")
    return [
      marker("history"),
      ...listed(history),
      ...(options.showCandidates ? [marker("candidates"), ...listed(input.candidates)] : []),
      marker(mode === "think" ? "think" : "answer"),
    ];
  return [
    marker("history"),
    text(
      `You re-rank recommendations.${options.knowledgePriming ? ` ${knowledge}` : ""}\nThe user's history, oldest first:\n`,
    ),
    ...listed(history),
    text("\nThe candidates, in the order of the stage before:\n"),
    marker("candidates"),
    ...listed(input.candidates),
    text(
      '\nReason in three steps (pattern, complement, choice), citing items by ID. Answer in JSON: {"reasoning": string, "ranking": [all candidate IDs, best first]}.\n',
    ),
    marker("answer"),
    text(mode === "think" ? jsonOpen : jsonNoThought),
  ];
}

/** The items a rendered prompt shows, before and behind the candidates marker. */
export function itemsShown(pieces: readonly Piece[]): { history: number[]; candidates: number[] } {
  const at = pieces.findIndex((p) => p.kind === "marker" && p.token === markers.candidates);
  const rows = (part: readonly Piece[]): number[] => part.flatMap((p) => (p.kind === "item" ? [p.row] : []));
  return { history: rows(at < 0 ? pieces : pieces.slice(0, at)), candidates: at < 0 ? [] : rows(pieces.slice(at)) };
}

/** The evidence a trace states, by item row (GR2 v1's fixed steps: pattern -> complement -> choice). */
export interface Reasoning {
  /** Dominant categories of the recent history, strongest first. */
  readonly pattern: readonly string[];
  /** Which history items speak for the chosen candidate, strongest first. */
  readonly support: readonly number[];
  /** Latest history items said once more, oldest first, so that the answer stands right behind them; may be empty. */
  readonly recap: readonly number[];
  /** The chosen item; null leaves it to the ranking that follows. */
  readonly choice: number | null;
}

/** A visible thought, without what closes it. */
export function renderReasoning(reasoning: Reasoning): Piece[] {
  const pieces: Piece[] = [];
  if (reasoning.pattern.length) pieces.push(text(`pattern: ${reasoning.pattern.join(", ")}`));
  if (reasoning.support.length) pieces.push(text(" because:"), ...reasoning.support.map(item));
  if (reasoning.choice !== null) pieces.push(text(" choice:"), item(reasoning.choice));
  if (reasoning.recap.length) pieces.push(text(" after:"), ...reasoning.recap.map(item));
  return pieces;
}

export type Part = "reasoning" | "ranking";

/** A piece of a response with its role; `rank` = 0-based place in the answer of an item, for position weights. */
export interface ResponsePiece {
  readonly piece: Piece;
  readonly part: Part;
  readonly rank: number;
}

/** The full response: the thought (if any), then all candidates best first. */
export function renderResponse(
  reasoning: Reasoning | null,
  order: readonly number[],
  options: PromptOptions,
): ResponsePiece[] {
  const thought = reasoning ? renderReasoning(reasoning) : [];
  const compact = options.format === "compact";
  const open: Piece[] = reasoning ? [compact ? marker("answer") : text(jsonAnswer)] : [];
  const out: ResponsePiece[] = [...thought, ...open].map((piece) => ({ piece, part: "reasoning", rank: 0 }));
  order.forEach((row, rank) => {
    if (rank > 0 && !compact) out.push({ piece: text(jsonSeparator), part: "ranking", rank });
    out.push({ piece: item(row), part: "ranking", rank });
  });
  if (!compact) out.push({ piece: text(jsonClose), part: "ranking", rank: order.length });
  out.push({ piece: marker("end"), part: "ranking", rank: order.length });
  return out;
}

/** Token sequences that the decoding constraint is built from; see PermutationConstraint in worker.proto. */
export interface ConstraintTokens {
  /** What the model must write before the constraint takes over; empty: at once. */
  readonly trigger: readonly number[];
  readonly separator: readonly number[];
  readonly terminator: readonly number[];
}

export function constraintTokens(mode: Mode, options: PromptOptions, encoder: Encoder): ConstraintTokens {
  const compact = options.format === "compact";
  const end = encoder.marker("end");
  return {
    trigger: mode === "answer" ? [] : compact ? [encoder.marker("answer")] : encoder.encode([text(jsonAnswer)]),
    separator: compact ? [] : encoder.encode([text(jsonSeparator)]),
    terminator: compact ? [end] : [...encoder.encode([text(jsonClose)]), end],
  };
}
