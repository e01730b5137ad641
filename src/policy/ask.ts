/**
 * How a language model is asked about a slate and how its answer is read: prompt, decoding rules, sums of
 * log-likelihoods, parsing. Pure functions. The stages (through Policy) and the service both use them, so a served
 * answer means what an evaluated one means. Not here: workers, batches, weights of the prior.
 */
import type { Compressor } from "../prompts/compress.ts";
import { type Parsed, parseResponse } from "../prompts/parse.ts";
import { type Encoder, markers, turn } from "../prompts/pieces.ts";
import { findFault, reasoningFaults } from "../prompts/reasoning.ts";
import {
  constraintTokens,
  type PromptInput,
  type PromptMode,
  type PromptOptions,
  renderPrompt,
} from "../prompts/rerank.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { Group, PermutationConstraint, SampleRequest, TokenIds } from "../worker/types.ts";
import type { Prior } from "./prior.ts";

export interface DecodingOptions {
  readonly constrained: boolean;
  readonly choice: "item" | "token";
  readonly prior: boolean;
  readonly maxReasoningTokens: number;
}

/** What is the same for every slate of a run. */
export interface AskOptions {
  readonly encoder: Encoder;
  readonly prompts: PromptOptions;
  readonly decoding: DecodingOptions;
  /** Shortens re-ranking prompts. */
  readonly compressor?: Compressor | undefined;
}

/** The candidates of a slate as the model writes them, in slate order. */
export interface Choices {
  /** Tokens of each; distinct. */
  readonly sequences: readonly TokenIds[];
  /** The prior of each, in nats. */
  readonly prior: readonly number[];
}

/** The prompt of generation: modes think and answer. */
export function rerankPrompt(
  { compressor, encoder, prompts }: AskOptions,
  input: PromptInput,
  mode: PromptMode,
): number[] {
  return encoder.encode(renderPrompt(compressor?.compress(input) ?? input, mode, prompts));
}

/** The prompt of direct mode: the latest items of the history. @param history oldest first */
export function directPrompt({ encoder, prompts }: AskOptions, history: ArrayLike<number>): number[] {
  const recent = Array.prototype.slice.call(history, Math.max(0, history.length - prompts.historyItems)) as number[];
  return encoder.encode(sequentialTask(recent));
}

/**
 * The permutation constraint, or undefined when decoding is free.
 * @param likelihood weight of the model's log-likelihood relative to the prior
 * @param wanted candidates to write; 0 = all
 */
export function permutationConstraint(
  { encoder, prompts, decoding }: AskOptions,
  slates: readonly Choices[],
  { likelihood }: Pick<Prior, "likelihood">,
  mode: PromptMode,
  wanted = 0,
): PermutationConstraint | undefined {
  if (!decoding.constrained) return undefined;
  return {
    groups: slates.map(({ sequences, prior }) => ({
      sequences,
      prior: decoding.prior ? prior : sequences.map(() => 0),
    })),
    scale: decoding.prior ? likelihood : 1,
    wholeSequences: decoding.choice === "item",
    maxFreeTokens: mode === "think" ? decoding.maxReasoningTokens : 0,
    ...(wanted > 0 ? { maxSequences: wanted } : {}),
    ...constraintTokens(mode, prompts, encoder),
  };
}

/** Most tokens a response to one of these slates may have: the longest reasoning and every candidate. */
export function maxResponseTokens(
  { encoder, prompts, decoding }: AskOptions,
  slates: readonly Pick<Choices, "sequences">[],
  mode: PromptMode,
): number {
  const { separator, terminator, trigger } = constraintTokens(mode, prompts, encoder);
  const answer = Math.max(
    ...slates.map(({ sequences }) => sequences.reduce((n, s) => n + s.length + separator.length, 0)),
  );
  return (mode === "think" ? decoding.maxReasoningTokens + trigger.length : 0) + answer + terminator.length;
}

/** The decoding part of a `sample` request for these slates; parameters as for permutationConstraint. */
export function decodingRules(
  ask: AskOptions,
  slates: readonly Choices[],
  prior: Pick<Prior, "likelihood">,
  mode: PromptMode,
  wanted = 0,
): Pick<SampleRequest, "maxNewTokens" | "constraint" | "stopTokens"> {
  const constraint = permutationConstraint(ask, slates, prior, mode, wanted);
  return {
    maxNewTokens: maxResponseTokens(ask, slates, mode),
    ...(constraint ? { constraint } : { stopTokens: ask.encoder.encode([turn("end")]) }),
  };
}

/**
 * log p(response | prompt) of every response, in nats.
 * @param logprobs of every token of every response, in the order of the groups
 */
export function sumLogLikelihoods(groups: readonly Pick<Group, "responses">[], logprobs: Float32Array): number[][] {
  let at = 0;
  return groups.map(({ responses }) =>
    responses.map((tokens) => {
      let sum = 0;
      for (let t = 0; t < tokens.length; t++) sum += logprobs[at++] as number;
      return sum;
    }),
  );
}

/** A response as text; the end of a chat turn is written as GR2's own end marker. */
export function decodeResponse(encoder: Encoder, tokens: Int32Array, decode: (ids: TokenIds) => string): string {
  const [end] = encoder.encode([turn("end")]);
  return encoder.chat && tokens.at(-1) === end ? decode(tokens.subarray(0, -1)) + markers.end : decode(tokens);
}

/** A response as it was sampled. */
export interface Response {
  readonly prompt: TokenIds;
  readonly tokens: Int32Array;
  /** The tokens, decoded. */
  readonly text: string;
}

/**
 * Reasoning that is worthless (prompts/reasoning.ts) makes an answer invalid, whatever order follows it.
 * @param spellings the candidates' semantic IDs as text, in slate order; distinct
 * @param wanted candidates that the constraint let the model write; 0 = all. Free decoding always asks for all.
 */
export function readResponse(
  ask: Pick<AskOptions, "encoder" | "prompts" | "decoding">,
  { prompt, tokens, text }: Response,
  spellings: readonly string[],
  mode: PromptMode,
  wanted = 0,
): Parsed {
  const { prompts, decoding } = ask;
  const fewest = decoding.constrained && wanted > 0 ? Math.min(wanted, spellings.length) : spellings.length;
  const parsed = parseResponse(text, spellings, mode, prompts, fewest);
  if (mode === "answer" || parsed.kind === "unparseable") return parsed;
  const reasoning = tokens.subarray(0, Math.max(0, findTrigger(ask, tokens)));
  const fault = findFault({ prompt, tokens: reasoning }, ask.encoder, decoding.maxReasoningTokens);
  if (!fault) return parsed;
  return {
    kind: "unparseable",
    reason: reasoningFaults[fault],
    detail: `${reasoning.length} tokens: ${parsed.reasoning.slice(0, 60)}`,
  };
}

/** Where the reasoning of a response in mode think ends: the index of the first token of the trigger, or -1. */
export function findTrigger(
  { encoder, prompts }: Pick<AskOptions, "encoder" | "prompts">,
  tokens: ArrayLike<number>,
): number {
  const { trigger } = constraintTokens("think", prompts, encoder);
  return findTokens(tokens, trigger, 0);
}

/** The first index from `from` on where these tokens appear one after the other, or -1. */
export function findTokens(tokens: ArrayLike<number>, part: TokenIds, from: number): number {
  for (let at = from; at + part.length <= tokens.length; at++) {
    let k = 0;
    while (k < part.length && tokens[at + k] === part[k]) k++;
    if (k === part.length) return at;
  }
  return -1;
}
