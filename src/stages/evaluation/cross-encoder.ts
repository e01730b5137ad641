/**
 * The baseline `minilm`: a cross-encoder reads the titles of the history and one candidate together (settings
 * eval.crossEncoder). Learns from the slates that the language model and the evidence learn from: re-rank slates that
 * contain their true item. Slates it is judged on go to the worker without their answers.
 */
import { conditional, readSlates } from "../../artifacts/slates.ts";
import { deriveSeed, Rng } from "../../core/rng.ts";
import type { Item } from "../../data/types.ts";
import { embedderPath, itemText } from "../../models/embedder.ts";
import type { Slate } from "../../prerank/types.ts";
import type { TextGroup } from "../../worker/cross-encoder-types.ts";
import { type SystemResult, scored } from "./answers.ts";
import type { Asked } from "./asked.ts";

export async function crossEncoderAnswers(asked: Asked): Promise<SystemResult[]> {
  const { context, corpus, validation, test } = asked;
  const { config, signal } = context;
  const { slates, historyItems, batchSlates, epochs, learningRate, maxTokens } = config.eval.crossEncoder;
  const toGroup = (slate: Slate): TextGroup => {
    const { items } = corpus.split.dataset.sequences[slate.user] ?? { items: new Int32Array() };
    const history = items.subarray(Math.max(0, slate.position - historyItems), slate.position);
    const find = (row: number): Item => corpus.items[row] as Item;
    return {
      query: Array.from(history, (row) => find(row).title).join("; "),
      candidates: slate.candidates.map((row) => itemText(find(row), ["title", "brand", "categories"])),
    };
  };
  const learned = Rng.of(config.seed, "cross-encoder")
    .shuffle(conditional(readSlates(context, "rerank")))
    .slice(0, slates)
    .map((s) => ({ ...toGroup(s), target: s.targetIndex }));
  const worker = await context.worker();
  const log = (message: string): void => context.log(message);
  const scores = await worker.fitCrossEncoder(
    {
      modelPath: await embedderPath(config, log, signal),
      groups: [...learned, ...validation.map(toGroup), ...test.map(toGroup)],
      config: {
        ...{ epochs, learningRate, maxTokens, batchGroups: batchSlates },
        seed: deriveSeed(config.seed, "cross-encoder"),
      },
    },
    ({ epoch, epochs: total }) => context.progress("minilm, slates", epoch, total),
    { signal },
  );
  return [
    scored("minilm", asked, { validation: scores.slice(0, validation.length), test: scores.slice(validation.length) }),
  ];
}
