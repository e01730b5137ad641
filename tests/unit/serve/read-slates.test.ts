/** Ids of gr2 rerank's files: whole numbers of any size stay as they are written. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { openDuck } from "../../../src/data/duck.ts";
import { readSlates } from "../../../src/serve/batch/read-slates.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-slates-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const ids = ["9100000000000003", "9100000000000004", "12345678901234567890"];

async function candidatesIn(name: string): Promise<string[]> {
  const found: string[] = [];
  for await (const slate of readSlates({ file: join(root, name), columns: {}, findHistory: () => [] })) {
    if ("fault" in slate) throw new Error(slate.fault);
    found.push(...slate.candidates.map((c) => c.id));
  }
  return found;
}

it.each([
  ["a.jsonl", `{"candidates": [${ids.join(", ")}]}\n`],
  ["a.csv", `candidates\n"[${ids.join(", ")}]"\n`],
  ["long.csv", `slate,item\n${ids.map((i) => `s,${i}\n`).join("")}`],
])("%s", async (name, text) => {
  writeFileSync(join(root, name), text);
  expect(await candidatesIn(name)).toEqual(ids);
});

it("a.parquet", async () => {
  const duck = await openDuck();
  const list = ids.map((i) => `${i}::UBIGINT`).join(", ");
  await duck.run(`COPY (SELECT [${list}] AS candidates) TO '${join(root, "a.parquet")}' (FORMAT parquet)`);
  duck.close();
  expect(await candidatesIn("a.parquet")).toEqual(ids);
});
