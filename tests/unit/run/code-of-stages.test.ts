/**
 * Which stages a change of a file reruns: the code of every stage, as the pipeline plans it, in this very repository.
 */
import { appendFileSync, cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { codeFiles, codeHash } from "../../../src/run/code-hash.ts";
import { isGenerated } from "../../../src/run/imports.ts";
import type { Stage } from "../../../src/run/stage.ts";
import { stages } from "../../../src/stages/pipeline.ts";

const py = "python_worker/gr2_worker";
const entry = (stage: Stage): string => relative(repositoryRoot, fileURLToPath(stage.source));
const files = new Map(stages.map((s) => [s.name, new Set(codeFiles([entry(s)], s.verbs))]));
const rerunBy = (file: string): string =>
  stages
    .map((s) => s.name)
    .filter((name) => files.get(name)?.has(file))
    .join(" ");

const all = "data candidates embed sid midtrain slates evidence traces calibrate sft rl evaluate";
/** Stages that may ask a language model; the pre-ranker SASRec is one, hence candidates. */
const model = "candidates midtrain slates traces calibrate sft rl evaluate";

describe("a change reruns the right stages and no others:", () => {
  it.each([
    ["src/core/rng.ts", all.replace("data ", "").replace("embed ", "")],
    ["src/data/adapters/mind.ts", "data"],
    ["src/data/prepare.ts", "data"],
    // What makes tokens, and what packs them.
    ["src/worker/tokenizer.ts", model.replace("slates", "slates evidence")],
    ["src/worker/batch.ts", all.replace("data ", "")],
    [`${py}/rpc/wire.py`, all.replace("data ", "")],
    // A verb is code of the stages that may ask for it.
    [`${py}/scoring/losses.py`, model],
    [`${py}/generation/sampler.py`, model],
    [`${py}/items/quantizer.py`, "sid"],
    [`${py}/items/rqvae.py`, "sid"],
    [`${py}/items/embed.py`, "embed"],
    [`${py}/items/bpe.py`, "midtrain"],
    [`${py}/trees.py`, "evidence"],
    // A stage's own.
    ["src/reward/verify.ts", "rl"],
    ["src/stages/rl/dapo.ts", "rl"],
    ["src/teacher/words.ts", "traces"],
    ["src/evidence/trees.ts", "evidence traces calibrate sft rl evaluate"],
    ["src/prerank/fuse.ts", "candidates slates"],
    ["src/eval/table.ts", "evaluate"],
    ["src/stages/evaluate.ts", "evaluate"],
    // The recipe of a teacher's run is read while RL runs.
    ["src/config/load.ts", "rl"],
    // What runs stages, shows them or serves their results changes none.
    ["src/stages/pipeline.ts", ""],
    ["src/run/run.ts", ""],
    ["src/run/stage-cache.ts", ""],
    ["src/worker/fake.ts", ""],
    ["src/report/report.ts", ""],
    ["src/serve/serve.ts", ""],
    ["src/cli/program.ts", ""],
    [`${py}/rpc/server.py`, ""],
    [`${py}/boot.py`, ""],
  ])("%s", (file, expected) => {
    expect(rerunBy(file)).toBe(expected);
  });

  it("generated code is nobody's: the protos say what it is", () => {
    expect([...files.values()].flatMap((of) => [...of]).filter(isGenerated)).toEqual([]);
  });

  const copy = mkdtempSync(join(tmpdir(), "gr2-code-"));
  afterAll(() => rmSync(copy, { recursive: true, force: true }));

  it("the hash changes with the text of a file, for those stages alone", () => {
    const keep = (path: string) => !path.includes("__pycache__") && !path.includes("/generated");
    const roots = ["before", "after"].map((name) => join(copy, name));
    for (const root of roots)
      for (const folder of ["src", py])
        cpSync(join(repositoryRoot, folder), join(root, folder), { recursive: true, filter: keep });
    const [before, after] = roots as [string, string];
    appendFileSync(join(after, "src/worker/tokenizer.ts"), "// changed\n");
    const changed = stages.filter(
      (s) => codeHash([entry(s)], s.verbs, before) !== codeHash([entry(s)], s.verbs, after),
    );
    expect(changed.map((s) => s.name).join(" ")).toBe(rerunBy("src/worker/tokenizer.ts"));
  });
});
