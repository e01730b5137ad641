/**
 * The service's internal request and answer, common to all protocols (gRPC, HTTP dialects). Transports translate to and
 * from these; the engine knows no protocol.
 *
 * "Positions" are indices into the request's candidates, from 0, in the caller's own order.
 */
import type { Mode } from "../../prompts/rerank.ts";

/**
 * An item of the history or a candidate: one the model knows, or one described by its text. At least one of the two.
 */
export interface ItemReference {
  /** The data set's own id of an item the model was trained on. */
  readonly itemId?: string;
  /** Title, or title and more; untrusted. Unknown items get a semantic ID from it, for this request only. */
  readonly text?: string;
}

export interface CandidateReference extends ItemReference {
  /** The caller's id, returned unchanged; unique within a request. */
  readonly id: string;
  /**
   * The caller's ranker's score, larger is better; all candidates have one or none has. With scores, the listed
   * order does not matter; without, candidateOrder says what it means.
   */
  readonly score?: number;
}

/** Options of a request. */
export type ServeMode = Exclude<Mode, "answer">;

export interface RerankRequest {
  /** Oldest first. Empty: an unknown user. */
  readonly history: readonly ItemReference[];
  /** Their order (by score, else as listed) is returned if anything goes wrong. */
  readonly candidates: readonly CandidateReference[];
  /** Candidates to return; 0 = all. */
  readonly topN: number;
  /** think: reasoning before the order; direct: one forward pass. */
  readonly mode: ServeMode;
  /**
   * Milliseconds from arrival to the answer; 0 = the service's default. Never exceeded: the caller's order is returned
   * in time.
   */
  readonly deadlineMs: number;
  /** Default: the service's setting. */
  readonly onFallback?: OnFallback;
  /** What the order of candidates without scores means. Default: the service's setting. */
  readonly candidateOrder?: CandidateOrder;
}

/** ranked: from the caller's ranker, best first; arbitrary: ignored. */
export type CandidateOrder = "ranked" | "arbitrary";

/** Response if the model gives no answer: the caller's own order, flagged, or a refusal. */
export type OnFallback = "own-order" | "error";

/** Why the caller's own order was returned. */
export type FallbackReason = "invalid_answer" | "deadline" | "worker_lost" | "overload" | "shutting_down";

export interface RankedCandidate {
  readonly position: number;
  readonly id: string;
  /**
   * Larger is better; comparable within one answer. The probability of being the first choice; in a fallback,
   * 1 - rank / candidates.
   */
  readonly score: number;
}

export interface RerankAnswer {
  /** Best first; every candidate once, cut to topN. */
  readonly ranking: readonly RankedCandidate[];
  /** In mode think; "" otherwise. */
  readonly reasoning: string;
  readonly fallback?: FallbackReason;
  /** Milliseconds. */
  readonly timings: { readonly queue: number; readonly encode: number; readonly model: number; readonly total: number };
  readonly tokens: { readonly prompt: number; readonly generated: number };
  /** Identifies the run, its config and its weights: equal versions give equal answers. */
  readonly modelVersion: string;
  /** Whether this is the cached answer of an equal request. */
  readonly cached?: boolean;
}

/** Prompt tokens that a worker computed, and those reused from its prefix cache. */
export interface PromptTokens {
  readonly computed: number;
  readonly reused: number;
}

/** Events of a stream: pieces of the reasoning as they are generated, then the answer. */
export type RerankEvent =
  | { readonly kind: "reasoning"; readonly text: string }
  | { readonly kind: "answer"; readonly answer: RerankAnswer };

/** A system's metric minus that of the input order, on slates that contain the true item, with its 95 % interval. */
export interface Lift {
  readonly metric: string;
  readonly delta: number;
  readonly ciLow: number;
  readonly ciHigh: number;
}

export interface ServedModel {
  readonly name: string;
  readonly version: string;
  /** The system that answers in each mode, by its name in the results table. */
  readonly systems: { readonly think?: string; readonly direct?: string };
  /** The evaluation's recommendation, and its reason in one sentence. */
  readonly recommendation: { readonly system: string; readonly sentence: string };
  /**
   * How much a caller's order without scores counts, by mode: per position, the odds of a candidate there against the
   * same one in first position. Evidence may use positions in addition.
   */
  readonly positionOdds: Readonly<Partial<Record<ServeMode, readonly number[]>>>;
  /** By mode: what the system that answers gained on the run's test slates; left out if not measured. */
  readonly lifts: Readonly<Partial<Record<ServeMode, Lift>>>;
  /** Hex digests. */
  readonly hashes: {
    readonly config: string;
    readonly weights: string;
    readonly tokenizer: string;
    readonly data: string;
  };
  readonly numParameters: number;
  readonly modes: readonly ServeMode[];
  readonly limits: {
    readonly maxCandidates: number;
    /** For mode think, in which prompt and answer must fit the model's positions; at most maxCandidates. */
    readonly maxThinkCandidates: number;
    readonly maxHistory: number;
    readonly maxTextBytes: number;
    readonly maxRequestBytes: number;
    readonly maxBatch: number;
    /** Items per registration. */
    readonly maxItems: number;
    readonly maxDeadlineMs: number;
  };
}

/** Why a request is refused instead of answered. */
export type RefusalCode =
  | "invalid" // malformed: names the field
  | "too_large" // beyond a limit: names it
  | "unauthenticated"
  | "rate_limited" // this token's own limit
  | "overloaded" // the queue is full or the deadline cannot be met
  | "unavailable"; // no model loaded, or shutting down

/**
 * A refusal: every transport has a status for each code. The message is one sentence for a person, free of user data.
 */
export class Refusal extends Error {
  readonly code: RefusalCode;
  readonly retryAfterMs: number | undefined;
  /** Set if the caller chose a refusal over its own order. */
  readonly fallback: FallbackReason | undefined;
  constructor(code: RefusalCode, message: string, options: { retryAfterMs?: number; fallback?: FallbackReason } = {}) {
    super(message);
    this.name = "Refusal";
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.fallback = options.fallback;
  }
}

/** The client: clients are served in turn. */
export interface Caller {
  /** Name of the token or certificate, else the calling address. */
  readonly name: string;
  /** Charges extra work to the client's rate, as a number of requests. */
  charge(requests: number): void;
}

/** The result of a registration. */
export interface RegisteredCount {
  /** Registrations so far. */
  readonly version: number;
  /** New, or with a changed text. */
  readonly registered: number;
  /** Registered before, or without an id. */
  readonly unchanged: number;
  /** The model knows them by id or title: nothing changes. */
  readonly known: number;
}

export interface CallOptions {
  /** Aborted when nobody waits for the answer any more. */
  readonly signal?: AbortSignal;
  /** Default: an anonymous client like any other. */
  readonly caller?: Caller;
  /** W3C trace context, sent to the worker with the call. */
  readonly traceparent?: string;
}

/**
 * The re-ranker for all transports. `rerank` and `stream` throw only Refusal, also after an abort of the signal.
 */
export interface Reranker {
  /** Throws Refusal while the process lags too far. Called before a request is read, because refusing must be cheap. */
  shed(): void;
  rerank(request: RerankRequest, options?: CallOptions): Promise<RerankAnswer>;
  stream(request: RerankRequest, options?: CallOptions): AsyncIterable<RerankEvent>;
  /** Registers items that the model does not know: id and semantic ID for later requests. Throws Refusal. */
  register(items: readonly ItemReference[], options?: CallOptions): Promise<RegisteredCount>;
  /** Version of the registered items: the number of registrations. */
  itemsVersion(): number;
  /** Undefined while nothing is loaded. */
  model(): ServedModel | undefined;
  /** Whether a model can answer requests now. */
  ready(): boolean;
  load(): {
    readonly queued: number;
    readonly running: number;
    readonly workers: number;
    readonly workersReady: number;
  };
}
