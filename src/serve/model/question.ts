/**
 * A request as the model is asked it, and the model's answer as an order of places. Renders with the run's own prompts and
 * prior, so that the service asks in exactly the way the run was trained and measured. Candidates with one and the same
 * semantic ID are one to the model: they share its score, in the caller's order.
 *
 *   direct   likelihood * log p(item | history) + prior, one forward pass (the run's `direct`, `sft_direct`, `rl_direct`)
 *   think    a thought, then a permutation under the constraint with the prior (the run's `sft`, `rl`), greedy
 */
import { sha256 } from "../../core/hash.ts";
import { softmax } from "../../eval/choice-model.ts";
import { orderBy, type Prior, priorOf } from "../../policy/prior.ts";
import { compressorOf } from "../../prompts/compress.ts";
import { type ChatFrame, Encoder, item } from "../../prompts/pieces.ts";
import { type ConstraintTokens, constraintTokens, renderPrompt } from "../../prompts/rerank.ts";
import { sequentialTask } from "../../prompts/tasks.ts";
import { tokensOfSid } from "../../sid/semantic-id.ts";
import type { Tokenizer } from "../../worker/tokenizer.ts";
import type { Completion, Group, PermutationConstraint } from "../../worker/types.ts";
import type { ServeMode } from "../request/types.ts";
import type { Found, FoundItems } from "./items.ts";
import { Lru } from "./lru.ts";
import type { ServedRun } from "./served-run.ts";

export interface Question {
  readonly mode: ServeMode;
  readonly prompt: readonly number[];
  /** Distinct spellings of the candidates, in the caller's order of their first. */
  readonly sequences: readonly (readonly number[])[];
  /** Per spelling: the places it stands for. */
  readonly places: readonly (readonly number[])[];
  /** Per spelling. */
  readonly prior: readonly number[];
  readonly topN: number;
  /** Items of the request by spelling of their codes, for naming them in a thought. */
  readonly titles: ReadonlyMap<string, string>;
  /** Equal keys have equal answers. */
  readonly key: string;
}

/** Best first, every candidate once. */
export interface Order {
  readonly ranking: readonly { readonly place: number; readonly score: number }[];
  /** Tokens of the thought, mode think. */
  readonly thought: readonly number[];
  /** Tokens written. */
  readonly generated: number;
}

export class Questions {
  private readonly run: Pick<ServedRun, "config" | "catalogue" | "systems" | "usual" | "evidence">;
  private readonly tokenizer: Pick<Tokenizer, "encode" | "requireTokenId" | "special">;
  private readonly chat: ChatFrame | undefined;
  private readonly texts = new Lru<string, number[]>(10_000);

  constructor(run: Questions["run"], tokenizer: Questions["tokenizer"], chat: ChatFrame | undefined) {
    this.run = run;
    this.tokenizer = tokenizer;
    this.chat = chat;
  }

  /** @param scores of the caller's ranker, per candidate; undefined = it gave none */
  ask(mode: ServeMode, found: FoundItems, scores: readonly number[] | undefined, topN: number): Question {
    const { config, systems, catalogue, usual, evidence } = this.run;
    const { history, candidates } = found;
    const firsts = new Map<string, number[]>();
    candidates.forEach((c, place) => {
      const same = firsts.get(c.codes.join());
      if (same) same.push(place);
      else firsts.set(c.codes.join(), [place]);
    });
    const places = [...firsts.values()];
    const distinct = places.map(([first]) => candidates[first as number] as Found);
    const byRow = new Map([...history, ...candidates].map((f) => [f.row, f]));
    const encoder = this.encoder((row) => byRow.get(row) as Found);
    const rows = { history: history.map((f) => f.row), candidates: distinct.map((f) => f.row) };
    const given = places.map(([first]) =>
      scores ? (scores[first as number] as number) : usualAt(usual.score, first as number),
    );
    const prior = systems[mode]?.prior as Prior;
    const weighed = priorOf(prior, {
      scores: given,
      ...(prior.evidence !== 0 && evidence ? { evidence: evidence(rows.history, rows.candidates, given) } : {}),
    });
    const compressor = compressorOf(config.prompts, encoder);
    const shown = { ...rows, titleOf: (row: number) => byRow.get(row)?.title ?? "" };
    const prompt = encoder.encode(
      mode === "direct"
        ? sequentialTask(rows.history.slice(-config.prompts.historyItems))
        : renderPrompt(compressor?.compress(shown) ?? shown, "think", config.prompts),
    );
    const sequences = rows.candidates.map((row) => encoder.encode([item(row)]));
    return {
      mode,
      prompt,
      sequences,
      places,
      prior: weighed,
      topN,
      titles: new Map([...byRow.values()].map((f) => [f.codes.join(), f.title])),
      key: sha256(JSON.stringify([mode, catalogue.shape.format, prompt, sequences, weighed, places])),
    };
  }

  constraintTokens(): ConstraintTokens {
    return constraintTokens("think", this.run.config.prompts, this.encoder());
  }

  /** Most tokens a thought and an answer of so many candidates take. */
  answerTokens(question: Pick<Question, "sequences">): number {
    const { separator, terminator, trigger } = this.constraintTokens();
    const items = question.sequences.reduce((n, s) => n + s.length + separator.length, 0);
    return this.run.config.decoding.maxReasoningTokens + trigger.length + items + terminator.length;
  }

  /**
   * Candidates whose prompt and answer fit so many positions, with a full history and the longest titles there may be.
   * @param positions of the model; 0 = any number
   */
  mostThinkCandidates(positions: number): number {
    if (positions === 0) return Number.POSITIVE_INFINITY;
    const { config, catalogue } = this.run;
    const { prompts } = config;
    const word = this.tokenizer.encode(" .").length;
    const title = prompts.showTitles ? (prompts.maxTitleTokens || 4 * 64) + word : 0;
    const item = tokensOfSid(catalogue.codesOf(0), catalogue.shape.format).length;
    const { separator } = this.constraintTokens();
    const shown = prompts.showCandidates || prompts.format === "json" ? item + title : 0;
    const none = this.encoder().encode(
      renderPrompt({ history: [], candidates: [], titleOf: () => "" }, "think", prompts),
    ).length;
    const fixed = none + prompts.historyItems * (item + title) + this.answerTokens({ sequences: [] });
    return Math.max(0, Math.floor((positions - fixed) / (shown + item + separator.length)));
  }

  private encoder(foundAt?: (row: number) => Found): Encoder {
    const { format } = this.run.catalogue.shape;
    return new Encoder(
      {
        encode: (text) => {
          const known = this.texts.get(text);
          if (known) return known;
          const ids = this.tokenizer.encode(text);
          this.texts.set(text, ids);
          return ids;
        },
        tokenId: (token) => this.tokenizer.requireTokenId(token),
      },
      { tokensOf: (row) => tokensOfSid(foundAt?.(row).codes ?? [], format) },
      { special: this.tokenizer.special, chat: this.chat },
    );
  }
}

const usualAt = (usual: readonly number[], place: number): number => usual[Math.min(place, usual.length - 1)] ?? 0;

export const groupOf = (q: Question): Group => ({ prompt: q.prompt, responses: q.sequences });

/** @param logprobs per token of the question's sequences */
export function directOrder(q: Question, prior: Prior, logprobs: Float32Array): Order {
  let at = 0;
  const likelihood = q.sequences.map((s) => {
    let sum = 0;
    for (let t = 0; t < s.length; t++) sum += logprobs[at++] as number;
    return sum;
  });
  const scores = q.prior.map((p, j) => p + prior.likelihood * (likelihood[j] as number));
  const chances = softmax(scores);
  return { ranking: spread(q, orderBy(scores), (j) => chances[j] as number), thought: [], generated: 0 };
}

/** The constraint of a batch; undefined when the run decodes freely. */
export function constraintOf(
  questions: readonly Question[],
  prior: Prior,
  decoding: ServedRun["config"]["decoding"],
  tokens: ConstraintTokens,
): PermutationConstraint | undefined {
  if (!decoding.constrained) return undefined;
  const most = questions.some((q) => q.topN === 0) ? 0 : Math.max(...questions.map(firstPlaces));
  return {
    groups: questions.map((q) => ({
      sequences: q.sequences,
      prior: decoding.prior ? q.prior : q.sequences.map(() => 0),
    })),
    scale: decoding.prior ? prior.likelihood : 1,
    wholeSequences: decoding.choice === "item",
    maxFreeTokens: decoding.maxReasoningTokens,
    // Nobody asked for the places behind these, so none are written.
    maxSequences: most,
    ...tokens,
  };
}

const firstPlaces = (q: Question): number => Math.min(q.topN, q.sequences.length);

/**
 * Reads a completion token by token: thought, trigger, spellings with separators. Undefined if it holds no order of the
 * places asked for. What it leaves out follows in the caller's order.
 */
export function thinkOrder(q: Question, completion: Completion, tokens: ConstraintTokens): Order | undefined {
  const written = Array.from(completion.tokens);
  const opens = written.findIndex((_, i) => startsAt(written, tokens.trigger, i));
  if (opens < 0) return undefined;
  const order: number[] = [];
  const chances: number[] = [];
  let left = 1; // probability that none of those before is the first choice
  let at = opens + tokens.trigger.length;
  while (order.length < q.sequences.length) {
    const j = q.sequences.findIndex((s, k) => !order.includes(k) && startsAt(written, s, at));
    if (j < 0) break;
    const length = (q.sequences[j] as readonly number[]).length;
    const logprob = completion.logprobs.subarray(at, at + length).reduce((a, b) => a + b, 0);
    order.push(j);
    chances.push(Math.min(chances.at(-1) ?? 1, left * Math.exp(logprob)));
    left *= -Math.expm1(Math.min(0, logprob));
    at += length;
    if (tokens.separator.length > 0 && startsAt(written, tokens.separator, at)) at += tokens.separator.length;
  }
  const wanted = q.topN === 0 ? q.sequences.length : firstPlaces(q);
  if (order.length < wanted || !startsAt(written, tokens.terminator, at)) return undefined;
  const chanceOf = new Map(order.map((j, k) => [j, chances[k] as number]));
  for (let j = 0; j < q.sequences.length; j++) if (!chanceOf.has(j)) order.push(j);
  return {
    ranking: spread(q, order, (j) => chanceOf.get(j) ?? 0),
    thought: written.slice(0, opens),
    generated: written.length,
  };
}

const startsAt = (tokens: readonly number[], part: readonly number[], at: number): boolean =>
  part.every((t, k) => tokens[at + k] === t);

const spread = (q: Question, order: readonly number[], scoreOf: (j: number) => number): Order["ranking"] =>
  order.flatMap((j) => (q.places[j] as readonly number[]).map((place) => ({ place, score: scoreOf(j) })));
