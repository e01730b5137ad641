/**
 * A model in the worker as a teacher, on a fake worker: the form of its answers, its own memory,
 * and nothing sampled twice.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { configSchema } from "../../../../src/config/schema.ts";
import { parseJsonAnswer } from "../../../../src/prompts/parse.ts";
import { jsonParts } from "../../../../src/prompts/rerank.ts";
import type { StageContext } from "../../../../src/run/stage.ts";
import { openWorkerTeacher } from "../../../../src/stages/teachers/worker.ts";
import type { TextRequest } from "../../../../src/teacher/words.ts";
import { FakeWorker } from "../../../../src/worker/fake.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-worker-teacher-"));
const config = configSchema.parse({ teacher: { kind: "worker", model: "/models/some", maxAnswerTokens: 400 } });
const makeContext = (worker: FakeWorker, name: string): StageContext => ({
  config,
  dir: folder,
  signal: new AbortController().signal,
  work: (part) => join(folder, `${name}-${part}`),
  inputDir: () => folder,
  worker: () => Promise.resolve(worker),
  log: () => {},
  progress: () => {},
  metrics: () => {},
  rollout: () => {},
  cursor: { read: () => undefined, write: () => {} },
});
const spellings = ["<s_a_1><s_b_2>", "<s_a_1><s_b_12>", "<s_a_3><s_b_1>"];
const wanted = Array.from(
  { length: 70 },
  (_, i): TextRequest => ({ prompt: `question ${i}`, spellings, seed: 100 + i }),
);

describe("a model in the worker as a teacher", async () => {
  const worker = new FakeWorker();
  const teacher = await openWorkerTeacher(makeContext(worker, "a"));
  const written = await teacher.complete(wanted);
  const texts = written.map((w) => (w.kind === "text" ? w.text : ""));

  it("gives every closed thought a permutation of its slate, and leaves the others unreadable", () => {
    expect(texts.length).toBe(70);
    const closed = texts.filter((t) => t.includes(jsonParts.answer));
    expect(closed.length).toBeGreaterThan(10);
    for (const text of texts) {
      expect(text.startsWith(jsonParts.open)).toBe(true);
      // Its thought is a fake model's random bytes: without it, what is left must be a whole answer.
      const ranking = text.split(jsonParts.answer)[1];
      const parsed = parseJsonAnswer(
        ranking === undefined ? text : jsonParts.open + jsonParts.answer + ranking,
        spellings,
      );
      expect(parsed).toMatchObject(ranking === undefined ? { reason: "not json" } : { kind: "ranking" });
    }
    expect(new Set(closed.map((t) => t.split(jsonParts.answer)[1])).size).toBeGreaterThan(1);
  });

  it("answers from disk the questions of an interrupted stage", async () => {
    const again = new FakeWorker();
    const resumed = await openWorkerTeacher(makeContext(again, "a"));
    expect(await resumed.complete(wanted)).toEqual(written);
    expect(again.log).not.toContain("sample");
    const fresh = new FakeWorker();
    expect(await (await openWorkerTeacher(makeContext(fresh, "b"))).complete(wanted)).toEqual(written); // and by itself
    expect(fresh.log).toContain("sample");
  });

  it("gives its memory back", async () => {
    expect((await worker.getInfo()).modelIds).toEqual(["teacher"]);
    await teacher.close();
    expect((await worker.getInfo()).modelIds).toEqual([]);
  });
});
