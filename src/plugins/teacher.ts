/** The teacher that a recipe names: opened, and checked against the teacher contract. */
import { nameModule } from "../core/module-name.ts";
import type { SlateItems } from "../data/slate-items.ts";
import type { FreeReasoning } from "../prompts/rerank.ts";
import type { BroughtQuestion, BroughtReply, ReasoningPart } from "../teacher/brought.ts";
import type { Reply, Teacher, TeacherQuestion } from "../teacher/teacher.ts";
import type { UnlabelledSlate } from "../teacher/unlabelled-slate.ts";
import { type Asked, askChecked, openFunction } from "./contract.ts";
import type { PluginIdentity } from "./identity.ts";
import { pluginsAt } from "./named.ts";
import { openModule, type Surroundings } from "./open.ts";

/** How slates are shown to a teacher, and which rows its replies refer to. */
export interface SlateReader {
  readonly show: (slate: UnlabelledSlate) => SlateItems;
  /** Rows of the history as shown, oldest first. */
  readonly getHistory: (slate: UnlabelledSlate) => ArrayLike<number>;
}

export interface OpenTeacher {
  readonly identity: PluginIdentity;
  readonly makeTeacher: (reader: SlateReader) => Teacher;
}

/** Maximum questions per call. */
const batch = 64;

/** Undefined if the recipe names none. */
export async function openTeacher(around: Surroundings): Promise<OpenTeacher | undefined> {
  const [plugin] = pluginsAt(around.config, "teacher");
  if (plugin === undefined) return undefined;
  const opened = await openModule(plugin, around);
  const asked: Asked<BroughtQuestion> = openFunction(opened, plugin, "ask", "a teacher, {ask(questions)}");
  const about = {
    getSlate: ({ slate }: BroughtQuestion) => slate.id,
    describe: ({ attempt }: BroughtQuestion) => `attempt ${attempt}`,
    findFault,
  };
  return {
    identity: opened.identity,
    makeTeacher: (reader) => ({
      kind: "module",
      model: nameModule(plugin.module),
      async ask(questions) {
        const replies: Reply[] = [];
        for (let start = 0; start < questions.length; start += batch) {
          const part = questions.slice(start, start + batch);
          const shown = part.map(({ slate, hint, attempt }) => ({ slate: reader.show(slate), hint, attempt }));
          const values = await askChecked(plugin, asked, shown, about);
          replies.push(...values.map((v, i) => toReply(v as BroughtReply | null, part[i] as TeacherQuestion, reader)));
        }
        return replies;
      },
    }),
  };
}

function findFault(value: unknown, { slate }: BroughtQuestion): string | undefined {
  if (value === null) return undefined;
  const { order, reasoning } = (value ?? {}) as Partial<BroughtReply>;
  const n = slate.candidates.length;
  const whole =
    Array.isArray(order) && order.length === n && new Set(order).size === n && order.every((i) => isIndex(i, n));
  if (!whole) return `order must be a permutation of 0 to ${n - 1}`;
  if (typeof reasoning === "string") return undefined;
  if (!Array.isArray(reasoning)) return "reasoning must be text, or a list of texts, {candidate} and {history}";
  const bad = (reasoning as readonly unknown[]).findIndex((part) => !isPart(part, n, slate.history.length));
  return bad < 0
    ? undefined
    : `part ${bad + 1} of its reasoning is neither text nor the index of a candidate or history item`;
}

const isIndex = (i: unknown, n: number): boolean => Number.isInteger(i) && (i as number) >= 0 && (i as number) < n;

function isPart(part: unknown, candidates: number, history: number): boolean {
  if (typeof part !== "object" || part === null) return typeof part === "string";
  return "candidate" in part
    ? isIndex(part.candidate, candidates)
    : "history" in part && isIndex(part.history, history);
}

function toReply(reply: BroughtReply | null, { slate }: TeacherQuestion, { getHistory }: SlateReader): Reply {
  if (reply === null) return { kind: "unusable", reason: "no answer", detail: "the module gave none", text: "" };
  const history = getHistory(slate);
  const toWord = (part: ReasoningPart): string | number => {
    if (typeof part === "string") return part;
    return "candidate" in part ? (slate.candidates[part.candidate] as number) : (history[part.history] as number);
  };
  const parts = typeof reply.reasoning === "string" ? [reply.reasoning] : reply.reasoning;
  const reasoning: FreeReasoning = { words: parts.map(toWord) };
  return { kind: "ranking", order: reply.order, reasoning, seed: null, time: null, prompt: null };
}
