/**
 * The stage evidence by itself, with the listwise model (no worker): it finds what there is to find, is out of sample
 * where there is nothing, and no user's own answers play a part in that user's scores.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { splitOptions } from "../../src/artifacts/dataset.ts";
import { embeddingFile } from "../../src/artifacts/embeddings.ts";
import { openEvidence } from "../../src/artifacts/evidence.ts";
import { readScores, writeLines, writeMatrix } from "../../src/artifacts/files.ts";
import { compileConfig } from "../../src/config/load.ts";
import { Rng } from "../../src/core/rng.ts";
import { saveDataset } from "../../src/data/cache.ts";
import { split, trainingView } from "../../src/data/split.ts";
import type { Dataset } from "../../src/data/types.ts";
import { Features } from "../../src/evidence/features.ts";
import { itemTable } from "../../src/evidence/items.ts";
import { fitListwise } from "../../src/evidence/model.ts";
import { Statistics } from "../../src/evidence/statistics.ts";
import { fitPopularity } from "../../src/prerank/popularity.ts";
import type { SlateSegment } from "../../src/prerank/slates.ts";
import { type Slate, targetDistribution } from "../../src/prerank/types.ts";
import type { StageContext, StageName } from "../../src/run/stage.ts";
import { evidence } from "../../src/stages/evidence.ts";
import { buildAllSlates } from "../build-all-slates.ts";
import { makeDataset, walkers } from "../unit/synthetic.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-evidence-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const size = 10;
const config = compileConfig(
  { seed: 5, prerank: { kind: "popularity", candidates: size }, evidence: { model: "listwise", midtrainFolds: 3 } },
  "test",
);
type Slates = Record<SlateSegment, Slate[]>;

async function collectSlates(dataset: Dataset): Promise<Slates> {
  const data = split(dataset, splitOptions(config.data.split));
  const options = { size, repeats: "unseen", minHistory: 1 } as const;
  return (await buildAllSlates(data, (view) => fitPopularity(view), options)).slates;
}

/** Runs the stage on a data set and slates of it; returns the scores and where they are. */
async function judge(name: string, dataset: Dataset, slates: Slates) {
  const stageDir = (stage: StageName): string => join(root, name, stage);
  for (const stage of ["data", "embed", "slates", "evidence"] as const) mkdirSync(stageDir(stage), { recursive: true });
  await saveDataset(dataset, stageDir("data"));
  const rows = dataset.items.length;
  const rng = Rng.of(0, "embeddings");
  const data = Float32Array.from({ length: 4 * rows }, () => rng.uniform());
  writeMatrix(embeddingFile(stageDir("embed")), { rows, cols: 4, data });
  for (const [segment, list] of Object.entries(slates)) writeLines(join(stageDir("slates"), `${segment}.jsonl`), list);
  const nothing = (): void => {};
  const context: StageContext = {
    ...{ config, dir: stageDir("evidence"), inputDir: stageDir, work: stageDir as (name: string) => string },
    ...{ signal: new AbortController().signal, log: nothing, progress: nothing, metrics: nothing, rollout: nothing },
    worker: () => Promise.reject(new Error("no worker is needed")),
    cursor: { read: () => undefined, write: nothing },
  };
  await evidence.run(context);
  return { scores: readScores(stageDir("evidence"), "evidence"), dir: stageDir("evidence") };
}

const hits = (list: readonly Slate[]): Slate[] => list.filter((s) => s.targetIndex >= 0);
const firstShare = (list: readonly Slate[], scoreSlates: (s: Slate) => readonly number[]): number =>
  list.filter((s) =>
    scoreSlates(s).every((x, i) => i === s.targetIndex || x < (scoreSlates(s)[s.targetIndex] as number)),
  ).length / list.length;

describe("the stage evidence", () => {
  it("orders held-out slates far better than the pre-rank where there is something to find", async () => {
    const dataset = walkers(150, 40, 24);
    const slates = await collectSlates(dataset);
    const { scores } = await judge("walkers", dataset, slates);
    for (const segment of ["rerank", "validation", "test"] as const) {
      const list = hits(slates[segment]);
      expect(list.length).toBeGreaterThan(60);
      const before = firstShare(list, (s) => s.candidates.map((_, k) => -k));
      expect(firstShare(list, (s) => scores[s.id] as readonly number[])).toBeGreaterThan(before + 0.15);
      // Misses are scored as well.
      expect(slates[segment].every((s) => scores[s.id]?.length === size)).toBe(true);
    }
  });

  it("finds nothing in sequences drawn at random, in which a model that is not out of sample finds much", async () => {
    const rng = Rng.of(11, "random");
    const sequences = Array.from({ length: 150 }, () =>
      rng.shuffle(Array.from({ length: 60 }, (_, i) => i)).slice(0, 24),
    );
    const dataset = makeDataset(sequences, 60);
    const slates = await collectSlates(dataset);
    const { scores } = await judge("random", dataset, slates);
    const list = hits([...slates.rerank, ...slates.validation, ...slates.test]);
    const error = Math.sqrt((0.1 * 0.9) / list.length);
    expect(Math.abs(firstShare(list, (s) => scores[s.id] as readonly number[]) - 1 / size)).toBeLessThan(3.5 * error);
    // The leak, planted: statistics that hold the answers, and weights judged on the slates they were fitted on.
    const data = split(dataset, splitOptions(config.data.split));
    const leaky = new Features(itemTable(dataset.items), new Statistics(trainingView(data, "test"), false), [
      "collaborative",
    ]);
    const lessons = list.map((s) => {
      const history = dataset.sequences[s.user]?.items.subarray(0, s.position) ?? new Int32Array();
      const features_NF = leaky.of({ history, now: 0, candidates: s.candidates, scores: s.scores });
      return { features_NF, numCandidates: size, truth_N: targetDistribution(s) };
    });
    const model = fitListwise(leaky.names, lessons, 30);
    const seen = new Map(list.map((s, i) => [s.id, model.scores(lessons[i]?.features_NF ?? new Float32Array(), size)]));
    expect(firstShare(list, (s) => seen.get(s.id) as readonly number[])).toBeGreaterThan(1 / size + 10 * error);
  });

  it("does not let a user's own answers into that user's scores", async () => {
    const dataset = walkers(60, 40, 24);
    const slates = await collectSlates(dataset);
    const { scores } = await judge("before", dataset, slates);
    const user = hits(slates.rerank)[0]?.user as number;
    // Another item is chosen wherever one of the user's slates had a hit, in whichever segment.
    const other = (s: Slate): Slate => {
      if (s.user !== user || s.targetIndex < 0) return s;
      const targetIndex = (s.targetIndex + 3) % size;
      return { ...s, targetIndex, target: s.candidates[targetIndex] as number };
    };
    const changed = {
      rerank: slates.rerank.map(other),
      validation: slates.validation.map(other),
      test: slates.test.map(other),
    };
    const { scores: after } = await judge("after", dataset, changed);
    const own = slates.rerank.filter((s) => s.user === user);
    expect(own.length).toBeGreaterThan(0);
    for (const s of own) expect(after[s.id]).toEqual(scores[s.id]);
    // It does teach what is said of others.
    expect(slates.test.some((s) => after[s.id]?.join() !== scores[s.id]?.join())).toBe(true);
    // Validation and test answers teach nobody.
    const { scores: late } = await judge("late", dataset, { ...changed, rerank: slates.rerank });
    expect(late).toEqual(scores);
  });

  it("opens to what test slates were scored with", async () => {
    const dataset = walkers(60, 40, 24);
    const slates = await collectSlates(dataset);
    const { scores, dir } = await judge("opened", dataset, slates);
    const data = split(dataset, splitOptions(config.data.split));
    const { model, features } = openEvidence(dir, dataset.items, new Statistics(trainingView(data, "rerank"), true));
    for (const s of slates.test) {
      const { items, times } = dataset.sequences[s.user] as Dataset["sequences"][number];
      const input = { history: items.subarray(0, s.position), now: times[s.position - 1] as number };
      const own = features.of({ ...input, candidates: s.candidates, scores: s.scores });
      expect(model.scores(own, size)).toEqual(scores[s.id]);
    }
  });
});
