/**
 * Baselines in the results table on a fake worker: each pre-ranker by its own list, scores from a file.
 * Nothing about quality.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Metrics } from "../../src/artifacts/results.ts";
import { ndcgAt } from "../../src/eval/metrics.ts";
import { type Slate, slateLabels } from "../../src/prerank/types.ts";
import type { FitCrossEncoderRequest } from "../../src/worker/cross-encoder-types.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { makeRuns } from "../service-fixture.ts";

const asked: FitCrossEncoderRequest[] = [];
const real = FakeWorker.prototype.fitCrossEncoder;
FakeWorker.prototype.fitCrossEncoder = function (this: FakeWorker, request, ...rest) {
  asked.push(request);
  return real.call(this, request, ...rest);
};

const folder = mkdtempSync(join(tmpdir(), "gr2-baselines-"));
let root = "";
const common = ["prerank.kind=fused", "prerank.sasrec.maxEpochs=2", "prerank.sasrec.validationUsers=20", "rl.steps=0"];

beforeAll(async () => {
  root = await makeRuns(folder, { plain: common });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const slates = (segment: string): Slate[] =>
  readFileSync(join(root, "plain/stages/slates", `${segment}.jsonl`), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Slate);
const metrics = (run: string): Metrics => JSON.parse(readFileSync(join(root, run, "metrics.json"), "utf8"));
const value = (m: Metrics, system: string, slice: string): number | undefined =>
  m.rows.find((r) => r.system === system && r.slice === slice && r.metric === "N@5")?.value;

describe("baselines", () => {
  it("are each pre-ranker of a fused list, end to end by the list it would have shown alone", () => {
    const m = metrics("plain");
    const test = slates("test");
    const [first] = test;
    const names = Object.keys(first?.experts ?? {});
    expect(names).toEqual(["popularity", "itemknn", "sasrec"]);
    const score = (list: readonly Slate[], name: string): number =>
      list.reduce((sum, s) => sum + ndcgAt(s.targetRanks?.[name] ?? Number.POSITIVE_INFINITY, 5), 0) / list.length;
    for (const name of names) expect(value(m, `prerank_${name}`, "end_to_end")).toBeCloseTo(score(test, name), 9);
    const validation = slates("validation");
    const best = names.reduce((top, name) => (score(validation, name) > score(validation, top) ? name : top));
    expect(m.best_preranker).toBe(`prerank_${best}`);
    for (const system of ["prerank", "evidence", "sft_direct"])
      expect(m.comparisons.some((c) => c.system === system && c.baseline === m.best_preranker)).toBe(true);
    for (const system of ["popularity", "lambdamart", "listwise", "prior", "evidence"])
      expect(value(m, system, "conditional")).toBeGreaterThan(0);
    expect(m.systems.find((s) => s.name === m.best_preranker)).toMatchObject({ kind: "baseline", servable: false });
  });

  it("are a pretrained model before any training, by the same prompt and by titles; one from scratch is not asked", async () => {
    const pretrained = ["model.source=pretrained", "model.path=fake", "decoding.maxReasoningTokens=200", "rl.steps=0"];
    await makeRuns(folder, {
      base: ["prompts.format=json", "eval.controls=false", ...pretrained],
      tuned: ["prompts.format=json", "eval.controls=false", "eval.zeroShot=false", ...pretrained],
    });
    const m = metrics("base");
    for (const system of ["zero_shot", "zero_shot_titles"]) {
      expect(value(m, system, "conditional")).toBeGreaterThan(0);
      expect(m.systems.find((s) => s.name === system)).toMatchObject({ kind: "baseline", servable: false });
      for (const other of ["plain", "tuned"]) expect(value(metrics(other), system, "conditional")).toBeUndefined();
    }
    const tokens = (system: string) => m.systems.find((s) => s.name === system)?.prompt_tokens ?? 0;
    expect(tokens("zero_shot")).toBe(tokens("sft_nothink")); // the same prompts
    expect(value(m, "sft_nothink", "conditional")).toBe(value(metrics("tuned"), "sft_nothink", "conditional"));
  }, 60_000);

  it("are a cross-encoder that is told the answers of re-rank slates alone", async () => {
    await makeRuns(folder, { encoder: [...common, "eval.crossEncoder.slates=20", "eval.crossEncoder.historyItems=2"] });
    expect(value(metrics("encoder"), "minilm", "conditional")).toBeGreaterThan(0);
    expect(value(metrics("plain"), "minilm", "conditional")).toBeUndefined();
    const hits = (segment: string) => slates(segment).filter((s) => s.targetIndex >= 0).length;
    const [request] = asked.filter(({ groups }) => groups.length > 0);
    const learned = request?.groups.filter((g) => g.target !== undefined) ?? [];
    expect(learned).toHaveLength(Math.min(20, hits("rerank")));
    expect(request?.groups).toHaveLength(learned.length + hits("validation") + hits("test"));
    expect(learned[0]?.query).toMatch(/^Film number \d+ \(\d+\); Film number \d+ \(\d+\)$/);
    expect(learned[0]?.candidates[0]).toMatch(/^Film number \d+ \(\d+\)\. (Drama|Comedy|Western)/);
  }, 60_000);

  it("are scores from a file: the labels themselves put every true item first", async () => {
    const path = join(folder, "perfect.jsonl");
    const lines = [...slates("validation"), ...slates("test")].map((s) =>
      JSON.stringify({ slate: s.id, scores: slateLabels(s) }),
    );
    writeFileSync(path, `${lines.join("\n")}\n`);
    await makeRuns(folder, { brought: [...common, `eval.baselines.cross_encoder=${path}`] });
    const m = metrics("brought");
    expect(value(m, "cross_encoder", "conditional")).toBe(1);
    expect(m.recommendation.system).not.toBe("cross_encoder"); // it cannot be served

    const hit = slates("validation").findIndex((s) => s.targetIndex >= 0);
    writeFileSync(path, `${lines.filter((_, i) => i !== hit).join("\n")}\n`);
    const again = () => makeRuns(folder, { brought: [...common, `eval.baselines.cross_encoder=${path}`] });
    await expect(again()).rejects.toThrow(/has no line/);
    await expect(makeRuns(folder, { other: [...common, "eval.baselines.evidence=package.json"] })).rejects.toThrow(
      /GR2 already has a system with this name/,
    );
    await expect(makeRuns(folder, { third: [...common, "eval.baselines.x=/nowhere"] })).rejects.toThrow(
      /cannot be read/,
    );
  }, 120_000);
});
