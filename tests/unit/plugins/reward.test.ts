/**
 * Rewards that a recipe names: in every language, held to their contract, and named with slate and value when they
 * break it.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileConfig } from "../../../src/config/load.ts";
import { itemId } from "../../../src/core/ids.ts";
import type { LabelledSlate } from "../../../src/data/slate-items.ts";
import type { Item } from "../../../src/data/types.ts";
import { closePlugins } from "../../../src/plugins/python.ts";
import { type OpenReward, openReward } from "../../../src/plugins/reward.ts";
import type { Answer } from "../../../src/reward/reward.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-reward-plugin-"));
afterAll(async () => {
  await closePlugins();
  rmSync(folder, { recursive: true, force: true });
});

let files = 0;
function write(text: string, ending = "ts"): string {
  const path = join(folder, `mine${files++}.${ending}`);
  writeFileSync(path, text);
  return path;
}

const items: readonly Item[] = ["Drama", "Drama", "Comedy"].map((category, i) => ({
  ...{ id: itemId(`i${i}`), title: `Film ${i}`, brand: "", categories: [category], description: "" },
}));
const slate = (id: string): LabelledSlate => ({
  ...{ id, history: [items[2] as Item], candidates: items, scores: [3, 2, 1], labels: [0, 0, 1] },
});
const answer = (id: string, order: readonly number[], reasoning = ""): Answer => ({
  ...{ slate: slate(id), mode: "answer", order, reasoning },
});
const asked = [answer("a", [0, 1, 2]), answer("b", [2, 0, 1]), answer("c", [1, 2, 0])];

const open = (module: string, more: Readonly<Record<string, unknown>> = {}): Promise<OpenReward> =>
  openReward({ config: compileConfig({ rl: { reward: { module, ...more } } }, "test"), items });
const ask = async (module: string, more: Readonly<Record<string, unknown>> = {}) =>
  (await open(module, more)).score(asked);

describe("a reward in TypeScript or JavaScript", () => {
  // Categories of the first two: a Drama twice, b Comedy and Drama, c Drama and Comedy.
  const diverse = "new Set(a.order.slice(0, 2).map((i) => a.slate.candidates[i].categories[0])).size";

  it.each([
    ["ts", `export default { score: (answers: any[]): number[] => answers.map((a) => ${diverse}) };`],
    ["mjs", `export default { async score(answers) { return answers.map((a) => ${diverse}); } };`],
    ["cjs", `module.exports = { score: (answers) => answers.map((a) => ${diverse}) };`],
    ["ts", `export default class { static score(answers: any[]) { return answers.map((a) => ${diverse}); } }`],
  ])("scores in one call (%s)", async (ending, text) => {
    if (text.includes("class")) return expect(ask(write(text, ending))).rejects.toThrow(/its default export threw/);
    expect(await ask(write(text, ending))).toEqual([{ value: 1 }, { value: 2 }, { value: 2 }]);
  });

  it("may be a function of its options and the run's seed", async () => {
    const module = write(
      "export default ({ options, seed }: any) => ({ score: (a: any[]) => a.map(() => options.weight + seed) });",
    );
    expect(await ask(module, { options: { weight: 0.5 } })).toEqual([{ value: 0.5 }, { value: 0.5 }, { value: 0.5 }]);
  });

  it("may say its parts and why", async () => {
    const score = { value: 3, parts: { hit: 1, diversity: 2 }, because: "two genres" };
    expect(
      await ask(write(`export default { score: (a: any[]) => a.map(() => (${JSON.stringify(score)})) };`)),
    ).toEqual([score, score, score]);
  });

  it.each([
    ["export const score = () => [];", "it has no default export; it exports score"],
    ["export default { points() {} };", "it is not a reward, {score(answers)}: score: it must be a function"],
    ["export default 7;", "it is not a reward, {score(answers)}"],
    ["export default () => { throw new Error('no file'); };", "its default export threw Error: no file"],
    ["import './nowhere.ts';", "it cannot be imported"],
    ["export default {", "it cannot be imported"],
  ])("is refused before anything runs: %s", async (text, message) => {
    const module = write(text);
    await expect(open(module)).rejects.toMatchObject({ code: "CONFIG" });
    await expect(open(module)).rejects.toThrow(`rl.reward.module = ${module}: ${message}`);
  });

  it("is refused if there is no such file, or no such language", async () => {
    await expect(open(join(folder, "none.ts"))).rejects.toThrow("file not found");
    await expect(open(write("", "rb"))).rejects.toThrow("neither a .ts");
    await expect(open(write("", "py"))).rejects.toThrow("the name of the Python function is missing");
  });

  it.each([
    ["NaN for one", "a.slate.id === 'b' ? Number.NaN : 1", "gave NaN for slate b (c3 c1 c2): expected a finite number"],
    ["no number", "a.slate.id === 'c' ? '1' : 1", 'gave "1" for slate c (c2 c3 c1): expected a finite number'],
    ["a bad part", "({ value: 1, parts: { x: Infinity } })", 'gave {"value":1,"parts":{"x":"Infinity"}} for slate a'],
    [
      "a throw",
      "a.slate.id === 'b' ? a.nothing.at : 1",
      /threw TypeError: .* \(mine\d+\.ts:\d+:\d+\) when asked about slate b/,
    ],
  ])("names module, slate and value of %s", async (_, value, message) => {
    const module = write(`export default { score: (answers: any[]) => answers.map((a) => (${value})) };`);
    await expect(ask(module)).rejects.toMatchObject({ code: "RUN" });
    await expect(ask(module)).rejects.toThrow(message);
    await expect(ask(module)).rejects.toThrow(`rl.reward: ${module}`);
  });

  it("must give as many values as requested", async () => {
    await expect(ask(write("export default { score: () => [1, 2] };"))).rejects.toThrow(
      "returned 2 entries when asked about 3 questions on slates a, b, c",
    );
    await expect(ask(write("export default { score: () => 5 };"))).rejects.toThrow("returned 5, not a list");
  });

  it.each([
    ["never gives the thread back", "for (;;) {}"],
    ["never settles", "return new Promise(() => {});"],
  ])("is stopped where it %s", async (_, loop) => {
    const module = write(
      `export default { score(answers: any[]) { if (answers.some((a) => a.slate.id === "b")) { ${loop} } return answers.map(() => 1); } };`,
    );
    await expect(ask(module, { timeoutSeconds: 0.2 })).rejects.toThrow(
      "gave no answer within 0.2 s when asked about slate b",
    );
  });
});

describe("a reward in Python", () => {
  const text = `
import numpy as np
from helper import weight

def score(answers, bonus=0.0):
    out = []
    for a in answers:
        hit = a.slate.labels[a.order[0]]
        genres = {c for i in a.order[:2] for c in a.slate.candidates[i].categories}
        out.append({"value": np.float64(hit * weight + bonus), "parts": {"hit": hit}, "because": ",".join(sorted(genres))})
    return out

def broken(answers):
    return [1 / (a.slate.id != "b") for a in answers]

def nan(answers):
    return [float("nan") if a.slate.id == "c" else 0 for a in answers]

def slow(answers):
    import time
    time.sleep(3)
    return [0 for _ in answers]

not_a_function = 3
`;
  let file = "";
  beforeAll(() => {
    writeFileSync(join(folder, "helper.py"), "weight = 2\n");
    file = write(text, "py");
  });

  it("scores in one call, with the recipe's options", async () => {
    // The true item, third, is first in b alone: 2 · 1 + .5.
    expect(await ask(`${file}:score`, { options: { bonus: 0.5 } })).toEqual([
      { value: 0.5, parts: { hit: 0 }, because: "Drama" },
      { value: 2.5, parts: { hit: 1 }, because: "Comedy,Drama" },
      { value: 0.5, parts: { hit: 0 }, because: "Comedy,Drama" },
    ]);
  });

  it("is identified by its bytes, what it imports beside it, and its packages' versions", async () => {
    const { identity } = await open(`${file}:score`);
    expect(identity?.files.map((f) => f.replace(/mine\d+/, "mine"))).toEqual(["helper.py", "mine.py"]);
    expect(identity?.packages.numpy).toMatch(/^\d+\./);
    writeFileSync(join(folder, "helper.py"), "weight = 2  # the same\n");
    expect((await open(`${file}:score`)).identity?.sha256).not.toBe(identity?.sha256);
  });

  it("names what it raised, where, and about which slate", async () => {
    await expect(ask(`${file}:broken`)).rejects.toThrow(
      /raised ZeroDivisionError: .* \(mine\d+\.py:14\) when asked about slate b \(c3 c1 c2\)/,
    );
    await expect(ask(`${file}:nan`)).rejects.toThrow('gave "nan" for slate c');
    await expect(open(`${file}:nothing`)).rejects.toThrow(
      "AttributeError: it has no function nothing; it has score, broken, nan, slow",
    );
    await expect(open(`${file}:not_a_function`)).rejects.toThrow("it has no function not_a_function");
    await expect(open(`${write("import nowhere_at_all\n", "py")}:score`)).rejects.toThrow(
      /it cannot be imported: ModuleNotFoundError: .*nowhere_at_all/,
    );
  });

  it("is given up when it takes too long", async () => {
    await expect(ask(`${file}:slow`, { timeoutSeconds: 0.3 })).rejects.toThrow(
      "gave no answer within 0.3 s when asked about 3 questions on slates a, b, c",
    );
  });
});

describe("a reward over HTTP", () => {
  let server: Server;
  let url = "";
  let failures = 0;
  const bodies: { slates: unknown[]; asked: [number, string, number[], string][]; version: string }[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      let text = "";
      request.on("data", (part: Buffer) => {
        text += part.toString();
      });
      request.on("end", () => {
        const body = JSON.parse(text) as (typeof bodies)[number];
        bodies.push(body);
        if (request.url === "/busy" && failures++ < 1) response.writeHead(503).end("busy");
        else if (request.url === "/refuse") response.writeHead(400).end("wrong version");
        else if (request.url === "/page") response.end("<html>");
        else response.end(JSON.stringify(body.asked.map(([, , order]) => order[0])));
      });
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server.close());

  it("needs a declared version, which is all of its identity", async () => {
    await expect(open(url)).rejects.toThrow("declare its version");
    const { identity } = await open(url, { version: "7" });
    expect(identity).toMatchObject({ version: "7", sha256: "", files: [] });
  });

  it("gets every slate once and every answer, and gives one value each", async () => {
    const same = slate("a");
    const reward = await open(`${url}/score`, { version: "7" });
    const two = [
      asked[1] as Answer,
      { ...(asked[1] as Answer), slate: same },
      { ...(asked[2] as Answer), slate: same },
    ];
    expect(await reward.score(two)).toEqual([{ value: 2 }, { value: 2 }, { value: 1 }]);
    const body = bodies.at(-1);
    expect(body?.slates).toHaveLength(2);
    expect(body?.slates[1]).toMatchObject({ id: "a", candidates: [{ title: "Film 0" }, {}, {}], labels: [0, 0, 1] });
    expect(body?.asked.map(([index]) => index)).toEqual([0, 1, 1]);
    expect(body?.version).toBe("7");
  });

  it("is asked again when busy, and says what came back otherwise", async () => {
    const about = { version: "7" };
    expect(await ask(`${url}/busy`, about)).toHaveLength(3);
    await expect(ask(`${url}/refuse`, about)).rejects.toThrow("answered with status 400: wrong version");
    await expect(ask(`${url}/page`, about)).rejects.toThrow("invalid JSON");
    await expect(ask("http://127.0.0.1:9/score", about)).rejects.toThrow("cannot be reached");
  });
});

describe("our own", () => {
  it("is asked in the same way", async () => {
    const reward = await openReward({ config: compileConfig({}, "test"), items });
    expect(reward.identity).toBeUndefined();
    // The true item from 3 to 3, 1 and 2 of three.
    expect((await reward.score(asked)).map((s) => s.value)).toEqual([0, 2 / 3, 1 / 3]);
  });
});
