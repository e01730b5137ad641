/** The results table against trec_eval's measures (pytrec_eval), from the files that `gr2 trec` writes. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Metrics } from "../../src/artifacts/results.ts";
import { runPipeline } from "../../src/cli/pipeline.ts";
import { writeTrec } from "../../src/commands/trec.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import { RunFolder } from "../../src/run/run-folder.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { writeImpressionsFixture } from "../impressions-fixture.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-trec-"));
const root = join(folder, "runs");

beforeAll(async () => {
  mkdirSync(join(folder, "b"), { recursive: true });
  const common = { set: [], root, share: false, worker: new FakeWorker() };
  await runPipeline({ ...common, config: writePipelineFixture(join(folder, "a")), run: "one" }, { write: () => {} });
  await runPipeline({ ...common, config: writeImpressionsFixture(join(folder, "b")), run: "log" }, { write: () => {} });
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Means = Record<string, Record<string, number>>;

const judge = (out: string, qrels: string, runs: readonly string[]): Means =>
  JSON.parse(
    execFileSync(
      join(repositoryRoot, ".venv/bin/python"),
      [join(repositoryRoot, "tests/golden/trec.py"), join(out, qrels), ...runs.map((r) => join(out, r))],
      { encoding: "utf8" },
    ),
  ) as Means;

describe("gr2 trec", () => {
  it.each([
    { name: "one", what: "one positive a slate, and slates that miss it", slices: 2 },
    { name: "log", what: "several positives and graded labels", slices: 1 },
  ])("writes files from which pytrec_eval computes our numbers: $what", async ({ name, slices: numSlices }) => {
    const out = join(folder, `trec-${name}`);
    const { runs } = await writeTrec(RunFolder.view(root, name), out);
    const { rows } = JSON.parse(readFileSync(join(root, name, "metrics.json"), "utf8")) as Metrics;
    const slices = {
      conditional: judge(out, "qrels.conditional.txt", runs),
      end_to_end: judge(out, "qrels.txt", runs),
    };
    const compared = rows.filter((r) => r.metric !== "AUC");
    expect(compared.length).toBe(numSlices * 6 * runs.length);
    for (const r of compared)
      expect([r.system, r.slice, r.metric, slices[r.slice][r.system]?.[r.metric]]).toEqual([
        ...[r.system, r.slice, r.metric],
        expect.closeTo(r.value, 6),
      ]);
    // A comparison that cannot fail would prove nothing: orders turned round are seen.
    const lines = readFileSync(join(out, "prerank.run.txt"), "utf8").trimEnd().split("\n");
    const turned = lines.map((line) => line.replace(/ (\d+) (\d+) prerank$/, " $2 $1 prerank"));
    writeFileSync(join(out, "turned.run.txt"), `${turned.join("\n")}\n`);
    const before = slices.conditional.prerank?.["N@5"];
    expect(judge(out, "qrels.conditional.txt", ["turned.run.txt"]).turned?.["N@5"]).not.toBeCloseTo(before ?? 0, 3);
  });
});
