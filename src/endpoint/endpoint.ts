/**
 * Sends many requests to an OpenAI-compatible server (vLLM, SGLang, llama.cpp, hosted): several at a time, with
 * retries, back-off and jitter, within a budget, each answer on disk as soon as it arrives.
 */
import { EnvironmentError, InterruptedError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import { Rng } from "../core/rng.ts";
import type { AnswerLog } from "./answers.ts";
import type { Budget, Usage } from "./budget.ts";
import { type ChatRequest, chat, type Outcome } from "./request.ts";
import type { Secret } from "./secret.ts";

export interface EndpointOptions {
  /** Including the version, for example http://127.0.0.1:8000/v1. */
  readonly baseUrl: string;
  readonly concurrency: number;
  readonly timeoutMs: number;
  /** Retries of one request after the first attempt. */
  readonly maxRetries: number;
  /** Wait before the first retry; doubles each time, ± half at random. */
  readonly backoffMs: number;
  /** Longest wait, Retry-After included; a request told to wait longer is given up. */
  readonly maxWaitMs: number;
  /** This many requests in a row that fail for good stop everything. */
  readonly maxFailures: number;
  readonly seed: number;
}

export interface EndpointParts {
  readonly secret: Secret;
  readonly budget: Budget;
  readonly answers: AnswerLog;
  readonly signal: AbortSignal;
  readonly onAnswer?: (done: number, total: number) => void;
}

export type Answer =
  | { readonly kind: "text"; readonly text: string; readonly cut: boolean; readonly time: string }
  | { readonly kind: "unasked"; readonly reason: string };

/**
 * One answer per request, in order: from disk if stored, else from the server.
 * @throws EnvironmentError if the server cannot be used at all; answers received by then are on disk
 */
export async function askAll(
  requests: readonly ChatRequest[],
  o: EndpointOptions,
  parts: EndpointParts,
): Promise<Answer[]> {
  const { budget, answers } = parts;
  const out: (Answer | undefined)[] = requests.map((body) => {
    const kept = answers.get(hashRequest(o, body));
    if (kept) budget.charge(kept);
    return kept && { kind: "text", text: kept.text, cut: kept.cut, time: kept.time };
  });
  const open = requests.flatMap((body, index) => (out[index] ? [] : [{ body, index }]));
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, parts.signal]);
  let next = 0;
  let done = requests.length - open.length;
  let failuresInARow = 0;
  let fatal: unknown;

  const giveUp = (reason: string, advice: string): void => {
    fatal ??= new EnvironmentError(
      `the teacher at ${o.baseUrl} cannot be used: ${reason}. Its ${answers.size} answers so far are kept`,
      { advice: `${advice} Then run it again: it resumes where it stopped.` },
    );
    stop.abort();
  };
  const work = async (): Promise<void> => {
    while (next < open.length && !signal.aborted) {
      const { body, index } = open[next++] as (typeof open)[number];
      const result = await askOne(body, o, { ...parts, signal });
      if (result.kind === "answer") {
        failuresInARow = 0;
        out[index] = { ...result, kind: "text" };
        done++;
        parts.onAnswer?.(done, requests.length);
        continue;
      }
      out[index] = { kind: "unasked", reason: result.kind === "budget" ? "budget used up" : "endpoint failed" };
      if (result.kind === "budget") continue;
      if (result.kind === "hopeless") giveUp(result.reason, result.advice);
      else if (++failuresInARow >= o.maxFailures)
        giveUp(
          result.reason,
          "Start the server or wait until it has recovered; teacher.endpoint sets address, timeouts and retries.",
        );
    }
  };
  const workers = Array.from({ length: Math.min(o.concurrency, open.length) }, () =>
    work().catch((cause: unknown) => {
      if (!signal.aborted) fatal ??= cause;
      stop.abort();
    }),
  );
  await Promise.all(workers);
  if (parts.signal.aborted) throw new InterruptedError();
  if (fatal !== undefined) throw fatal;
  return out.map((answer) => answer ?? { kind: "unasked", reason: "endpoint failed" });
}

type Result =
  | { readonly kind: "answer"; readonly text: string; readonly cut: boolean; readonly time: string }
  | { readonly kind: "failed"; readonly reason: string }
  | { readonly kind: "budget" }
  | Extract<Outcome, { kind: "hopeless" }>;

/** One request with its retries, all within the budget. */
async function askOne(body: ChatRequest, o: EndpointOptions, parts: EndpointParts): Promise<Result> {
  const { budget, secret, signal } = parts;
  const prompt = body.messages.map((m) => m.content).join("");
  const most = { inputTokens: Buffer.byteLength(prompt) + templateTokens, outputTokens: body.max_tokens };
  const jitter = Rng.of(o.seed, "back-off", hashJson(body));
  for (let tried = 0; ; tried++) {
    if (!(await budget.reserve(most))) return { kind: "budget" };
    let cost: Usage = { inputTokens: 0, outputTokens: 0 };
    let outcome: Outcome;
    try {
      outcome = await chat(o.baseUrl, body, { secret, timeoutMs: o.timeoutMs, signal });
      if (outcome.kind === "answer") cost = counted(outcome.usage, prompt, outcome.text);
    } finally {
      budget.settle(most, cost);
    }
    if (outcome.kind === "answer") {
      const time = new Date().toISOString();
      const text = secret.redact(outcome.text);
      const { cut } = outcome;
      parts.answers.add({ key: hashRequest(o, body), text, cut, time, ...cost });
      return { kind: "answer", text, cut, time };
    }
    if (outcome.kind === "hopeless") return outcome;
    if (outcome.kind === "refused") return { kind: "failed", reason: outcome.reason };
    if (tried >= o.maxRetries) return { kind: "failed", reason: `${outcome.reason} (tried ${tried + 1} times)` };
    if (outcome.afterMs > o.maxWaitMs)
      return { kind: "failed", reason: `${outcome.reason}; it asked to wait ${Math.ceil(outcome.afterMs / 1000)} s` };
    const backoff = o.backoffMs * 2 ** tried * (0.5 + jitter.uniform());
    await wait(Math.min(o.maxWaitMs, Math.max(outcome.afterMs, backoff)), signal);
  }
}

/** Identity of a request: the server and everything sent to it. */
const hashRequest = (o: EndpointOptions, body: ChatRequest): string => hashJson({ baseUrl: o.baseUrl, body });

/** A generous bound on the tokens a chat template adds; a text has at most as many tokens as bytes. */
const templateTokens = 64;

/** The server's count; if missing, three characters per token. */
const counted = (usage: Usage, prompt: string, text: string): Usage => ({
  inputTokens: usage.inputTokens >= 0 ? usage.inputTokens : Math.ceil(prompt.length / 3),
  outputTokens: usage.outputTokens >= 0 ? usage.outputTokens : Math.ceil(text.length / 3),
});

/** Resolves after a time; rejects as soon as the signal is aborted. */
function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(new InterruptedError());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}
