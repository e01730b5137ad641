/**
 * Modules of a user's through the whole pipeline on a fake worker: what they change, what they are kept by, what stops.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { explainReward } from "../../src/cli/explain.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import type { Manifest } from "../../src/run/manifest.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-plugins-fake-"));
const root = join(folder, "runs");
let base = "";
beforeAll(() => {
  base = writePipelineFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One invocation, as from the command line; returns the stages that ran. */
async function invoke(recipe: string, name: string, until?: string): Promise<string[]> {
  const config = loadConfig(recipe);
  const bus = new TelemetryBus(name);
  const ran: string[] = [];
  bus.on((m) => {
    if (m.kind === "stage" && (m.state === "started" || m.state === "resumed")) ran.push(m.stage);
  });
  const { signal } = new AbortController();
  const run = await Run.open({
    ...{ root, name, configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed },
    ...{ stages: stageNames, signal, bus, ...(until ? { until } : {}) },
  });
  try {
    await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
    await run.close("finished");
    return ran;
  } catch (e) {
    await run.close("failed").catch(() => {});
    throw e;
  }
}

const readManifest = (name: string): Manifest =>
  JSON.parse(readFileSync(join(root, name, "manifest.json"), "utf8")) as Manifest;

const writeProject = (name: string, recipe: string, files: Readonly<Record<string, string>>): string => {
  const dir = join(folder, name);
  mkdirSync(dir, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text);
  writeFileSync(join(dir, "recipe.yaml"), `extends: ${base}\n${recipe}\n`);
  return join(dir, "recipe.yaml");
};

describe("a reward of one's own", () => {
  const reward = `import { bonus } from "./bonus.ts";
export default {
  score: (answers) => answers.map(({ slate, order }) => {
    const hit = slate.labels[order[0]];
    const diversity = new Set(order.slice(0, 3).flatMap((i) => slate.candidates[i].categories)).size / 10;
    return { value: hit + bonus * diversity, parts: { hit, diversity: bonus * diversity }, because: "hit and genres" };
  }),
};`;
  const files = { "mine.ts": reward, "bonus.ts": "export const bonus = 1;\n" };
  let recipe = "";
  beforeAll(async () => {
    recipe = writeProject("reward", "rl: { reward: { module: ./mine.ts, format: none } }", files);
    await invoke(recipe, "reward", "rl");
  });

  it("pays what it says, in parts, for every readable answer", () => {
    const lines = readFileSync(join(root, "reward", "rollouts.jsonl"), "utf8")
      .trim()
      .split("\n");
    const paid = lines.map((l) => JSON.parse(l) as RolloutLine).filter((r) => r.parse.kind === "ranking");
    expect(paid.length).toBeGreaterThan(10);
    for (const { reward, parts, details, because } of paid) {
      expect(reward).toBeCloseTo((details?.hit ?? 0) + (details?.diversity ?? 0) + (parts.overlong ?? 0), 9);
      expect(details?.diversity).toBeGreaterThan(0);
      expect(because).toContain("hit and genres");
    }
    const metrics = readFileSync(join(root, "reward", "metrics.jsonl"), "utf8");
    expect(metrics).toContain("reward_ranking_diversity");
  });

  it("is named in the manifest with its files, and is in the key of stage rl alone", async () => {
    expect(readManifest("reward").plugins).toEqual({
      "rl.reward": {
        ...{ module: "mine.ts", version: "", files: ["bonus.ts", "mine.ts"], packages: {} },
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    });
    expect(await invoke(recipe, "reward", "rl")).toEqual([]);
    writeFileSync(join(folder, "reward", "bonus.ts"), "export const bonus = 2;\n");
    expect(await invoke(recipe, "reward", "rl")).toEqual(["rl"]);
  });

  it("gives the same run wherever the project is, and another one with other options", async () => {
    renameSync(join(folder, "reward"), join(folder, "moved"));
    const moved = join(folder, "moved", "recipe.yaml");
    expect(configHash(loadConfig(moved))).toBe(readManifest("reward").config_hash);
    expect(await invoke(moved, "reward", "rl")).toEqual([]);
    writeFileSync(moved, `${readFileSync(moved, "utf8")}`.replace("format: none", "format: none, options: { a: 1 }"));
    expect(await invoke(moved, "reward", "rl")).toEqual(["rl"]);
  });

  it("is explained by gr2 reward explain, of a run and without one", async () => {
    const [slate] = readFileSync(join(root, "reward", "stages/slates/rerank.jsonl"), "utf8").split("\n");
    const { id } = JSON.parse(slate as string) as { id: string };
    const line = readFileSync(join(root, "reward", "rollouts.jsonl"), "utf8")
      .split("\n")
      .filter((l) => l !== "")
      .map((l) => JSON.parse(l) as RolloutLine)
      .find((r) => r.parse.kind === "ranking");
    const text = await explainReward({
      ...{ run: "reward", slate: line?.slate ?? id, response: line?.text ?? "", root, config: "unused", set: [] },
    });
    expect(text).toMatch(/mine\.ts says [\d.]+ \(hit [01]; diversity 0\.\d+; hit and genres\)/);
    const bare = await explainReward({
      ...{ candidates: 3, target: 2, response: "c2 c1 c3<|end|>", root, set: [] },
      config: join(folder, "moved", "recipe.yaml"),
    });
    expect(bare).toMatch(/mine\.ts says 1 \(hit 1; diversity 0; hit and genres\)/);
  });

  it("stops the run where it breaks its contract, names the slate, and keeps what is finished", async () => {
    const broken = `let n = 0; export default { score: (a) => a.map(() => (n++ > 40 ? Number.NaN : n % 3)) };`;
    const bad = writeProject("broken", "rl: { reward: { module: ./mine.ts } }", { "mine.ts": broken });
    await expect(invoke(bad, "broken")).rejects.toThrow(/rl\.reward: .*mine\.ts gave NaN for slate [0-9a-f]{20} \(c/);
    const { stages } = readManifest("broken");
    expect([stages.sft?.state, stages.rl?.state]).toEqual(["finished", "failed"]);
    writeFileSync(join(folder, "broken", "mine.ts"), "export default { score: (a) => a.map((_, i) => i % 3) };");
    // Node keeps a module that it has imported; a new process would read the file again.
    renameSync(join(folder, "broken", "mine.ts"), join(folder, "broken", "mended.ts"));
    writeFileSync(bad, readFileSync(bad, "utf8").replace("mine.ts", "mended.ts"));
    expect(await invoke(bad, "broken")).toEqual(["rl", "evaluate"]);
  });

  it("is looked at before anything runs", async () => {
    const bad = writeProject("misfit", "rl: { reward: { module: ./mine.js } }", { "mine.js": "export default {};" });
    await expect(invoke(bad, "misfit")).rejects.toThrow(/mine\.js: it is not a reward, \{score\(answers\)\}: score/);
    expect(readManifest("misfit").stages).toEqual({});
  });
});

describe("metrics and baselines of one's own", () => {
  const metric = `export default { measure: (orders) => orders.map(({ slate, order }) => {
    if (order.length !== slate.candidates.length) throw new Error("not whole");
    return slate.labels[order[0]];
  }) };`;
  // Greedy: the next candidate is the one that shares fewest categories with those before it.
  const mmr = `export default ({ options }) => ({ score: (slates) => slates.map((slate) => {
    if ("labels" in slate) throw new Error("it sees the answer");
    return slate.scores.map((s, i) => (options.back ? i : -i));
  }) });`;
  let results: { rows: { system: string; metric: string; slice: string; value: number; n: number }[] };
  let recipe = "";
  beforeAll(async () => {
    const settings = `eval:
  metrics: { first: { module: ./first.mjs } }
  baselines: { same: { module: ./order.mjs }, reversed: { module: ./order.mjs, options: { back: true } } }
rl: { steps: 1 }`;
    recipe = writeProject("judges", settings, { "first.mjs": metric, "order.mjs": mmr });
    await invoke(recipe, "judges");
    results = JSON.parse(readFileSync(join(root, "judges", "metrics.json"), "utf8")) as typeof results;
  });
  const value = (system: string, name: string): number =>
    results.rows.find((r) => r.system === system && r.metric === name && r.slice === "conditional")?.value ??
    Number.NaN;

  it("are columns and rows of the results table", () => {
    const systems = [...new Set(results.rows.map((r) => r.system))];
    for (const system of systems) expect(value(system, "first"), system).toBeCloseTo(value(system, "R@1"), 12);
    expect(results.rows.filter((r) => r.metric === "first" && r.slice === "end_to_end")).toEqual([]);
    // The first scores in the order that came in, the second the other way round.
    for (const name of ["R@1", "N@5", "MRR"]) expect(value("same", name)).toBeCloseTo(value("prerank", name), 12);
    expect(value("reversed", "MRR")).toBeLessThan(value("same", "MRR"));
  });

  it("run the evaluation alone again when they change", async () => {
    expect(await invoke(recipe, "judges")).toEqual([]);
    writeFileSync(join(folder, "judges", "first.mjs"), metric.replace("not whole", "not all"));
    expect(await invoke(recipe, "judges")).toEqual(["evaluate"]);
    expect(Object.keys(readManifest("judges").plugins).sort()).toEqual([
      ...["eval.baselines.reversed", "eval.baselines.same", "eval.metrics.first"],
    ]);
  });

  it("are named with slate and value when they are wrong", async () => {
    const wrong = "export default { score: (slates) => slates.map((s, k) => (k === 3 ? [1] : s.scores)) };";
    const bad = writeProject("judges", "eval: { baselines: { mine: { module: ./wrong.mjs } } }\nrl: { steps: 1 }", {
      "wrong.mjs": wrong,
    });
    await expect(invoke(bad, "judges")).rejects.toThrow(
      /eval\.baselines\.mine: .*wrong\.mjs gave \[1\] for slate [0-9a-f]{20}: expected 5 finite numbers, one per candidate/,
    );
  });
});

interface RolloutLine {
  readonly slate: string;
  readonly text: string;
  readonly parse: { readonly kind: string };
  readonly reward: number;
  readonly parts: Readonly<Record<string, number>>;
  readonly details?: Readonly<Record<string, number>>;
  readonly because: string;
}

describe("a pre-ranker of one's own", () => {
  // Counts, as popularity does, so that both must give the same slates.
  const counting = `export default { fit: ({ sequences, numItems, items }) => {
    if (items.length !== numItems) throw new Error("no items");
    const counts = new Float64Array(numItems);
    for (const s of sequences) for (const i of s) counts[i]++;
    const best = [...counts.keys()].sort((a, b) => counts[b] - counts[a] || a - b);
    return { scale: "log", rankTop: (histories, n) => histories.map((h) => {
      const seen = new Set(h);
      const top = best.filter((i) => !seen.has(i)).slice(0, n);
      return { items: top, scores: top.map((i) => counts[i]) };
    }) };
  } };`;
  const readSlates = (name: string, stage = "candidates") =>
    readFileSync(join(root, name, "stages", stage, "test.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { id: string; scores: number[]; experts?: Record<string, unknown> });

  it("makes the slates, in TypeScript and in Python alike", async () => {
    const own = writeProject("counting", "prerank: { module: ./counting.mjs }", { "counting.mjs": counting });
    const python = `class Counting:
    def __init__(self, training):
        self.counts = [0] * training.num_items
        for s in training.sequences:
            for i in s:
                self.counts[i] += 1
        assert len(training.items) == training.num_items and training.items[0].title
        self.best = sorted(range(training.num_items), key=lambda i: -self.counts[i])

    def rank(self, histories, n, users):
        out = []
        for h in histories:
            seen = set(h)
            top = [i for i in self.best if i not in seen][:n]
            out.append((top, [self.counts[i] for i in top]))
        return out

def fit(training):
    return Counting(training)
`;
    const theirs = writeProject("counted", "prerank: { module: ./counted.py:fit }", { "counted.py": python });
    const popular = writeProject("popular", "prerank: { kind: popularity }", {});
    for (const [recipe, name] of [
      [own, "counting"],
      [theirs, "counted"],
      [popular, "popular"],
    ] as const)
      await invoke(recipe, name, "candidates");
    const scores = (name: string) => readSlates(name).map((s) => [s.id, s.scores]);
    expect(scores("counting")).toEqual(scores("popular"));
    expect(scores("counted")).toEqual(scores("popular"));
    expect(Object.keys(readManifest("counted").plugins)).toEqual(["prerank"]);
    writeFileSync(join(folder, "counted", "counted.py"), `${python}# changed\n`);
    expect(await invoke(theirs, "counted", "candidates")).toEqual(["candidates"]);
  });

  it("is fused with others, and is a baseline in the table", async () => {
    const settings = "prerank: { kind: fused, experts: [itemknn], module: ./counting.mjs }\nrl: { steps: 1 }";
    const fused = writeProject("fused", settings, { "counting.mjs": counting });
    await invoke(fused, "fused");
    expect(Object.keys(readSlates("fused")[0]?.experts ?? {}).sort()).toEqual(["counting", "itemknn"]);
    expect(readFileSync(join(root, "fused", "metrics.json"), "utf8")).toContain('"prerank_counting"');
  });

  it.each([
    [
      "twice the same",
      "[1, 2].map(() => [...Array(30).keys()].find((i) => !h.includes(i)))",
      "[2, 1]",
      "appears twice",
    ],
    ["no item", "[999]", "[1]", "999 is not an item row \\(0 to 29\\)"],
    [
      "rising scores",
      "[...Array(30).keys()].filter((i) => !h.includes(i)).slice(0, 2)",
      "[1, 2]",
      "has a higher score",
    ],
    ["what was met", "[h[0]]", "[1]", "is in the history"],
    ["NaN", "[...Array(30).keys()].filter((i) => !h.includes(i)).slice(0, 1)", "[NaN]", "is NaN"],
  ])("is named with the slate where it gives %s", async (_, items, scores, message) => {
    const text = `export default { fit: () => ({ rankTop: (hs) => hs.map((h) => ({ items: ${items}, scores: ${scores} })) }) };`;
    const bad = writeProject(`bad${items.length}${scores.length}`, "prerank: { module: ./bad.mjs }", {
      "bad.mjs": text,
    });
    await expect(invoke(bad, "bad", "candidates")).rejects.toThrow(
      new RegExp(`prerank: .*bad\\.mjs gave .* for slate [0-9a-f]{20}: .*${message}`),
    );
  });
});

describe("an adapter of one's own", () => {
  const reader = (interactions: string) => `import { readFileSync } from "node:fs";
const rows = (path, file) => readFileSync(path + "/" + file, "utf8").trim().split("\\n").slice(1).map((l) => l.split("\\t"));
export default { read: ({ path }) => ({
  interactions: (function* () { for (const [user, item, rating, time] of rows(path, "small.inter")) ${interactions} })(),
  items: rows(path, "small.item").map(([id, title, , genres]) => ({ id, title, categories: genres.split(" ") })),
}) };`;
  const whole = "yield { user, item, rating: Number(rating), time: Number(time) };";
  const summary = (name: string): { users: number; items: number; interactions: number } =>
    JSON.parse(readFileSync(join(root, name, "stages/data/summary.json"), "utf8")) as never;

  it("reads what ours reads", async () => {
    await invoke(writeProject("ours", "description: ours", {}), "ours", "data");
    const own = writeProject("read", "data: { module: ./read.mjs }", { "read.mjs": reader(whole) });
    expect(await invoke(own, "read", "data")).toEqual(["data"]);
    expect(summary("read")).toEqual(summary("ours"));
    const python = `def rows(path, file):
    with open(f"{path}/{file}") as f:
        return [line.rstrip("\\n").split("\\t") for line in f][1:]

def read(path):
    interactions = ({"user": u, "item": i, "time": float(t)} for u, i, _, t in rows(path, "small.inter"))
    items = ({"id": i, "title": t, "categories": g.split(" ")} for i, t, _, g in rows(path, "small.item"))
    return interactions, items
`;
    const theirs = writeProject("pyread", "data: { module: ./lake.py:read }", { "lake.py": python });
    await invoke(theirs, "pyread", "data");
    expect(summary("pyread")).toEqual(summary("ours"));
  });

  it("sets malformed records aside, and stops where there are too many", async () => {
    const some = `{ ${whole} if (user === "u7" && rating === "5") yield { user, item: "", time: 1 }; }`;
    const few = writeProject("few", "data: { module: ./read.mjs }", { "read.mjs": reader(some) });
    await invoke(few, "few", "data");
    expect(readFileSync(join(root, "few", "stages/data/quarantine.jsonl"), "utf8")).toContain("no item id");
    const bad = writeProject("untimed", "data: { module: ./read.mjs }", {
      "read.mjs": reader("yield { user, item, time: Number(time) * 1e9 };"),
    });
    await expect(invoke(bad, "untimed", "data")).rejects.toThrow(/read\.mjs:1: a time that is not in seconds/);
  });

  it("needs a version where it reads no path, and says what it lacks", async () => {
    const files = { "none.mjs": "export default { open() {} };", "throws.mjs": reader("throw new Error('no table');") };
    const none = writeProject("none", "data: { module: ./none.mjs, path: '' }", files);
    await expect(invoke(none, "none")).rejects.toThrow("data.module without data.path needs data.version");
    writeFileSync(none, `extends: ${base}\ndata: { module: ./none.mjs }\n`);
    await expect(invoke(none, "none")).rejects.toThrow("must have a function read(source), or load(duck");
    writeFileSync(none, `extends: ${base}\ndata: { module: ./throws.mjs }\n`);
    await expect(invoke(none, "none")).rejects.toThrow(/throws\.mjs threw Error: no table .*after 0 records/);
  });
});

describe("a teacher of one's own", () => {
  const teacher = `export default { ask: (questions) => questions.map(({ slate, attempt }) => {
    if ("labels" in slate) throw new Error("it sees the answer");
    const n = slate.candidates.length;
    const first = (attempt - 1) % n;
    const order = [first, ...slate.candidates.keys()].filter((i, k) => k === 0 || i !== first);
    return { order, reasoning: ["after ", { history: slate.history.length - 1 }, " comes ", { candidate: first }] };
  }) };`;

  it("is asked until its first choice is the true item, and its words are kept as traces", async () => {
    const recipe = writeProject("teacher", "teacher: { module: ./ring.mjs, maxTries: 5 }", { "ring.mjs": teacher });
    await invoke(recipe, "teacher", "sft");
    const traces = readFileSync(join(root, "teacher", "stages/traces/traces.jsonl"), "utf8")
      .trim()
      .split("\n");
    const { stats } = JSON.parse(readFileSync(join(root, "teacher", "stages/traces/teacher.json"), "utf8")) as {
      stats: { offered: number; accepted: number; acceptanceByPosition: number[] };
    };
    // Five candidates, asked five times with another first choice each: every slate gives a trace.
    expect([stats.accepted, traces.length]).toEqual([stats.offered, stats.offered]);
    const trace = JSON.parse(traces[0] as string) as {
      teacher: string;
      model: string;
      reasoning: { words: unknown[] };
    };
    expect(trace).toMatchObject({ teacher: "module", model: "ring" });
    expect(trace.reasoning.words).toEqual(["after ", expect.any(Number), " comes ", expect.any(Number)]);
    expect(await invoke(recipe, "teacher", "traces")).toEqual([]);
  });

  it.each([
    ["{ order: [0, 0, 1, 2, 3], reasoning: '' }", "order must be a permutation of 0 to 4"],
    ["{ order: [0, 1, 2, 3, 4], reasoning: [{ candidate: 5 }] }", "part 1 of its reasoning is neither text nor"],
    ["{ order: [0, 1, 2, 3, 4] }", "reasoning must be text, or a list"],
  ])("is named with the slate where it replies %s", async (reply, message) => {
    const bad = writeProject(`teacher${reply.length}`, "teacher: { module: ./bad.mjs }", {
      "bad.mjs": `export default { ask: (questions) => questions.map(() => (${reply})) };`,
    });
    await expect(invoke(bad, "bad-teacher", "traces")).rejects.toThrow(
      new RegExp(`teacher: .*bad\\.mjs gave .* for slate [0-9a-f]{20} \\(attempt 1\\): ${message}`),
    );
  });
});
