/** What stage traces left: the teacher's traces and reasonings. */
import { join } from "node:path";
import type { AnyReasoning, ReasoningSteps } from "../prompts/rerank.ts";
import type { StageContext } from "../run/stage.ts";
import type { Teacher } from "../teacher/teacher.ts";
import { readLines } from "./files.ts";

/** One line of traces.jsonl. */
export interface TraceRecord {
  readonly slate: string;
  /** Candidate indices, best first; the true item is first. */
  readonly order: readonly number[];
  readonly reasoning: AnyReasoning;
  /** Asked so often, from 1. */
  readonly tries: number;
  readonly teacher: Teacher["kind"];
  readonly model: string;
  readonly sampling: "rejection" | "targeted";
  /** Of drawing the answer; null: it follows from the run's. */
  readonly seed: number | null;
  /** When a server gave the answer; null where it was computed and could be again. */
  readonly time: string | null;
  /** SHA-256 of the question in words. */
  readonly prompt: string | null;
}

/** One line of reasonings.jsonl: what the teacher says of a slate by its own first choice; the answer plays no part. */
export interface ReasoningRecord {
  readonly slate: string;
  readonly reasoning: ReasoningSteps;
}

/** Of every re-rank slate of SFT's users, hit or miss. */
export const readReasonings = (context: StageContext): ReasoningRecord[] =>
  readLines<ReasoningRecord>(join(context.inputDir("traces"), "reasonings.jsonl"));

export const readTraces = (context: StageContext): TraceRecord[] =>
  readLines<TraceRecord>(join(context.inputDir("traces"), "traces.jsonl"));
