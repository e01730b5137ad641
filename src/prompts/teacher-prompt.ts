/**
 * The question for a teacher that reads and writes words (GR2 v1 §4): the wording of the json prompt with titles and
 * semantic IDs spelled out, in one message, because not every chat template has a system role. parse.ts reads the
 * answer.
 */
import { instructions, knowledge } from "./rerank.ts";

export interface TeacherPromptInput {
  /** Item rows, oldest first. */
  readonly history: readonly number[];
  /** In pre-rank order. */
  readonly candidates: readonly number[];
  /** The row revealed as the user's choice (targeted sampling); null: the teacher has to find it. */
  readonly chosen: number | null;
  readonly spell: (row: number) => string;
  /** What is known of an item, in words. */
  readonly describe: (row: number) => string;
}

export interface TeacherPromptOptions {
  readonly knowledgePriming: boolean;
  readonly maxWords: number;
}

export function renderTeacherPrompt(input: TeacherPromptInput, options: TeacherPromptOptions): string {
  const listed = (rows: readonly number[]): string[] =>
    rows.map((row) => `${input.spell(row)} ${input.describe(row)}`.trimEnd());
  const { chosen } = input;
  return [
    `${instructions.task}${options.knowledgePriming ? ` ${knowledge}` : ""}`,
    instructions.history,
    ...listed(input.history),
    instructions.candidates,
    ...listed(input.candidates),
    ...(chosen === null
      ? []
      : [`The user chose ${input.spell(chosen)} next. Explain from the history why, and rank it first.`]),
    `${instructions.steps} Write the reasoning in English, in at most ${options.maxWords} words, as one line.`,
    instructions.answer,
  ].join("\n");
}

/** JSON schema of the answer, for servers that can enforce one. */
export const answerSchema = (spellings: readonly string[]) => ({
  type: "object",
  properties: {
    reasoning: { type: "string" },
    ranking: {
      type: "array",
      items: { type: "string", enum: [...spellings] },
      minItems: spellings.length,
      maxItems: spellings.length,
    },
  },
  required: ["reasoning", "ranking"],
  additionalProperties: false,
});
