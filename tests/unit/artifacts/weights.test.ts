/** What a folder of weights says of itself. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readSavedWeights } from "../../../src/artifacts/weights.ts";

const metadata = { catalogue: "aaa" };
const state = { format_version: 1, base: "", metadata, sha256: "123" };

/** A folder with one file. */
function folder(name: string, content: object): string {
  const path = mkdtempSync(join(tmpdir(), "gr2-weights-"));
  writeFileSync(join(path, name), JSON.stringify(content));
  return path;
}

describe("readSavedWeights", () => {
  it("tells whole weights, LoRA and exports apart", () => {
    const whole = folder("gr2_state.json", state);
    expect(readSavedWeights(whole)).toEqual({ path: whole, kind: "state", metadata, sha256: "123" });
    expect(readSavedWeights(folder("gr2_state.json", { ...state, base: "f00" }))?.kind).toBe("lora");
    const exported = folder("gr2_export.json", { schema: "gr2.export/1", ...metadata });
    expect(readSavedWeights(exported)).toMatchObject({ kind: "export", metadata, sha256: "" });
    expect(readSavedWeights(folder("model.safetensors", {}))).toBeUndefined();
  });

  it("refuses other versions", () => {
    expect(() => readSavedWeights(folder("gr2_state.json", { ...state, format_version: 2 }))).toThrow(
      /gr2_state\.json: format_version is 2, this release reads 1/,
    );
    expect(() => readSavedWeights(folder("gr2_state.json", { metadata }))).toThrow(/format_version is undefined/);
    expect(() => readSavedWeights(folder("gr2_export.json", metadata))).toThrow(
      /gr2_export\.json: schema is undefined, this release reads "gr2\.export\/1"/,
    );
  });
});
