import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DataError } from "../../../src/core/errors.ts";
import { Trie } from "../../../src/sid/trie.ts";

const trie = new Trie([
  [3, 1, 2],
  [0, 5, 5],
  [3, 1, 0],
  [3, 4, 4],
  [0, 5, 5],
]);
const list = (tokens: Int32Array | undefined) => (tokens === undefined ? undefined : [...tokens]);

/** Sequences of one length (codes), of any int32, or of different lengths that are no prefixes of each other. */
const fixedLength = fc
  .integer({ min: 1, max: 4 })
  .chain((length) => fc.array(fc.array(fc.nat(3), { minLength: length, maxLength: length }), { maxLength: 40 }));
const wild = fc.array(fc.tuple(fc.integer(), fc.integer()), { maxLength: 20 });
const mixedLength = fc
  .array(fc.array(fc.nat(3), { maxLength: 4 }), { maxLength: 30 })
  .map((all) => all.map((s) => [...s, 9]));
const sequences = fc.oneof(fixedLength, wild, mixedLength);

describe("Trie", () => {
  it("says what may follow", () => {
    expect(list(trie.allowed([]))).toEqual([0, 3]);
    expect(list(trie.allowed([3]))).toEqual([1, 4]);
    expect(list(trie.allowed([3, 1]))).toEqual([0, 2]);
    expect(trie.isComplete([3, 1, 2])).toBe(true);
    expect(trie.isComplete([3, 1])).toBe(false);
  });

  it("has no answer, rather than an empty one, where nothing may follow", () => {
    expect(trie.allowed([3, 1, 2])).toBeUndefined();
    expect(trie.allowed([1])).toBeUndefined();
    expect(trie.allowed([3, 1, 2, 0])).toBeUndefined();
    expect(new Trie([]).allowed([])).toBeUndefined();
    expect(new Trie([]).isComplete([])).toBe(false);
  });

  it("lists the rows under a prefix, colliding ones together", () => {
    expect(list(trie.rowsUnder([0, 5, 5]))).toEqual([1, 4]);
    expect(list(trie.rowsUnder([3, 1]))).toEqual([2, 0]);
    expect(list(trie.rowsUnder([]))).toEqual([1, 4, 2, 0, 3]);
    expect(list(trie.rowsUnder([7]))).toEqual([]);
  });

  it("shares prefixes: 1 root, 2 + 3 + 4 nodes", () => {
    expect(trie.numNodes).toBe(10);
    expect(trie.numSequences).toBe(5);
  });

  it("refuses sequences a decoder could not end", () => {
    expect(() => new Trie([[1, 2], [1]])).toThrow("sequence 1 of the trie is a prefix of sequence 0");
    expect(() => new Trie([[1], []])).toThrow(DataError);
    expect(() => new Trie([[1.5]])).toThrow(DataError);
    expect(() => new Trie([[2 ** 31]])).toThrow(DataError);
    expect(() => new Trie([[Number.NaN]])).toThrow(DataError);
  });

  it("allows exactly the continuations a search of the list finds", () => {
    fc.assert(
      fc.property(sequences, fc.array(fc.nat(4), { maxLength: 4 }), (all, other) => {
        const built = new Trie(all);
        const prefixes = [other, ...all.flatMap((s) => Array.from({ length: s.length + 1 }, (_, n) => s.slice(0, n)))];
        for (const prefix of prefixes) {
          const under = all.flatMap((s, row) => (prefix.every((t, i) => t === s[i]) ? [row] : []));
          const next = new Set(under.flatMap((row) => all[row]?.[prefix.length] ?? []));
          const expected = [...next].sort((a, b) => a - b);
          expect(list(built.allowed(prefix))).toEqual(expected.length > 0 ? expected : undefined);
          expect([...built.rowsUnder(prefix)].sort((a, b) => a - b)).toEqual(under);
          expect(built.isComplete(prefix)).toBe(all.some((s) => s.join() === prefix.join()));
        }
      }),
    );
  });

  it("leads every walk to a sequence: no dead ends, no strangers", () => {
    fc.assert(
      fc.property(sequences, fc.infiniteStream(fc.nat(1000)), (all, choices) => {
        fc.pre(all.length > 0);
        const built = new Trie(all);
        const walk: number[] = [];
        while (!built.isComplete(walk)) {
          const allowed = built.allowed(walk);
          expect(allowed?.length).toBeGreaterThan(0);
          walk.push(allowed?.[(choices.next().value as number) % allowed.length] as number);
        }
        expect(all.map((s) => s.join())).toContain(walk.join());
      }),
    );
  });

  it("does not depend on the order of the sequences", () => {
    fc.assert(
      fc.property(sequences, (all) => {
        const [a, b] = [new Trie(all), new Trie([...all].reverse())];
        expect(a.numNodes).toBe(b.numNodes);
        for (const s of all)
          for (let n = 0; n < s.length; n++) expect(a.allowed(s.slice(0, n))).toEqual(b.allowed(s.slice(0, n)));
      }),
    );
  });
});
