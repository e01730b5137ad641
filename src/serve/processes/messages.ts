/** What the processes of one service tell each other, over the channel that node:cluster gives them. */
import type { ErrorCode } from "../../core/errors.ts";

/** What a process asks all others: their metrics, or to read the registered items again. */
export type Question = "metrics" | "items";

/** Where a process listens, and what it serves. */
export interface Started {
  readonly version: string;
  readonly grpc: { readonly address: string; readonly port: number };
  readonly http: { readonly url: string; readonly port: number };
}

export type FromChild =
  /** It listens to what it is told. */
  | { readonly kind: "hello" }
  | ({ readonly kind: "started" } & Started)
  | { readonly kind: "failed"; readonly code?: ErrorCode; readonly message: string; readonly advice?: string }
  /** Told once it listens, and at every change. */
  | { readonly kind: "state"; readonly ready: boolean }
  | { readonly kind: "ask"; readonly id: number; readonly question: Question }
  | { readonly kind: "reply"; readonly id: number; readonly answer: unknown };

export type FromPrimary =
  /** @param late takes the place of one that was lost: it listens once its model is loaded */
  | { readonly kind: "begin"; readonly number: number; readonly count: number; readonly late: boolean }
  | { readonly kind: "stop"; readonly lameDuck: boolean }
  | { readonly kind: "reload" }
  /** Whether every process that listens has a model that answers. */
  | { readonly kind: "others"; readonly ready: boolean }
  | { readonly kind: "ask"; readonly id: number; readonly question: Question }
  | { readonly kind: "answers"; readonly id: number; readonly answers: readonly unknown[] };
