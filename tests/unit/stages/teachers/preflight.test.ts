/** Teachers that cannot teach, found before the first stage; nothing is asked of stages that will not run. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { compileConfig, resolvedYaml } from "../../../../src/config/load.ts";
import type { Config } from "../../../../src/config/schema.ts";
import { Gr2Error } from "../../../../src/core/errors.ts";
import { addedTokens } from "../../../../src/models/language-model.ts";
import type { StageName } from "../../../../src/run/stage.ts";
import { Catalogue } from "../../../../src/sid/catalogue.ts";
import { otherIds } from "../../../../src/stages/pipeline.ts";
import { keptAnswers } from "../../../../src/stages/teachers/in-words.ts";
import { checkTeachers } from "../../../../src/stages/teachers/preflight.ts";
import { fail, list, startServer, type TestServer } from "../../endpoint/server.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-check-teachers-"));
const keyName = "GR2_TEST_CHECK_KEY";
const key = "secret-feed-0123456789";
let server: TestServer;
beforeAll(async () => {
  process.env[keyName] = key;
  server = await startServer((_body, _n, response) => fail(response, 500, "must not be asked anything"));
});
afterAll(async () => {
  delete process.env[keyName];
  await server.close();
  rmSync(root, { recursive: true, force: true });
});
afterEach(() => expect(server.seen).toEqual([])); // no completion was ever asked for

const every: readonly StageName[] = ["data", "embed", "sid", "midtrain", "slates"];
interface At {
  readonly finished?: readonly StageName[];
  readonly reaches?: (stage: StageName) => boolean;
}
/** What was said; an error as "CODE message | advice" in its last line. */
async function check(config: Config, at: At = {}): Promise<string[]> {
  const said: string[] = [];
  const planned = {
    reaches: at.reaches ?? (() => true),
    finished: async (stage: StageName) => at.finished?.includes(stage) ?? false,
    folder: (stage: StageName) => join(root, "stages", stage),
    otherIds: (theirs: Config) => otherIds(theirs, config),
  };
  await checkTeachers(config, planned, (text) => said.push(text), new AbortController().signal).catch((e: unknown) => {
    if (!(e instanceof Gr2Error)) throw e;
    said.push(`${e.code} ${e.message} | ${e.advice ?? ""}`);
  });
  expect(said.join("\n")).not.toContain(key);
  return said;
}

describe("a teacher behind an endpoint", () => {
  const recipe = (more: object = {}, cache = "none") =>
    compileConfig(
      {
        teacher: {
          ...{ kind: "openai", model: "llm", maxSlates: 5 },
          endpoint: { baseUrl: server.baseUrl, apiKeyEnv: keyName, ...more },
        },
        data: { cacheDir: join(root, cache) },
        sft: { target: "order" },
      },
      "test",
    );

  it("is silent about one that has the model, and names what there is where it has not", async () => {
    server.models = (response) => list(response, ["other", "llm"]);
    expect(await check(recipe())).toEqual([]);
    server.models = (response) => list(response, ["Qwen3-32B", `echo-${key}`]);
    expect(await check(recipe())).toEqual([`! teacher.model = llm: ${server.baseUrl} has Qwen3-32B, echo-[key]`]);
    server.models = (response) =>
      list(
        response,
        Array.from({ length: 12 }, (_, i) => `m${i}`),
      );
    expect((await check(recipe()))[0]).toMatch(/has m0, m1, .*, m9, and 2 more$/);
  });

  it("continues if the server has no such list", async () => {
    server.models = (response) => fail(response, 405, "no");
    expect(await check(recipe())).toEqual([
      `teacher.model = llm was not checked: GET /models returned status 405 at ${server.baseUrl}`,
    ]);
  });

  it("stops for a refused key, a server that is down, a variable that is not set", async () => {
    server.models = (response) => fail(response, 403, `no entry for ${key}`);
    expect(await check(recipe())).toEqual([
      expect.stringMatching(
        /^ENVIRONMENT the teacher at http.* cannot be used: the server refuses the key \(403\): no entry for \[key\] \| Check the key in the env.*--until slates\.$/,
      ),
    ]);
    expect(await check(recipe({ baseUrl: "http://127.0.0.1:9/v1" }))).toEqual([
      expect.stringMatching(
        /^ENVIRONMENT the teacher at http:\/\/127\.0\.0\.1:9\/v1 cannot be used: .* \| Start the server/,
      ),
    ]);
    expect(await check(recipe({ apiKeyEnv: "GR2_TEST_NO_SUCH" }))).toEqual([
      expect.stringMatching(/^ENVIRONMENT .*GR2_TEST_NO_SUCH.* is not set/),
    ]);
  });

  it("may be down where all before it is finished and answers are kept: they may be all it needs", async () => {
    const config = recipe({ baseUrl: "http://127.0.0.1:9/v1" }, "warm");
    keptAnswers(config).add({ key: "k", text: "t", cut: false, time: "", inputTokens: 1, outputTokens: 1 });
    expect(await check(config, { finished: every })).toEqual([
      expect.stringMatching(/^! the teacher at .*; 1 answers are cached$/),
    ]);
    expect(await check(config, { finished: every.slice(1) })).toEqual([expect.stringMatching(/^ENVIRONMENT /)]);
    expect(await check(recipe({ baseUrl: "http://127.0.0.1:9/v1" }), { finished: every })).toEqual([
      expect.stringMatching(/^ENVIRONMENT /),
    ]);
  });

  it("is asked nothing where its stage is finished, or not reached", async () => {
    const before = server.listed;
    const nobody = recipe({ apiKeyEnv: "GR2_TEST_NO_SUCH" });
    expect(await check(nobody, { finished: ["traces"] })).toEqual([]);
    expect(await check(nobody, { reaches: (stage) => stage !== "traces" })).toEqual([]);
    expect(await check(compileConfig({}, "test"))).toEqual([]);
    expect(server.listed).toBe(before);
  });
});

describe("a teacher in the worker", () => {
  it("is refused like any model that cannot be loaded, by its own settings' names", async () => {
    const recipe = (model: string, ggufFile = "") =>
      compileConfig({ teacher: { kind: "worker", model, ggufFile }, sft: { target: "order" } }, "test");
    expect(await check(recipe("/nowhere/llm"))).toEqual([
      "CONFIG teacher.model = /nowhere/llm: there is no such folder | ",
    ]);
    const folder = join(root, "llm");
    mkdirSync(folder);
    expect(await check(recipe(folder))).toEqual([expect.stringMatching(/^CONFIG teacher\.model = .*no config\.json/)]);
    expect(await check(recipe(folder, "x.gguf"))).toEqual([
      expect.stringMatching(/^CONFIG teacher\.ggufFile = x\.gguf/),
    ]);
    writeFileSync(join(folder, "config.json"), '{"model_type":"llama"}');
    writeFileSync(join(folder, "model.safetensors"), "");
    expect(await check(recipe(folder))).toEqual([expect.stringMatching(/^CONFIG teacher\.model = .*no tokenizer/)]);
    expect(await check(recipe("some/hub-id"))).toEqual([]);
  });
});

describe("a teacher of distillation", () => {
  const sid = { levels: 2, codes: 4 };
  const recipe = (teacher: string, more: object = {}) =>
    compileConfig({ sid, rl: { kind: "opd", opd: { teacher, ...more } } }, "test");
  const catalogue = Catalogue.of([[0, 1]], { ...sid, format: "wrapped" });

  /** A state in a run's folder: runs/NAME/stages/rl/state. */
  function state(run: string, note: object, tokens = addedTokens(recipe("x"))): string {
    const folder = join(root, "runs", run, "stages", "rl", "state");
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      join(folder, "gr2_state.json"),
      JSON.stringify({ format_version: 1, base: "", metadata: { catalogue: catalogue.hash() }, ...note }),
    );
    const added_tokens = tokens.map((content) => ({ content }));
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ added_tokens }));
    return folder;
  }

  it("is refused where there is none, and told where there is one", async () => {
    expect(await check(recipe("/nowhere/state"))).toEqual([
      expect.stringMatching(
        /^CONFIG rl\.opd\.teacher = \/nowhere\/state: there is no such folder \| Train the teacher first/,
      ),
    ]);
    expect(await check(recipe("/nowhere/state", { address: "there:1" }))).toEqual([]);
    const good = state("large", {});
    const run = join(root, "runs", "large");
    expect(await check(recipe(run))).toEqual([
      `CONFIG rl.opd.teacher = ${run}: contains neither saved weights nor an exported model | Name one of ${good}.`,
    ]);
    expect(await check(recipe(root))).toEqual([expect.stringMatching(/a folder that gr2 export wrote\.$/)]);
    expect(await check(recipe(good))).toEqual([]);
    expect(await check(recipe("/nowhere/state"), { finished: ["rl"] })).toEqual([]);
    expect(await check(recipe("/nowhere/state"), { reaches: (stage) => stage !== "rl" })).toEqual([]);
  });

  it("is refused with other semantic IDs: by its tokens at once, by the catalogue where this run has one", async () => {
    const tokens = addedTokens(recipe("x"));
    const wide = state("wide", {}, [...tokens, "<s_a_4>"]);
    expect(await check(recipe(wide))).toEqual([
      expect.stringMatching(/^CHECKPOINT .*it has the token <s_a_4>, which this recipe/),
    ]);
    const narrow = state("narrow", {}, tokens.slice(0, -1));
    expect(await check(recipe(narrow))).toEqual([expect.stringMatching(/^CHECKPOINT .*it lacks the token <s_b_3> \|/)]);
    mkdirSync(join(root, "stages", "sid"), { recursive: true });
    writeFileSync(join(root, "stages", "sid", "catalogue.json"), JSON.stringify(catalogue.toJSON()));
    expect(await check(recipe(state("large", {})), { finished: ["sid"] })).toEqual([]);
    const other = state("other", { metadata: { catalogue: "another" } });
    expect(await check(recipe(other), { finished: ["sid"] })).toEqual([
      expect.stringMatching(/^CHECKPOINT .*trained with catalogue another, this run has /),
    ]);
    const exported = join(root, "exported");
    mkdirSync(exported);
    writeFileSync(join(exported, "gr2_export.json"), JSON.stringify({ schema: "gr2.export/1", catalogue: "another" }));
    expect(await check(recipe(exported), { finished: ["sid"] })).toEqual([
      expect.stringMatching(/^CHECKPOINT .*catalogue another/),
    ]);
  });

  it("is doubted where its run made its IDs with other settings", async () => {
    const path = state("seeded", {});
    const file = join(root, "runs", "seeded", "config.resolved.yaml");
    writeFileSync(file, resolvedYaml(recipe("x")));
    expect(await check(recipe(path))).toEqual([]);
    writeFileSync(file, resolvedYaml(compileConfig({ sid, seed: 7 }, "test")));
    expect(await check(recipe(path))).toEqual([
      expect.stringMatching(/^! .* its run has different settings for sid; if its semantic IDs/),
    ]);
  });

  it("with LoRA needs the recipe of its run, and the model it names", async () => {
    const path = state("adapted", { base: "0123456789abcdef" });
    expect(await check(recipe(path))).toEqual([
      expect.stringMatching(
        /^CHECKPOINT .*contains LoRA weights outside the folder of their run.* \| .*gr2 export RUN --out/,
      ),
    ]);
    const file = join(root, "runs", "adapted", "config.resolved.yaml");
    const model = { source: "pretrained", path: "/nowhere/base", lora: { rank: 4 } };
    writeFileSync(file, resolvedYaml(compileConfig({ sid, model }, "test")));
    expect(await check(recipe(path))).toEqual([
      `CONFIG ${file}: model.path = /nowhere/base: there is no such folder | `,
    ]);
  });
});
