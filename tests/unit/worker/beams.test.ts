/** What beam search promises: kept by FakeWorker for any catalogue, and found out when it is broken. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WorkerError } from "../../../src/core/errors.ts";
import { Trie } from "../../../src/sid/trie.ts";
import { checkBeams } from "../../../src/worker/beams.ts";
import { FakeWorker } from "../../../src/worker/fake.ts";
import { byteTokenizerJson } from "../../../src/worker/fake-tokenizer.ts";

const worker = new FakeWorker();
const model = worker.loadModel({ source: { kind: "scratch", architecture: {}, tokenizerJson: byteTokenizerJson([]) } });

describe("beam search", () => {
  it("gives min(width, items left) rows: unique, sorted, none excluded, the best of an exhaustive search", async () => {
    await model;
    const items = fc.uniqueArray(fc.tuple(fc.nat(3), fc.nat(3)), { minLength: 1, maxLength: 12, selector: String });
    await fc.assert(
      fc.asyncProperty(items, fc.integer({ min: 1, max: 14 }), fc.nat(), async (sequences, beamWidth, keep) => {
        const trie = new Trie(sequences);
        const allButOne = sequences.flatMap((_, row) => (row === keep % sequences.length ? [] : [row]));
        const prompts = [[1], [2, 3], [4]];
        const excluded = [[], allButOne, sequences.map((_, row) => row)];
        const request = { prompts, trie, beamWidth, excluded };
        const wide = await worker.beamSearch({ ...request, beamWidth: sequences.length });
        const result = await worker.beamSearch(request);
        checkBeams(request, result);
        const rankedRows = (r: typeof result, p: number) => [
          ...r.rows.data.subarray(p * r.rows.cols, (p + 1) * r.rows.cols),
        ];
        const found = rankedRows(result, 0).filter((r) => r >= 0);
        expect(found).toEqual(rankedRows(wide, 0).slice(0, found.length));
        expect(rankedRows(result, 1)).toEqual([keep % sequences.length, ...Array(beamWidth - 1).fill(-1)]);
        expect(new Set(rankedRows(result, 2))).toEqual(new Set([-1]));
      }),
      { numRuns: 60 },
    );
  });

  it("is refused, with the prompt, when it breaks its contract", () => {
    const trie = new Trie([[1], [2], [3]]);
    const request = { prompts: [[1], [1]], trie, beamWidth: 2, excluded: [[], [0, 1]] };
    const answer = (rows: number[], logprobs: number[]) => ({
      rows: { rows: 2, cols: 2, data: Int32Array.from(rows) },
      logprobs: { rows: 2, cols: 2, data: Float32Array.from(logprobs) },
    });
    const none = -Infinity;
    const good = [-1, -2, -3, none];
    expect(() => checkBeams(request, answer([0, 1, 2, -1], good))).not.toThrow();
    for (const [rows, logprobs, message] of [
      [[0, 0, 2, -1], good, "prompt 0, position 2: row 0 appears twice"],
      [[0, 3, 2, -1], good, "prompt 0, position 2: there is no item row 3"],
      [[0, -1, 2, -1], good, "prompt 0, position 2: there is no item row -1"],
      [[0, 1, 1, -1], good, "prompt 1, position 1: row 1 was excluded"],
      [[0, 1, 2, 0], good, "prompt 1, position 2: row 0 although none is left"],
      [[0, 1, 2, -1], [-2, -1, -3, none], "prompt 0, position 2: log-prob -1 after -2"],
      [[0, 1, 2, -1], [-1, Number.NaN, -3, none], "prompt 0, position 2: log-prob NaN"],
      [[0, 1, 2, -1], [0.5, -1, -3, none], "prompt 0, position 1: log-prob 0.5"],
    ] as const)
      expect(() => checkBeams(request, answer([...rows], [...logprobs]))).toThrow(message);
    expect(() => checkBeams({ ...request, beamWidth: 3 }, answer([0, 1, 2, -1], good))).toThrow(WorkerError);
  });
});
