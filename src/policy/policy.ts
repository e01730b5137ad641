/**
 * A language model as a re-ranker of the run's own slates: asks the worker, batch by batch, and reads the answers.
 * Every stage uses it. How a question is put and an answer read is in ask.ts, which the service shares.
 */

import { WorkerError } from "../core/errors.ts";
import type { Compressor } from "../prompts/compress.ts";
import type { Parsed } from "../prompts/parse.ts";
import type { Encoder } from "../prompts/pieces.ts";
import { constraintTokens, type PromptMode, type PromptOptions } from "../prompts/rerank.ts";
import { titlePiece, titlesTask } from "../prompts/tasks.ts";
import type { Group, PermutationConstraint, TokenIds, WorkerClient } from "../worker/types.ts";
import {
  type AskOptions,
  type Choices,
  type DecodingOptions,
  decodeResponse,
  decodingRules,
  directPrompt,
  findTrigger,
  maxResponseTokens,
  permutationConstraint,
  readResponse,
  rerankPrompt,
  sumLogLikelihoods,
} from "./ask.ts";
import { computePrior, type Prior } from "./prior.ts";

/** What the model sees of a re-ranking problem. */
export interface SlateInput {
  /** Item rows, oldest first. */
  readonly history: ArrayLike<number>;
  /** Item rows in pre-rank order; their semantic IDs are distinct. */
  readonly candidates: readonly number[];
  /** Pre-rank scores, same order. */
  readonly scores: readonly number[];
  /** The statistical teacher's scores, same order; only needed if the prior uses them. */
  readonly evidence?: readonly number[];
  /** The order in which the prompt lists the candidates, if not their own (a control for position bias). */
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
  readonly decoding: DecodingOptions;
  readonly microBatchTokens: number;
  readonly sampleBatchTokens: number;
}

export interface Decoder {
  decode(ids: TokenIds): string;
}

export interface SampleOptions {
  readonly mode: PromptMode;
  /** Responses per slate. */
  readonly group: number;
  /** 0 = greedy. */
  readonly temperature: number;
  readonly seed: number;
  readonly modelId?: string;
  readonly signal?: AbortSignal;
  /** Given reasoning per slate (mode think): appended to the prompt and closed; only the answer is sampled. */
  readonly reasoning?: readonly (readonly number[])[];
  readonly onProgress?: (done: number, total: number) => void;
}

export class Policy {
  readonly encoder: Encoder;
  readonly options: PolicyOptions;
  private readonly worker: WorkerClient;
  private readonly decoder: Decoder;
  private readonly spell: (row: number) => string;
  private readonly getTitle: (row: number) => string;
  private readonly prior: Prior;
  private readonly ask: AskOptions;

  constructor(parts: {
    worker: WorkerClient;
    encoder: Encoder;
    decoder: Decoder;
    /** The semantic ID of an item as text. */
    spell: (row: number) => string;
    getTitle: (row: number) => string;
    prior: Prior;
    /** Shortens re-ranking prompts. */
    compressor?: Compressor | undefined;
    options: PolicyOptions;
  }) {
    this.worker = parts.worker;
    this.encoder = parts.encoder;
    this.decoder = parts.decoder;
    this.spell = parts.spell;
    this.getTitle = parts.getTitle;
    this.prior = parts.prior;
    this.options = parts.options;
    const { prompts, decoding } = parts.options;
    this.ask = { encoder: parts.encoder, prompts, decoding, compressor: parts.compressor };
  }

  prompt(slate: SlateInput, mode: PromptMode): number[] {
    const { history, candidates, shown = candidates } = slate;
    return rerankPrompt(this.ask, { history, candidates: shown, getTitle: this.getTitle }, mode);
  }

  /** The permutation constraint of these slates, or undefined when decoding is free. */
  constraint(slates: readonly SlateInput[], mode: PromptMode): PermutationConstraint | undefined {
    return permutationConstraint(this.ask, this.choices(slates), this.prior, mode);
  }

  /** Most tokens a response may have: the longest reasoning and a full answer. */
  maxNewTokens(slates: readonly SlateInput[], mode: PromptMode): number {
    return maxResponseTokens(this.ask, this.choices(slates), mode);
  }

  private choices(slates: readonly SlateInput[]): Choices[] {
    const weighed = this.options.decoding.constrained && this.options.decoding.prior;
    return slates.map((s) => ({
      sequences: s.candidates.map((row) => this.encoder.item(row)),
      prior: weighed ? computePrior(this.prior, s) : s.candidates.map(() => 0),
    }));
  }

  /** Samples `group` answers per slate; results are ordered by slate, then by sample. */
  async sample(slates: readonly SlateInput[], o: SampleOptions): Promise<Rollout[]> {
    if (slates.length === 0) return [];
    const { trigger } = constraintTokens(o.mode, this.options.prompts, this.encoder);
    const prompts = slates.map((s, i) => [
      ...this.prompt(s, o.mode),
      ...(o.reasoning ? [...(o.reasoning[i] as readonly number[]), ...trigger] : []),
    ]);
    const answerMode: PromptMode = o.reasoning ? "answer" : o.mode;
    const out: (Rollout | undefined)[] = new Array<undefined>(slates.length * o.group).fill(undefined);
    const stream = this.worker.sample(
      {
        ...(o.modelId ? { modelId: o.modelId } : {}),
        prompts,
        numSamples: o.group,
        ...decodingRules(this.ask, this.choices(slates), this.prior, answerMode),
        temperature: o.temperature,
        seed: o.seed,
        maxBatchTokens: this.options.sampleBatchTokens,
      },
      o.signal ? { signal: o.signal } : {},
    );
    for await (const event of stream) {
      for (const c of event.completions) {
        const text = decodeResponse(this.encoder, c.tokens, (ids) => this.decoder.decode(ids));
        const slate = slates[c.prompt] as SlateInput;
        const spellings = slate.candidates.map(this.spell);
        const prompt = prompts[c.prompt] as number[];
        out[c.prompt * o.group + c.sample] = {
          slate: c.prompt,
          prompt,
          tokens: c.tokens,
          logprobs: c.logprobs,
          truncated: c.finishReason === "length",
          text,
          parsed: readResponse(this.ask, { prompt, tokens: c.tokens, text }, spellings, answerMode),
          weightVersion: event.weightVersion,
        };
      }
      o.onProgress?.(event.done, event.total);
    }
    const missing = out.indexOf(undefined);
    if (missing >= 0)
      throw new WorkerError(`the worker returned no answer for slate ${Math.floor(missing / o.group)}`, {
        retryable: true,
      });
    return out as Rollout[];
  }

  /** The reasoning of a response (mode think): its tokens up to where the answer begins. */
  readReasoning(rollout: Rollout): number[] {
    return Array.from(rollout.tokens.subarray(0, Math.max(0, findTrigger(this.ask, rollout.tokens))));
  }

  /** A slate in direct mode: the history is the prompt, every candidate a response. */
  directGroup(slate: Pick<SlateInput, "history" | "candidates">): Group {
    return {
      prompt: directPrompt(this.ask, slate.history),
      responses: slate.candidates.map((row) => this.encoder.item(row)),
    };
  }

  /** The same in words, for a model without semantic IDs: titles follow titles. */
  titleGroup(slate: Pick<SlateInput, "history" | "candidates">): Group {
    const shown = Array.prototype.slice.call(slate.history, -this.options.prompts.historyItems) as number[];
    return {
      prompt: this.encoder.encode(titlesTask(shown.map(this.getTitle))),
      responses: slate.candidates.map((row) => this.encoder.encode([titlePiece(this.getTitle(row))])),
    };
  }

  /**
   * log p(item | history) of every candidate: one forward pass per slate, the history computed once (direct mode).
   * @returns per slate, per candidate, nats, summed over the item's tokens
   */
  async logLikelihood(
    slates: readonly SlateInput[],
    o: { modelId?: string; signal?: AbortSignal; onProgress?: (done: number, total: number) => void } = {},
    makeGroup: (slate: SlateInput) => Group = (slate) => this.directGroup(slate),
  ): Promise<number[][]> {
    const out: number[][] = [];
    const chunk = 256;
    for (let start = 0; start < slates.length; start += chunk) {
      const part = slates.slice(start, start + chunk);
      const groups = part.map(makeGroup);
      const { logprobs } = await this.worker.forward(
        {
          ...(o.modelId ? { modelId: o.modelId } : {}),
          batch: { groups },
          microBatchTokens: this.options.microBatchTokens,
        },
        o.signal ? { signal: o.signal } : {},
      );
      out.push(...sumLogLikelihoods(groups, logprobs));
      o.onProgress?.(out.length, slates.length);
    }
    return out;
  }
}
