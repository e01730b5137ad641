/** A release says the same version everywhere: packages, changelog, kept protos (docs/adr/0001-released-protos.md). */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const match = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map((m) => m[1] ?? "");

const changelog = read("CHANGELOG.md");
const released = match(changelog, /^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$/gm);

describe("the last release", () => {
  it("has one version in the changelog and in both packages", () => {
    const [last] = released;
    expect(last).toBe((JSON.parse(read("package.json")) as { version: string }).version);
    expect([last]).toEqual(match(read("python_worker/pyproject.toml"), /^version = "(.*)"$/gm));
  });

  it("and every one before keeps its protos", () => {
    const kept = readdirSync(new URL("../../proto/released", import.meta.url)).sort();
    expect(kept).toEqual(released.map((version) => `${version}.binpb`).sort());
  });

  it("comes after what is not released yet; every heading is well formed", () => {
    expect(match(changelog, /^## (.*)$/gm)).toEqual(
      ["[Unreleased]", ...released].map((v) => expect.stringContaining(v)),
    );
  });
});
