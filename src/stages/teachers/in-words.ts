/**
 * Opens a teacher that writes text: a model at an endpoint, whose answers are cached permanently in data.cacheDir (they
 * cost time or money), or one in the worker (worker.ts).
 *
 *   CACHE/teacher-answers/KEY.jsonl   every answer of one server and model, by question
 */
import { join } from "node:path";
import type { Corpus } from "../../artifacts/corpus.ts";
import type { Config } from "../../config/schema.ts";
import { hashJson } from "../../core/hash.ts";
import { AnswerLog } from "../../endpoint/answers.ts";
import { Budget } from "../../endpoint/budget.ts";
import { askAll } from "../../endpoint/endpoint.ts";
import type { ChatRequest } from "../../endpoint/request.ts";
import { Secret } from "../../endpoint/secret.ts";
import { describe } from "../../prompts/tasks.ts";
import { answerSchema } from "../../prompts/teacher-prompt.ts";
import type { StageContext } from "../../run/stage.ts";
import type { Teacher, TeacherQuestion } from "../../teacher/teacher.ts";
import { type Complete, type TextRequest, writingTeacher } from "../../teacher/words.ts";
import { openWorkerTeacher } from "./worker.ts";

/** Maximum characters of an item's description in the question. */
const maxDescription = 160;

export async function teacherInWords(context: StageContext, corpus: Corpus, seed: number): Promise<Teacher> {
  const { prompts, teacher: o } = context.config;
  const getHistory = ({ slate }: TeacherQuestion): number[] => {
    const items = corpus.split.dataset.sequences[slate.user]?.items ?? new Int32Array();
    return Array.from(items.subarray(Math.max(0, slate.position - prompts.historyItems), slate.position));
  };
  const kind = o.kind === "worker" ? "worker" : "openai";
  const { complete, close } = kind === "worker" ? await openWorkerTeacher(context) : openEndpoint(context, seed);
  return writingTeacher({
    kind,
    model: o.model,
    complete,
    close,
    getHistory,
    spell: (row) => corpus.catalogue.textAt(row),
    describe: (row) => {
      const item = corpus.items[row];
      return item ? describe({ ...item, description: "" }).slice(0, maxDescription) : "";
    },
    question: { knowledgePriming: prompts.knowledgePriming, maxWords: o.quality.maxWords },
    quality: o.quality,
    seed,
  });
}

/** All cached answers of the recipe's server and model, from any run. */
export function keptAnswers({ teacher, data }: Config): AnswerLog {
  const key = hashJson({ baseUrl: teacher.endpoint.baseUrl, model: teacher.model }).slice(0, 16);
  return new AnswerLog(join(data.cacheDir, "teacher-answers", `${key}.jsonl`));
}

function openEndpoint(context: StageContext, seed: number): { complete: Complete; close: () => Promise<void> } {
  const { config, signal } = context;
  const { endpoint: e, model } = config.teacher;
  const secret = Secret.fromEnvironment(e.apiKeyEnv);
  const { hostname, protocol } = new URL(e.baseUrl);
  if (e.apiKeyEnv !== "" && protocol === "http:" && !/^(localhost|127\.|\[::1\])/.test(hostname))
    context.log(`! ${e.baseUrl} is not encrypted: the key can be read in transit`);
  const budget = new Budget(e);
  const answers = keptAnswers(config);
  const options = {
    baseUrl: e.baseUrl,
    concurrency: e.concurrency,
    timeoutMs: 1000 * e.timeoutSeconds,
    maxRetries: e.maxRetries,
    backoffMs: 1000 * e.backoffSeconds,
    maxWaitMs: 1000 * e.maxWaitSeconds,
    maxFailures: e.maxFailures,
    seed,
  };
  return {
    complete: (wanted) =>
      askAll(
        wanted.map((w) => buildRequest(w, config)),
        options,
        { secret, budget, answers, signal, onAnswer: (d, t) => context.progress(`asking ${model}`, d, t) },
      ),
    close: async () => {
      const { requests, inputTokens, outputTokens } = budget.spent;
      const money = budget.cost > 0 ? `, ${budget.cost.toFixed(4)} in the currency of the configured prices` : "";
      context.log(
        `${requests} requests to ${model}, ${inputTokens} input and ${outputTokens} output tokens${money}; ` +
          `cached answers count as if requested again`,
      );
    },
  };
}

function buildRequest(wanted: TextRequest, config: Config): ChatRequest {
  const { endpoint, model, temperature, maxAnswerTokens } = config.teacher;
  const schema = { name: "answer", strict: true, schema: answerSchema(wanted.spellings) };
  const format = {
    none: undefined,
    json_object: { type: "json_object" },
    json_schema: { type: "json_schema", json_schema: schema },
  };
  const response_format = format[endpoint.structured];
  return {
    ...endpoint.extraBody,
    model,
    messages: [{ role: "user", content: wanted.prompt }],
    temperature,
    max_tokens: maxAnswerTokens,
    seed: wanted.seed,
    ...(response_format ? { response_format } : {}),
  };
}
