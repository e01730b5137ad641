import { mkdirSync, mkdtempSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { embedderHash, embedTexts } from "../../../src/models/embedder.ts";
import { FakeWorker } from "../../../src/worker/fake.ts";

describe("the embedder", () => {
  it("is known by the names and contents of its files, wherever they lie", async () => {
    const make = (weights: string): string => {
      const folder = mkdtempSync(join(tmpdir(), "gr2-embedder-"));
      mkdirSync(join(folder, "1_Pooling"));
      writeFileSync(join(folder, "1_Pooling", "config.json"), "{}");
      writeFileSync(join(folder, "model.safetensors"), weights);
      return folder;
    };
    const folder = make("a");
    const hash = await embedderHash(folder);
    expect(await embedderHash(make("a"))).toBe(hash);
    writeFileSync(join(folder, ".receipt.json"), "how it came here");
    expect(await embedderHash(folder)).toBe(hash);
    expect(await embedderHash(make("b"))).not.toBe(hash);
    renameSync(join(folder, "1_Pooling"), join(folder, "2_Pooling"));
    expect(await embedderHash(folder)).not.toBe(hash);
    const hubIds = await Promise.all(["owner/model", "owner/other", "owner/model"].map(embedderHash));
    expect(new Set(hubIds).size).toBe(2);
  });

  it("embeds in parts without a seam", async () => {
    const texts = Array.from({ length: 1030 }, (_, i) => `item ${i}`);
    const { signal } = new AbortController();
    const worker = new FakeWorker();
    const all = await embedTexts(worker, "fake", texts, 64, { signal });
    const last = await embedTexts(worker, "fake", texts.slice(-1), 64, { signal });
    expect(all.rows).toBe(1030);
    expect(all.data.subarray(-all.cols)).toEqual(last.data);
    expect(worker.log).toEqual(["embed", "embed", "embed", "embed"]);
  });
});
