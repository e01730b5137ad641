/** What stage slates left: slates by segment, which of them re-ranking can change, and which train SFT. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { deriveSeed, unitHash } from "../core/rng.ts";
import type { LabelledSlate, SlateItems } from "../data/slate-items.ts";
import type { Item, Segment } from "../data/types.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import type { StageContext } from "../run/stage.ts";
import type { Corpus } from "./corpus.ts";
import { readLines } from "./files.ts";

/** All slates of a segment, misses included; of the mid-training segment those that prerank.trainSlates asks for. */
export function readSlates(context: StageContext, segment: Segment): Slate[] {
  const file = slateFile(context.inputDir("slates"), segment);
  return existsSync(file) ? readLines<Slate>(file) : [];
}

/** Slates with the true item among the candidates: what re-ranking can change. */
export const conditional = (list: readonly Slate[]): Slate[] => list.filter((s) => s.targetIndex >= 0);

/** Users whose rerank slates train SFT; the others' are reserved for RL. */
export const isSftUser = (seed: number, share: number, user: number): boolean =>
  unitHash(deriveSeed(seed, "sft-users"), user) < share;

/** A slate as the model and the prior see it. */
export const toSlateInput = (corpus: Corpus, slate: Slate, evidence?: Readonly<Record<string, readonly number[]>>) => ({
  ...(evidence ? { evidence: evidence[slate.id] as readonly number[] } : {}),
  history: (corpus.split.dataset.sequences[slate.user]?.items ?? new Int32Array()).subarray(0, slate.position),
  candidates: slate.candidates,
  scores: slate.scores,
});

/** A slate as a user's module sees it. @param latest number of history items */
export function toSlateItems(
  corpus: Pick<Corpus, "split" | "items">,
  slate: Pick<Slate, "id" | "user" | "position" | "candidates" | "scores">,
  latest: number,
): SlateItems {
  const { id, user, position, candidates, scores } = slate;
  const own = corpus.split.dataset.sequences[user]?.items ?? new Int32Array();
  const history = own.subarray(Math.max(0, position - latest), position);
  const findItem = (row: number): Item => corpus.items[row] as Item;
  return { id, history: Array.from(history, findItem), candidates: candidates.map(findItem), scores };
}

export const toLabelledSlate = (
  corpus: Pick<Corpus, "split" | "items">,
  slate: Slate,
  latest: number,
): LabelledSlate => ({ ...toSlateItems(corpus, slate, latest), labels: slateLabels(slate) });

export const slateFile = (dir: string, segment: Segment): string => join(dir, `${segment}.jsonl`);
