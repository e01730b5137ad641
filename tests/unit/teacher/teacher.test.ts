import { describe, expect, it } from "vitest";
import { splitByPosition, trainingView } from "../../../src/data/split.ts";
import { itemTable } from "../../../src/evidence/items.ts";
import { fitLatentFactors } from "../../../src/evidence/latent.ts";
import { Statistics } from "../../../src/evidence/statistics.ts";
import { fitItemKnn } from "../../../src/prerank/item-knn.ts";
import { fitPopularity } from "../../../src/prerank/popularity.ts";
import type { Slate } from "../../../src/prerank/types.ts";
import { sampleTraces, statisticalTeacher } from "../../../src/teacher/sampling.ts";
import { type StatisticalTeacher, supportFor } from "../../../src/teacher/statistical.ts";
import { hideAnswer } from "../../../src/teacher/unlabelled-slate.ts";
import { buildAllSlates } from "../../build-all-slates.ts";
import { walkers } from "../synthetic.ts";

const data = splitByPosition(walkers(150, 100, 30));
const { slates } = await buildAllSlates(data, (view) => fitPopularity(view), {
  size: 30,
  repeats: "unseen",
  minHistory: 1,
});
const early = trainingView(data, "midtrain");
const statistics = new Statistics(early, false);
const table = itemTable(data.dataset.items);
/** Orders by co-occurrence with the last item. */
const teacher: StatisticalTeacher = {
  scores({ user, position, candidates }) {
    const last = data.dataset.sequences[user]?.items[position - 1] ?? 0;
    return candidates.map((c) => 9 * statistics.similarity(last, c));
  },
  evidence: (slate) => supportFor(data.dataset, table, statistics, slate),
};
const conditional = (list: readonly Slate[]): Slate[] => list.filter((s) => s.targetIndex >= 0);
describe("latent factors", () => {
  it("are orthonormal", () => {
    const { dimensions: D, factors_ID: V } = fitLatentFactors(early, 6);
    for (let a = 0; a < D; a++) {
      for (let b = 0; b <= a; b++) {
        let dot = 0;
        for (let i = 0; i < 100; i++) dot += (V[i * D + a] ?? 0) * (V[i * D + b] ?? 0);
        expect(dot).toBeCloseTo(a === b ? 1 : 0, 9);
      }
    }
  });
});

describe("statistical teacher", () => {
  it("gives evidence from the history only, the same whatever the answer", () => {
    for (const s of slates.rerank.slice(0, 50)) {
      const evidence = teacher.evidence(hideAnswer(s));
      const history = Array.from(data.dataset.sequences[s.user]?.items.subarray(0, s.position) ?? []);
      expect(evidence.dominantCategories.length).toBeLessThanOrEqual(3);
      expect(new Set(evidence.support.map((x) => x.candidate)).size).toBe(evidence.support.length);
      for (const { candidate, because } of evidence.support) {
        expect(candidate).toBeLessThan(s.candidates.length);
        expect(because.length).toBeGreaterThan(0);
        for (const h of because) expect(history).toContain(h);
      }
    }
    expect(Object.keys(hideAnswer(slates.rerank[0] as Slate))).not.toContain("target");
    expect(Object.keys(hideAnswer(slates.rerank[0] as Slate))).not.toContain("targetIndex");
  });
});

const knn = await buildAllSlates(data, (view) => fitItemKnn(view));

describe("sampling traces", () => {
  const list = conditional(knn.slates.rerank);
  const options = { mode: "rejection", maxTries: 3 } as const;
  const asked = (fitted: StatisticalTeacher) =>
    statisticalTeacher(fitted, { temperature: 1, seed: 4, explainChoice: () => ({ words: [] }) });

  it("rejection keeps only traces whose own first choice is the answer, within the bound", async () => {
    const { traces, stats } = await sampleTraces(asked(teacher), knn.slates.rerank, options);
    const byId = new Map(list.map((s) => [s.id, s]));
    for (const t of traces) {
      expect(t.ranking[0]).toBe(byId.get(t.slateId)?.targetIndex);
      expect([...t.ranking].sort((a, b) => a - b)).toEqual(t.ranking.map((_, k) => k));
      expect(t.tries).toBeLessThanOrEqual(3);
    }
    expect(stats.offered).toBe(list.length);
    expect(stats.accepted).toBe(traces.length);
    expect(stats.accepted).toBeGreaterThan(0);
    expect(stats.accepted).toBeLessThan(stats.offered);
    expect(stats.offeredByPosition.reduce((a, b) => a + b, 0)).toBe(stats.offered);
  });

  it("depends on seed and slate, not on order; more tries accept more; certainty is accepted at once", async () => {
    const forward = (await sampleTraces(asked(teacher), list, options)).traces;
    const backward = (await sampleTraces(asked(teacher), [...list].reverse(), options)).traces;
    expect([...backward].reverse()).toEqual(forward);
    expect((await sampleTraces(asked(teacher), list, { ...options, maxTries: 9 })).stats.accepted).toBeGreaterThan(
      forward.length,
    );
    const sure: StatisticalTeacher = { ...teacher, scores: (s) => s.candidates.map((_, k) => (k === 2 ? 50 : 0)) };
    const stats = (await sampleTraces(asked(sure), list, options)).stats;
    expect(stats.acceptanceByPosition.map((a) => Math.round(a))).toEqual(
      stats.offeredByPosition.map((n, k) => (k === 2 && n > 0 ? 1 : 0)),
    );
  });

  it("the teacher is never handed the answer, in either mode", async () => {
    for (const mode of ["rejection", "targeted"] as const) {
      const spy: StatisticalTeacher = {
        ...teacher,
        scores(s) {
          expect(s).not.toHaveProperty("target");
          expect(s).not.toHaveProperty("targetIndex");
          expect(s).not.toHaveProperty("labels");
          return teacher.scores(s);
        },
      };
      await sampleTraces(asked(spy), list.slice(0, 20).map(labelled), { ...options, mode });
    }
  });

  /** Two best labels, at the first and the third candidate, and a lesser one at the second. */
  const labelled = (s: Slate): Slate => ({
    ...s,
    labels: s.candidates.map((_, k) => [2, 1, 2][k] ?? 0),
    targetIndex: 0,
    target: s.candidates[0] as number,
  });

  it("of several labels accepts a first choice among the best, and orders the rest by label, then by score", async () => {
    const scores = [0, 9, 50, 0, 1, 2, 0, 0, 0, 0];
    const sure: StatisticalTeacher = { ...teacher, scores: () => scores };
    const few = list.slice(0, 5).map(labelled);
    const { traces, stats } = await sampleTraces(asked(sure), few, options);
    expect(stats.acceptance).toBe(1);
    for (const t of traces) expect(t.ranking).toEqual([2, 0, 1, 5, 4, 3, 6, 7, 8, 9]);
    const lesser: StatisticalTeacher = { ...teacher, scores: () => [0, 50, 0, 0, 0, 0, 0, 0, 0, 0] };
    expect((await sampleTraces(asked(lesser), few, options)).stats.accepted).toBe(0);
  });

  it("can leave the others as the input had them: an answer that was first gives a trace that copies", async () => {
    const { traces, stats } = await sampleTraces(asked(teacher), list, { ...options, mode: "targeted", rest: "input" });
    for (const [k, t] of traces.entries())
      expect(t.ranking.slice(1)).toEqual(
        list[k]?.candidates.map((_, i) => i).filter((i) => i !== list[k]?.targetIndex),
      );
    expect(stats.identityRate).toBeCloseTo((stats.offeredByPosition[0] ?? 0) / list.length, 12);
    expect(stats.identityRate).toBeGreaterThan(0);
  });

  it("targeted puts the answer first, always", async () => {
    const { traces, stats } = await sampleTraces(asked(teacher), knn.slates.rerank, { ...options, mode: "targeted" });
    expect(stats.acceptance).toBe(1);
    expect(traces.every((t, k) => t.ranking[0] === list[k]?.targetIndex)).toBe(true);
  });
});
