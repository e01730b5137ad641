/**
 * `gr2 rerank` on a run of a fake worker: layouts and formats, the same orders as the service, resume, memory, faults.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RerankArguments, rerankFile } from "../../src/cli/rerank.ts";
import { rerankUser, type UserAnswer } from "../../src/cli/rerank-user.ts";
import { loadDataset } from "../../src/data/cache.ts";
import { openDuck, sqlText } from "../../src/data/duck.ts";
import type { Slate } from "../../src/prerank/types.ts";
import type { RankedSlate } from "../../src/serve/batch/parts.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { GatedWorker, lost, makeRequest, makeRuns, setUp } from "../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-rerank-"));
let root = "";
const file = (name: string): string => join(folder, name);

beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Sink {
  text = "";
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

/** Runs the command; what it wrote to stdout and stderr. */
async function run(args: Partial<RerankArguments>): Promise<{ out: string; errors: string }> {
  const [out, errors] = [new Sink(), new Sink()] as unknown as [NodeJS.WritableStream, NodeJS.WritableStream];
  await rerankFile(
    {
      ...{ name: "first", root, set: [], format: "jsonl", column: [], system: "direct" },
      startWorker: async () => ({ client: new FakeWorker(), close: async () => {} }),
      ...args,
    },
    { out, errors },
  );
  return { out: (out as unknown as Sink).text, errors: (errors as unknown as Sink).text };
}

const parse = (text: string): RankedSlate[] =>
  text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as RankedSlate);

const candidates = (k: number): string[] => Array.from({ length: 5 }, (_, i) => `i${(3 * k + 5 * i) % 30}`);
const wide = Array.from({ length: 40 }, (_, k) => ({
  slate: `s${k}`,
  history: ["i1", "i2", `i${k % 30}`],
  candidates: candidates(k),
  scores: [5, 4, 3, 2, 1],
}));
const wideLines = wide.map((w) => `${JSON.stringify(w)}\n`).join("");

describe("gr2 rerank --in", () => {
  it("gives the orders and scores that the service gives", async () => {
    writeFileSync(file("wide.jsonl"), wideLines);
    const ranked = parse((await run({ in: file("wide.jsonl") })).out);
    expect(ranked.map((r) => r.slate)).toEqual(wide.map((w) => w.slate));
    const { engine } = await setUp(root, "first", { set: ["serve.system=direct"] });
    for (const k of [0, 7, 39]) {
      const { history, candidates: ids } = wide[k] as (typeof wide)[number];
      const answer = await engine.rerank({
        ...makeRequest([]),
        history: history.map((itemId) => ({ itemId })),
        candidates: ids.map((id, i) => ({ id, itemId: id, score: 5 - i })),
      });
      expect(ranked[k]?.ranked).toEqual(answer.ranking.map((r) => r.id));
      expect(ranked[k]?.scores[0]).toBeCloseTo(answer.ranking[0]?.score ?? 0, 5);
    }
    await engine.drain(0);
  });

  it("reads JSONL, CSV, Parquet, stdin and the long layout alike, and writes every format", async () => {
    const expected = parse((await run({ in: file("wide.jsonl") })).out);
    const cell = (value: unknown): string => `"${JSON.stringify(value).replaceAll('"', '""')}"`;
    const csv = wide.map((w) => `${w.slate},${cell(w.history)},${cell(w.candidates)},${cell(w.scores)}`);
    writeFileSync(file("wide.csv"), `slate,history,shown,scores\n${csv.join("\n")}\n`);
    const long = wide.flatMap((w) => w.candidates.map((c, i) => `${w.slate},${c},${5 - i},${cell(w.history)}`));
    writeFileSync(file("long.csv"), `slate,item,score,history\n${long.join("\n")}\n`);
    const duck = await openDuck();
    await duck.run(
      `COPY (SELECT * FROM read_json(${sqlText(file("wide.jsonl"))})) TO ${sqlText(file("wide.parquet"))}`,
    );
    expect(parse((await run({ in: file("wide.csv"), column: ["candidates=shown"] })).out)).toEqual(expected);
    expect(parse((await run({ in: file("long.csv") })).out)).toEqual(expected);
    expect(parse((await run({ in: file("wide.parquet") })).out)).toEqual(expected);
    expect(parse((await run({ in: "-", stdin: Readable.from([wideLines]) })).out)).toEqual(expected);

    await run({ in: file("wide.parquet"), out: file("ranked.parquet") });
    const rows = await duck.rows(`SELECT slate, to_json(ranked)::VARCHAR AS r FROM ${sqlText(file("ranked.parquet"))}`);
    expect(rows.map((r) => [r.slate, JSON.parse(String(r.r))])).toEqual(expected.map((e) => [e.slate, e.ranked]));
    await run({ in: file("wide.parquet"), out: file("ranked.csv") });
    const text = readFileSync(file("ranked.csv"), "utf8").split("\n");
    expect(text[0]).toBe("slate,ranked,scores,reasoning,fallback,error");
    expect(text[1]).toContain(`s0,${cell(expected[0]?.ranked)}`);
    await run({ in: file("long.csv"), out: file("long.parquet") });
    const flat = await duck.rows(`SELECT slate, item, rank FROM ${sqlText(file("long.parquet"))}`);
    expect(flat.map((r) => [r.slate, r.item, Number(r.rank)])).toEqual(
      expected.flatMap((e) => e.ranked.map((item, i) => [e.slate, item, i + 1])),
    );
    duck.close();
    expect(readdirSync(folder).filter((f) => f.endsWith(".parts") || f.endsWith(".tmp"))).toEqual([]);
  });

  it("takes histories of the run's users, described items and the first n", async () => {
    const slate = { user: "u3", candidates: [{ item_id: "i4" }, { id: "new", text: "A film nobody knows" }, "i9"] };
    writeFileSync(file("user.jsonl"), `${JSON.stringify(slate)}\n`);
    const [ranked] = parse((await run({ in: file("user.jsonl"), topN: 2 })).out);
    expect(ranked?.error).toBeNull();
    expect(ranked?.slate).toBe("1");
    expect(ranked?.ranked).toHaveLength(2);
  });

  it("resumes after a stop: finished parts are not ranked again, and the file is the same", async () => {
    const many = Array.from({ length: 2_500 }, (_, k) => ({
      slate: k,
      history: [`i${k % 30}`],
      candidates: candidates(k),
    }));
    writeFileSync(file("many.jsonl"), many.map((m) => JSON.stringify(m)).join("\n"));
    const common = { in: file("many.jsonl"), system: "prior" };
    await run({ ...common, out: file("whole.jsonl") });
    const stop = new AbortController();
    const parts = file("cut.jsonl.parts");
    const watch = setInterval(() => existsSync(join(parts, "part-000000.jsonl")) && stop.abort(), 1);
    await expect(run({ ...common, out: file("cut.jsonl"), signal: stop.signal })).rejects.toThrow(/interrupted/);
    clearInterval(watch);
    expect(existsSync(file("cut.jsonl"))).toBe(false);
    await expect(run({ ...common, out: file("cut.jsonl"), topN: 3 })).rejects.toThrow(/started with other slates/);
    const { errors } = await run({ ...common, out: file("cut.jsonl") });
    expect(errors).toMatch(/(1000|2000) slates were already ranked/);
    expect(readFileSync(file("cut.jsonl"))).toEqual(readFileSync(file("whole.jsonl")));
    expect(existsSync(parts)).toBe(false);
  }, 60_000);

  it("keeps a row for what it cannot rank, says why, and fails at the end where there are many", async () => {
    const bad = [
      "{",
      "[]",
      '{"candidates": ["i1", "i1"]}',
      '{"candidates": ["i1", "unknown"]}',
      '{"candidates": ["i1"], "scores": [1, 2]}',
      '{"candidates": []}',
      '{"user": "nobody", "candidates": ["i1"]}',
      '{"candidates": [{"score": 2}]}',
      '{"candidates": ["i1"], "scores": ["x"]}',
      '{"candidates": "i1"}',
    ];
    writeFileSync(file("bad.jsonl"), `${wideLines}${bad.join("\n")}\n`);
    const failing = run({ in: file("bad.jsonl"), out: file("bad-out.jsonl") });
    await expect(failing).rejects.toThrow(/10 of 50 slates could not be ranked; the first is slate 41: line 41/);
    const rows = parse(readFileSync(file("bad-out.jsonl"), "utf8"));
    expect(rows.map((r) => r.error !== null)).toEqual([...wide.map(() => false), ...bad.map(() => true)]);
    expect(rows.slice(40).every((r) => r.ranked.length === 0)).toBe(true);
    const errors = rows.slice(40).map((r) => r.error);
    expect(errors[2]).toMatch(/ids must be unique/);
    expect(errors[3]).toMatch(/candidates\[1\].item_id is not an item this model knows/);
    expect(errors[4]).toMatch(/scores has 2 entries, candidates 1/);
    expect(errors[6]).toMatch(/no user nobody/);
    expect(errors[8]).toMatch(/scores\[0\]/);
  });

  it("refuses a long file whose slates are torn apart, and files without the columns", async () => {
    writeFileSync(file("torn.csv"), "slate,item\na,i1\na,i2\nb,i3\nb,i4\na,i5\n");
    await expect(run({ in: file("torn.csv"), out: file("torn.jsonl") })).rejects.toThrow(/was already complete/);
    writeFileSync(file("none.csv"), "x,y\n1,2\n");
    await expect(run({ in: file("none.csv") })).rejects.toThrow(/neither a column "candidates"/);
    await expect(run({ in: file("none.csv"), column: ["candidates=shown"] })).rejects.toThrow(/no column "shown"/);
    writeFileSync(file("empty.csv"), "slate,candidates\n");
    await expect(run({ in: file("empty.csv") })).rejects.toThrow(/the file contains no slates/);
    await expect(run({ in: file("wide.jsonl"), out: "x.txt" })).rejects.toThrow(/expected a \.parquet/);
    await expect(run({ in: file("nothing.csv") })).rejects.toThrow(/nothing.csv/);
    await expect(run({ in: file("wide.jsonl"), column: ["item"] })).rejects.toThrow(/FIELD=COLUMN/);
  });

  it("waits for a worker that is lost, and shares the work among several", async () => {
    const expected = parse((await run({ in: file("wide.jsonl") })).out);
    const workers: GatedWorker[] = [];
    const startWorker = (prepare: (worker: GatedWorker, nth: number) => void) => async () => {
      const client = new GatedWorker();
      prepare(client, workers.push(client));
      return { client, close: async () => {} };
    };
    const dying = startWorker((worker, nth) => {
      if (nth === 1) worker.gate = () => Promise.reject(lost());
    });
    expect(parse((await run({ in: file("wide.jsonl"), startWorker: dying })).out)).toEqual(expected);
    expect(workers).toHaveLength(2);
    workers.length = 0;
    const slow = startWorker((worker) => {
      worker.gate = () => new Promise((resolve) => setTimeout(resolve, 20));
    });
    const several = { in: file("wide.jsonl"), startWorker: slow, workers: 2, set: ["serve.maxBatch=4"] };
    expect(parse((await run(several)).out)).toEqual(expected);
    expect(workers.map((w) => w.batches.length > 2)).toEqual([true, true]);
  }, 20_000);
});

describe("gr2 rerank --user", () => {
  const show = (user: string, json: boolean): Promise<string> =>
    rerankUser({
      ...{ name: "first", root, set: [], format: "jsonl", column: [], system: "rl", user, json },
      startWorker: async () => ({ client: new FakeWorker(), close: async () => {} }),
    });

  it("shows history, candidates in the new order, reasoning, and what came next", async () => {
    const a = JSON.parse(await show("u3", true)) as UserAnswer;
    const slates = readFileSync(join(root, "first", "stages", "slates", `${a.segment}.jsonl`), "utf8");
    const slate = slates
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Slate)
      .find((s) => s.id === a.slate);
    const { items } = await loadDataset(join(root, "first", "stages", "data"));
    expect(a.history).toHaveLength(slate?.position ?? -1);
    expect([...a.order].sort((x, y) => x.prerank - y.prerank).map((o) => o.id)).toEqual(
      slate?.candidates.map((row) => items[row]?.id),
    );
    expect(a.order.filter((o) => o.relevant).map((o) => o.id)).toEqual(
      (slate?.targetIndex ?? -1) < 0 ? [] : [items[slate?.target ?? -1]?.id],
    );
    const text = await show("u3", false);
    expect(text).toContain("user u3, slate ");
    expect(text).toMatch(/Film number \d+ \(19\d\d\) \(i\d+\)/);
  });

  it("names users where there is no such one", async () => {
    await expect(show("nobody", false)).rejects.toThrow(/has no user nobody/);
  });
});
