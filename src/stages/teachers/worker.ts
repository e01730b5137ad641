/**
 * A model in the worker as a teacher: loaded next to the policy, asked the same question as an endpoint, in its own
 * chat template. The start of the answer is given, and the ranking is constrained to permutations of the slate:
 * even a small model gives parseable answers. Its reasoning is unconstrained, up to the first quotation mark.
 */
import { WorkerError } from "../../core/errors.ts";
import { hashJson } from "../../core/hash.ts";
import { AnswerLog } from "../../endpoint/answers.ts";
import { pretrainedSource } from "../../models/base-model.ts";
import { chatFrame } from "../../prompts/chat.ts";
import { Encoder, text, turn } from "../../prompts/pieces.ts";
import { jsonParts } from "../../prompts/rerank.ts";
import type { StageContext } from "../../run/stage.ts";
import type { Complete, TextRequest, Written } from "../../teacher/words.ts";
import { Tokenizer } from "../../worker/tokenizer.ts";
import { type Completion, sampleAll, type WorkerClient } from "../../worker/types.ts";

const modelId = "teacher";
/** Questions per call; an interrupted stage resumes after the last complete call. */
const chunk = 64;

export async function openWorkerTeacher(
  context: StageContext,
): Promise<{ complete: Complete; close: () => Promise<void> }> {
  const { config, signal } = context;
  const { model: path, ggufFile } = config.teacher;
  const worker = await context.worker();
  const source = await pretrainedSource({ path, ggufFile }, config, (line) => context.log(line), signal);
  const loaded = await worker.loadModel({ modelId, source, dtype: config.runtime.dtype, trainable: false }, { signal });
  const tokenizer = Tokenizer.fromJson(loaded.tokenizerJson);
  const eos = tokenizer.idToken(loaded.eosTokenId) ?? "";
  const specialTokens = [...tokenizer.special.values()];
  const chat =
    loaded.chatTemplate === ""
      ? undefined
      : chatFrame({ template: loaded.chatTemplate, bosToken: loaded.bosToken, eosToken: eos, specialTokens });
  const encoder = new Encoder(
    { encode: (s) => tokenizer.encode(s), tokenId: (t) => tokenizer.requireTokenId(t) },
    { tokensAt: () => [] },
    { special: tokenizer.special, chat },
  );
  const asked = { worker, tokenizer, encoder, eosToken: loaded.eosTokenId, config, signal };
  const answers = new AnswerLog(context.work("answers.jsonl"));
  return {
    close: () => worker.unloadModel(modelId, { signal }),
    async complete(wanted) {
      const out: Written[] = [];
      for (let start = 0; start < wanted.length; start += chunk) {
        const part = wanted.slice(start, start + chunk);
        const keys = part.map(({ prompt, seed }) => hashJson({ prompt, seed, path, teacher: config.teacher }));
        const kept = keys.map((key) => answers.get(key));
        const texts = kept.every((k) => k !== undefined) ? kept.map((k) => k?.text ?? "") : await answer(part, asked);
        texts.forEach((text, i) => {
          const key = keys[i] as string;
          const cut = !text.includes(jsonParts.answer); // unfinished reasoning
          if (!kept[i])
            answers.add({ key, text, cut, time: new Date().toISOString(), inputTokens: 0, outputTokens: 0 });
          out.push({ kind: "text", text, cut, time: null });
        });
        context.progress(`asking ${path}`, out.length, wanted.length);
      }
      return out;
    },
  };
}

interface Asked {
  readonly worker: WorkerClient;
  readonly tokenizer: Tokenizer;
  readonly encoder: Encoder;
  readonly eosToken: number;
  readonly config: StageContext["config"];
  readonly signal: AbortSignal;
}

/** The answers of one call as whole JSON texts; reasoning that was never closed stays unparseable. */
async function answer(part: readonly TextRequest[], o: Asked): Promise<string[]> {
  const { worker, tokenizer, encoder, config, signal } = o;
  const common = {
    modelId,
    temperature: config.teacher.temperature,
    seed: part[0]?.seed ?? 0,
    maxBatchTokens: config.runtime.sampleBatchTokens,
  };
  const prompts = part.map(({ prompt }) =>
    encoder.encode([turn("question"), text(prompt), turn("answer"), text(jsonParts.open)]),
  );
  const sampled = await sampleAll(
    worker,
    {
      ...common,
      prompts,
      maxNewTokens: config.teacher.maxAnswerTokens,
      stopTokens: [...quotingTokens(tokenizer), ...(o.eosToken >= 0 ? [o.eosToken] : [])],
    },
    undefined,
    { signal },
  );
  const written = sampled.completions.map((c) => readReasoning(c[0], tokenizer));
  const closed = written.flatMap((w, i) => (w.closed ? [i] : []));
  const rankings = new Map<number, string>();
  if (closed.length > 0) {
    const encoded = (s: string): number[] => encoder.encode([text(s)]);
    const spellings = closed.map((i) => (part[i] as TextRequest).spellings);
    const { completions } = await sampleAll(
      worker,
      {
        ...common,
        prompts: closed.map((i) => [
          ...(prompts[i] as number[]),
          ...encoded((written[i] as SampledReasoning).text + jsonParts.answer),
        ]),
        maxNewTokens: Math.max(
          ...spellings.map(
            (s) => encoded(s.join(jsonParts.separator)).length + s.length + encoded(jsonParts.close).length,
          ),
        ),
        constraint: {
          groups: spellings.map((s) => ({ sequences: s.map(encoded) })),
          separator: encoded(jsonParts.separator),
          terminator: encoded(jsonParts.close),
          wholeSequences: true,
        },
      },
      undefined,
      { signal },
    );
    closed.forEach((i, k) => {
      rankings.set(i, tokenizer.decode(completions[k]?.[0]?.tokens ?? []));
    });
  }
  return written.map((w, i) => {
    const ranking = rankings.get(i);
    return jsonParts.open + w.text + (ranking === undefined ? "" : jsonParts.answer + ranking);
  });
}

interface SampledReasoning {
  readonly text: string;
  /** Whether it ended with a quotation mark. */
  readonly closed: boolean;
}

function readReasoning(completion: Completion | undefined, tokenizer: Tokenizer): SampledReasoning {
  if (!completion) throw new WorkerError("the worker returned no answer from the teacher", { retryable: true });
  const written = tokenizer.decode(completion.tokens);
  const at = written.indexOf('"');
  return at < 0 ? { text: written, closed: false } : { text: written.slice(0, at), closed: true };
}

const quoting = new WeakMap<Tokenizer, number[]>();

/** All tokens that contain a quotation mark. */
function quotingTokens(tokenizer: Tokenizer): number[] {
  let ids = quoting.get(tokenizer);
  if (!ids) {
    ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) =>
      tokenizer.idToken(id)?.includes('"'),
    );
    quoting.set(tokenizer, ids);
  }
  return ids;
}
