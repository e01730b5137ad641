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
  /** Number of attempts, from 1. */
  readonly tries: number;
  readonly teacher: Teacher["kind"];
  readonly model: string;
  readonly sampling: "rejection" | "targeted";
  /** Seed the answer was drawn with; null: it follows from the run's. */
  readonly seed: number | null;
  /** When a server gave the answer; null if it was computed and is reproducible. */
  readonly time: string | null;
  /** SHA-256 of the question in words. */
  readonly prompt: string | null;
}

/** One line of reasonings.jsonl: the teacher's reasoning for its own first choice, made without the answer. */
export interface ReasoningRecord {
  readonly slate: string;
  readonly reasoning: ReasoningSteps;
}

/** For every re-rank slate of SFT's users, hit or miss. */
export const readReasonings = (context: StageContext): ReasoningRecord[] =>
  readLines<ReasoningRecord>(join(context.inputDir("traces"), "reasonings.jsonl"));

export const readTraces = (context: StageContext): TraceRecord[] =>
  readLines<TraceRecord>(join(context.inputDir("traces"), "traces.jsonl"));
