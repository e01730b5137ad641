import { describe, expect, it } from "vitest";
import { CheckpointError } from "../../../src/core/errors.ts";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import { buildIdentity, checkIdentity, type TokenizerParts } from "../../../src/sid/identity.ts";

const shape = { levels: 2, codes: 4, format: "bare" } as const;
const catalogue = Catalogue.of([[0, 1], [2, 3]], shape); // biome-ignore format: codes
const artifact = Uint8Array.from([1, 2, 3]);
const parts: TokenizerParts = {
  artifact,
  catalogue,
  embedder: { model: "minilm", hash: "e", fields: ["title"], dims: 3 },
  data: { name: "shop", hash: "d" },
  config: { levels: 2 },
  seed: 1,
  versions: { torch: "2" },
};
/** As it comes back from disk. */
const stored = (p: TokenizerParts = parts): unknown => JSON.parse(JSON.stringify(buildIdentity(p)));

describe("the identity of a tokenizer", () => {
  it("changes when anything an ID depends on changes", () => {
    const other: Partial<TokenizerParts>[] = [
      { artifact: Uint8Array.from([1, 2, 4]) },
      { catalogue: Catalogue.of([[0, 1], [2, 2]], shape) }, // biome-ignore format: codes
      { embedder: { ...parts.embedder, hash: "f" } },
      { embedder: { ...parts.embedder, fields: ["title", "brand"] } },
      { data: { name: "shop", hash: "x" } },
      { config: { levels: 3 } },
      { seed: 2 },
      { versions: { torch: "3" } },
    ];
    const hashes = [{}, ...other].map((change) => buildIdentity({ ...parts, ...change }).hash);
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(buildIdentity(parts).hash).toBe(hashes[0]);
  });

  it("survives the disk", () => {
    expect(checkIdentity(stored(), artifact, catalogue)).toEqual(buildIdentity(parts));
  });

  it("refuses what does not belong together, naming both hashes", () => {
    const strange = Catalogue.of([[0, 1]], shape);
    expect(() => checkIdentity(stored(), artifact, strange)).toThrow(
      `belongs to catalogue ${catalogue.hash()}, this one is ${strange.hash()}`,
    );
    expect(() => checkIdentity(stored(), Uint8Array.from([9]), catalogue)).toThrow(
      /quantizer artifact is [0-9a-f]{64}, the tokenizer of this catalogue is [0-9a-f]{64}/,
    );
    expect(() => checkIdentity({ ...(stored() as object), seed: 2 }, artifact, catalogue)).toThrow("its own hash");
    for (const nothing of [undefined, {}, { schema: "gr2.tokenizer/9" }])
      expect(() => checkIdentity(nothing, artifact, catalogue)).toThrow(CheckpointError);
  });
});
