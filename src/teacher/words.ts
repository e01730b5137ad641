/**
 * A teacher that reads and writes words: it renders the question, has an endpoint or the worker's model complete it,
 * and parses the answer strictly. An answer that does not parse or fails a quality filter is unusable, with a reason.
 */
import { RunError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { deriveSeed } from "../core/rng.ts";
import { parseJsonAnswer, readCitations } from "../prompts/parse.ts";
import { renderTeacherPrompt, type TeacherPromptOptions } from "../prompts/teacher-prompt.ts";
import { findFault, type QualityOptions } from "./quality.ts";
import type { Reply, Teacher, TeacherQuestion } from "./teacher.ts";

/** One request for text. */
export interface TextRequest {
  readonly prompt: string;
  /** The candidates' semantic IDs, in slate order. */
  readonly spellings: readonly string[];
  readonly seed: number;
}

export type Written =
  /** The answer as text; `cut`: it was longer than it may be. */
  | { readonly kind: "text"; readonly text: string; readonly cut?: boolean; readonly time: string | null }
  | { readonly kind: "unasked"; readonly reason: string };

/** One outcome per request, in order. */
export type Complete = (wanted: readonly TextRequest[]) => Promise<readonly Written[]>;

export interface WordsOptions {
  readonly kind: "openai" | "worker";
  readonly model: string;
  readonly complete: Complete;
  readonly close?: () => Promise<void>;
  /** Item rows shown as history, oldest first. */
  readonly getHistory: (question: TeacherQuestion) => readonly number[];
  readonly spell: (row: number) => string;
  readonly describe: (row: number) => string;
  readonly question: TeacherPromptOptions;
  readonly quality: QualityOptions;
  readonly seed: number;
}

/** If this many first answers are all unusable, stop before paying for the rest. */
const probe = 20;

/** Throws RunError, from `ask`, if the first answers are all unusable. */
export function writingTeacher(o: WordsOptions): Teacher {
  let probed = false;
  const toTextRequest = (question: TeacherQuestion): TextRequest => {
    const { slate, hint, attempt } = question;
    return {
      prompt: renderTeacherPrompt(
        {
          history: o.getHistory(question),
          candidates: slate.candidates,
          chosen: hint === null ? null : (slate.candidates[hint] as number),
          spell: o.spell,
          describe: o.describe,
        },
        o.question,
      ),
      spellings: slate.candidates.map(o.spell),
      seed: deriveSeed(o.seed, "ask", slate.id, attempt),
    };
  };
  return {
    kind: o.kind,
    model: o.model,
    ...(o.close ? { close: o.close } : {}),
    async ask(questions) {
      const first = probed ? [] : questions.slice(0, probe);
      probed = true;
      const replies = await replyTo(first);
      if (first.length === probe && replies.every((r) => r.kind === "unusable")) throw useless(o.model, replies);
      return [...replies, ...(await replyTo(questions.slice(first.length)))];
    },
  };

  async function replyTo(questions: readonly TeacherQuestion[]): Promise<Reply[]> {
    if (questions.length === 0) return [];
    const wanted = questions.map(toTextRequest);
    const written = await o.complete(wanted);
    return questions.map((question, i): Reply => {
      const answer = written[i] as Written;
      return answer.kind === "text" ? read(question, wanted[i] as TextRequest, answer) : answer;
    });
  }

  function read(question: TeacherQuestion, asked: TextRequest, answer: Extract<Written, { kind: "text" }>): Reply {
    const { text, time, cut } = answer;
    const unusable = (reason: string, detail: string): Reply => ({ kind: "unusable", reason, detail, text });
    if (cut) return unusable("cut off", "longer than teacher.maxAnswerTokens");
    const { candidates } = question.slate;
    const parsed = parseJsonAnswer(unwrapped(text), asked.spellings);
    if (parsed.kind === "unparseable") return unusable(parsed.reason, parsed.detail);
    const shown = [...o.getHistory(question), ...candidates]; // of two items with the same spelling the candidate is meant
    const rows = new Map(shown.map((row) => [o.spell(row), row]));
    const citations = readCitations(parsed.reasoning, (spelling) => rows.get(spelling));
    const fault = findFault(citations, candidates[parsed.order[0] as number] as number, o.quality);
    if (fault) return unusable(fault.reason, fault.detail);
    return {
      kind: "ranking",
      order: parsed.order,
      reasoning: { words: citations.words },
      seed: asked.seed,
      time,
      prompt: sha256(asked.prompt),
    };
  }
}

function useless(model: string, replies: readonly Reply[]): RunError {
  const unusable = replies.filter((r) => r.kind === "unusable");
  const counts = new Map<string, number>();
  for (const { reason } of unusable) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts].sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${n} x ${reason}`);
  const example = (unusable[0]?.text ?? "").replace(/\s+/g, " ").slice(0, 120);
  return new RunError(
    `none of the first ${probe} answers of the teacher ${model} is usable: ${reasons.join(", ")}; the first reads: ${example}`,
    {
      advice:
        "Use a model that follows instructions, set teacher.endpoint.structured, or change the bounds in teacher.quality.",
    },
  );
}

/** Removes what servers wrap around an answer: hidden thinking, a code fence. */
function unwrapped(text: string): string {
  const answer = text.replace(/^\s*<think>[\s\S]*?<\/think>/, "").trim();
  return /^```(?:json)?\s*\n([\s\S]*?)\n?```$/.exec(answer)?.[1] ?? answer;
}
