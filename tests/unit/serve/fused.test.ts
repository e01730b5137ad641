/**
 * A service over fused pre-rankers: its answers to the run's own test slates are the evaluated ones, whatever the folds
 * and the refit; a pre-ranker that no request can ask is refused at the start.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readJson, readLines, readScores } from "../../../src/artifacts/files.ts";
import { loadDataset } from "../../../src/data/cache.ts";
import type { Dataset } from "../../../src/data/types.ts";
import { softmax } from "../../../src/eval/choice-model.ts";
import { computePrior, orderBy, type Prior } from "../../../src/policy/prior.ts";
import type { Slate } from "../../../src/prerank/types.ts";
import { openServedRun } from "../../../src/serve/model/served-run.ts";
import type { RerankRequest } from "../../../src/serve/request/types.ts";
import { makeRequest, makeRuns, setUp } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-serve-fused-"));
let root = "";
const fused = ["prerank.kind=fused", "prerank.candidates=8", "prerank.depth=10", "prerank.sasrec.maxEpochs=2"];
const quick = ["rl.steps=1", "rl.prompts=2", "sft.epochs=0.3", "eval.controls=false", "decoding.evidence=true"];

beforeAll(async () => {
  const mine = join(folder, "mine.csv");
  writeFileSync(mine, `user,item,score\n${Array.from({ length: 30 }, (_, i) => `u1,i${i},${i}`).join("\n")}\n`);
  root = await makeRuns(folder, {
    segments: [...fused, ...quick],
    refit: [...fused, ...quick, "refit=true"],
    folds: [...fused, ...quick, "refit=true", "prerank.folds=3", "prerank.trainSlates=200"],
    beams: [...fused, ...quick, "prerank.experts=[itemknn,generative]"],
    own: [...fused, ...quick, "prerank.experts=[itemknn]", `prerank.scores.mine=${mine}`],
  });
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const stage = (run: string, name: string): string => join(root, run, "stages", name);

/** What a caller with the run's own slate sends. */
function ask(dataset: Dataset, slate: Slate, change: Partial<RerankRequest> = {}): RerankRequest {
  const itemIdAt = (row: number): string => dataset.items[row]?.id as string;
  const rows = Array.from(dataset.sequences[slate.user]?.items.subarray(0, slate.position) ?? []);
  return {
    ...makeRequest([]),
    history: rows.map((row) => ({ itemId: itemIdAt(row) })),
    candidates: slate.candidates.map((row, i) => ({
      id: String(row),
      itemId: itemIdAt(row),
      score: slate.scores[i] as number,
    })),
    ...change,
  };
}

describe.each(["segments", "refit", "folds", "beams"])("run %s", (run) => {
  it.each(["evidence", "prior"])(
    "answers its test slates by %s as evaluation does",
    async (system) => {
      const { engine, workers } = await setUp(root, run, { set: [`serve.system=${system}`] });
      const dataset = await loadDataset(stage(run, "data"));
      const evidence = readScores(stage(run, "evidence"), "evidence");
      const prior = readJson<Record<string, Prior>>(join(stage(run, "evaluate"), "priors.json"))[system] as Prior;
      expect(prior.evidence).not.toBe(0);
      const slates = readLines<Slate>(join(stage(run, "slates"), "test.jsonl"));
      // There is something to get wrong: pre-rankers speak of most candidates, and are silent on others.
      const said = slates.flatMap((s) => Object.values(s.experts ?? {}).flat());
      expect(said.filter((x) => x !== null).length).toBeGreaterThan(said.length / 4);
      expect(said).toContain(null);
      for (const slate of slates) {
        const scores = computePrior(prior, { scores: slate.scores, evidence: evidence[slate.id] as number[] });
        const chances = softmax(scores);
        const answer = await engine.rerank(ask(dataset, slate));
        expect(answer.fallback).toBeUndefined();
        expect(answer.ranking.map((r) => r.position)).toEqual(orderBy(scores));
        for (const r of answer.ranking) expect(r.score).toBeCloseTo(chances[r.position] as number, 12);
      }
      expect(slates.length).toBeGreaterThan(60);
      expect(workers.flatMap((w) => w.batches)).toEqual([]);
    },
    60_000,
  );
});

describe("a pre-ranker that no request can ask", () => {
  it("is refused at the start, with what to do", async () => {
    await expect(openServedRun(root, "own", ["serve.system=evidence"])).rejects.toThrow(
      /prerank\.scores\.mine.*which requests do not contain/,
    );
  });
});
