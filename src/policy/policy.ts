/**
 * A language model as a re-ranker: renders slates, asks the worker, parses the answers. It owns nothing about training;
 * every stage and the server go through it, so that all of them ask the model in exactly the same way.
 */

import { WorkerError } from "../core/errors.ts";
import type { Compressor } from "../prompts/compress.ts";
import { type Parsed, parseResponse } from "../prompts/parse.ts";
import { type Encoder, item, markers, turn } from "../prompts/pieces.ts";
import { constraintTokens, type Mode, type PromptOptions, renderPrompt } from "../prompts/rerank.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { PermutationConstraint, TokenIds, WorkerClient } from "../worker/types.ts";
import { type Prior, priorOf } from "./prior.ts";

/** What the model sees of a re-ranking problem. */
export interface SlateView {
  /** Item rows, oldest first. */
  readonly history: ArrayLike<number>;
  /** Item rows in pre-rank order; their semantic IDs are distinct. */
  readonly candidates: readonly number[];
  /** Pre-rank scores, same order. */
  readonly scores: readonly number[];
  /** The statistical teacher's scores, same order; only needed if the prior uses them. */
  readonly evidence?: readonly number[];
  /** The candidates as the prompt lists them, if not in their own order (a control for position bias). */
  readonly shown?: readonly number[];
}

/** One sampled answer. */
export interface Rollout {
  /** Index of the slate in the request. */
  readonly slate: number;
  readonly prompt: TokenIds;
  readonly tokens: Int32Array;
  /** Log-probability of every token under the distribution it was drawn from. */
  readonly logprobs: Float32Array;
  readonly truncated: boolean;
  readonly text: string;
  readonly parsed: Parsed;
  readonly weightVersion: number;
}

export interface PolicyOptions {
  readonly prompts: PromptOptions;
  readonly decoding: {
    readonly constrained: boolean;
    readonly choice: "item" | "token";
    readonly prior: boolean;
    readonly maxReasoningTokens: number;
  };
  readonly microBatchTokens: number;
  readonly sampleBatchTokens: number;
}

export interface Decoder {
  decode(ids: TokenIds): string;
}

export interface SampleOptions {
  readonly mode: Mode;
  /** Responses per slate. */
  readonly group: number;
  /** 0 = greedy. */
  readonly temperature: number;
  readonly seed: number;
  readonly modelId?: string;
  readonly signal?: AbortSignal;
  /** Given thoughts (mode think): each is put behind its slate's prompt and closed, and only the answer is sampled. */
  readonly thoughts?: readonly (readonly number[])[];
  readonly onProgress?: (done: number, total: number) => void;
}

export class Policy {
  readonly encoder: Encoder;
  readonly options: PolicyOptions;
  private readonly worker: WorkerClient;
  private readonly decoder: Decoder;
  private readonly spell: (row: number) => string;
  private readonly titleOf: (row: number) => string;
  private readonly prior: Prior;
  private readonly compressor: Compressor | undefined;

  constructor(parts: {
    worker: WorkerClient;
    encoder: Encoder;
    decoder: Decoder;
    /** The semantic ID of an item as text. */
    spell: (row: number) => string;
    titleOf: (row: number) => string;
    prior: Prior;
    /** Shortens what re-ranking prompts show. */
    compressor?: Compressor | undefined;
    options: PolicyOptions;
  }) {
    this.worker = parts.worker;
    this.encoder = parts.encoder;
    this.decoder = parts.decoder;
    this.spell = parts.spell;
    this.titleOf = parts.titleOf;
    this.prior = parts.prior;
    this.compressor = parts.compressor;
    this.options = parts.options;
  }

  prompt(slate: SlateView, mode: Mode): number[] {
    const input = { history: slate.history, candidates: slate.shown ?? slate.candidates, titleOf: this.titleOf };
    const shown = this.compressor?.compress(input) ?? input;
    return this.encoder.encode(renderPrompt(shown, mode, this.options.prompts));
  }

  /** The permutation constraint of these slates, or undefined when decoding is free. */
  constraint(slates: readonly SlateView[], mode: Mode): PermutationConstraint | undefined {
    const { constrained, prior } = this.options.decoding;
    if (!constrained) return undefined;
    return {
      groups: slates.map((s) => ({
        sequences: s.candidates.map((row) => this.encoder.item(row)),
        prior: prior ? priorOf(this.prior, s) : s.candidates.map(() => 0),
      })),
      scale: prior ? this.prior.likelihood : 1,
      wholeSequences: this.options.decoding.choice === "item",
      maxFreeTokens: mode === "think" ? this.options.decoding.maxReasoningTokens : 0,
      ...constraintTokens(mode, this.options.prompts, this.encoder),
    };
  }

  /** Most tokens a response may have: a full thought and a full answer. */
  maxNewTokens(slates: readonly SlateView[], mode: Mode): number {
    const { separator, terminator, trigger } = constraintTokens(mode, this.options.prompts, this.encoder);
    const answer = Math.max(
      ...slates.map((s) => s.candidates.reduce((n, row) => n + this.encoder.item(row).length + separator.length, 0)),
    );
    return (
      (mode === "think" ? this.options.decoding.maxReasoningTokens + trigger.length : 0) + answer + terminator.length
    );
  }

  /** Samples `group` answers per slate; results are ordered by slate, then by sample. */
  async sample(slates: readonly SlateView[], o: SampleOptions): Promise<Rollout[]> {
    if (slates.length === 0) return [];
    const { trigger } = constraintTokens(o.mode, this.options.prompts, this.encoder);
    const prompts = slates.map((s, i) => [
      ...this.prompt(s, o.mode),
      ...(o.thoughts ? [...(o.thoughts[i] as readonly number[]), ...trigger] : []),
    ]);
    const answerMode: Mode = o.thoughts ? "answer" : o.mode;
    const constraint = this.constraint(slates, answerMode);
    const end = this.encoder.encode([turn("end")]);
    const out: (Rollout | undefined)[] = new Array<undefined>(slates.length * o.group).fill(undefined);
    const stream = this.worker.sample(
      {
        ...(o.modelId ? { modelId: o.modelId } : {}),
        prompts,
        numSamples: o.group,
        maxNewTokens: this.maxNewTokens(slates, answerMode),
        temperature: o.temperature,
        seed: o.seed,
        ...(constraint ? { constraint } : { stopTokens: end }),
        maxBatchTokens: this.options.sampleBatchTokens,
      },
      o.signal ? { signal: o.signal } : {},
    );
    for await (const event of stream) {
      for (const c of event.completions) {
        const text = this.textOf(c.tokens);
        const slate = slates[c.prompt] as SlateView;
        const spellings = slate.candidates.map(this.spell);
        out[c.prompt * o.group + c.sample] = {
          slate: c.prompt,
          prompt: prompts[c.prompt] as number[],
          tokens: c.tokens,
          logprobs: c.logprobs,
          truncated: c.finishReason === "length",
          text,
          parsed: parseResponse(text, spellings, answerMode, this.options.prompts),
          weightVersion: event.weightVersion,
        };
      }
      o.onProgress?.(event.done, event.total);
    }
    const missing = out.indexOf(undefined);
    if (missing >= 0)
      throw new WorkerError(`the worker sent no answer for slate ${Math.floor(missing / o.group)}`, {
        retryable: true,
      });
    return out as Rollout[];
  }

  /** A response as text; what ends a turn of the model's chat is written as GR2's own end. */
  private textOf(tokens: Int32Array): string {
    const [end] = this.encoder.encode([turn("end")]);
    return this.encoder.chat && tokens.at(-1) === end
      ? this.decoder.decode(tokens.subarray(0, -1)) + markers.end
      : this.decoder.decode(tokens);
  }

  /** The thought of a response (mode think): its tokens up to where the answer begins. */
  thoughtOf(rollout: Rollout): number[] {
    const { trigger } = constraintTokens("think", this.options.prompts, this.encoder);
    const tokens = Array.from(rollout.tokens);
    const at = tokens.findIndex((_, i) => trigger.every((t, k) => tokens[i + k] === t));
    return at < 0 ? [] : tokens.slice(0, at);
  }

  /**
   * log p(item | history) of every candidate: one forward pass a slate, the history computed once (direct mode).
   * @returns per slate, per candidate, nats, summed over the item's tokens
   */
  async logLikelihood(
    slates: readonly SlateView[],
    o: { modelId?: string; signal?: AbortSignal; onProgress?: (done: number, total: number) => void } = {},
  ): Promise<number[][]> {
    const out: number[][] = [];
    const chunk = 256;
    for (let start = 0; start < slates.length; start += chunk) {
      const part = slates.slice(start, start + chunk);
      const groups = part.map((s) => ({
        prompt: this.encoder.encode(sequentialTask(recent(s.history, this.options.prompts.historyItems))),
        responses: s.candidates.map((row) => this.encoder.encode([item(row)])),
      }));
      const { logprobs } = await this.worker.forward(
        {
          ...(o.modelId ? { modelId: o.modelId } : {}),
          batch: { groups },
          microBatchTokens: this.options.microBatchTokens,
        },
        o.signal ? { signal: o.signal } : {},
      );
      let at = 0;
      for (const group of groups)
        out.push(
          group.responses.map((tokens) => {
            let sum = 0;
            for (let t = 0; t < tokens.length; t++) sum += logprobs[at++] as number;
            return sum;
          }),
        );
      o.onProgress?.(out.length, slates.length);
    }
    return out;
  }
}

const recent = (rows: ArrayLike<number>, n: number): number[] =>
  Array.prototype.slice.call(rows, Math.max(0, rows.length - n)) as number[];
