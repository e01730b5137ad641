import { describe, expect, it } from "vitest";
import {
  baselinesFor,
  findSystem,
  isPolicy,
  quickModes,
  servable,
  sibling,
  systems,
} from "../../../src/eval/systems.ts";

describe("the registry of systems", () => {
  it("names every system once, and only systems it has", () => {
    const names = systems.map((s) => s.name);
    expect(new Set(names).size).toBe(names.length);
    for (const s of systems) {
      for (const other of s.comparedWith ?? []) expect(names).toContain(other);
      if (s.kind !== "control") continue;
      const whole = findSystem(s.of);
      expect(whole?.kind).not.toBe("control");
      expect({ stage: s.stage, mode: s.mode }).toEqual({ stage: whole?.stage, mode: whole?.mode });
      // Its answers start from those of the whole system, which are therefore asked for first.
      expect(names.indexOf(s.of)).toBeLessThan(names.indexOf(s.name));
    }
  });

  it("compares all with the pre-rank and what has no language model, and what was trained with what it began from", () => {
    expect(baselinesFor("sft")).toEqual(["prerank", "prior", "evidence"]);
    expect(baselinesFor("rl")).toEqual(["prerank", "prior", "evidence", "sft"]);
    expect(baselinesFor("sft_direct")).toEqual(["prerank", "prior", "evidence", "direct"]);
    expect(baselinesFor("rl_nothink")).toEqual(["prerank", "prior", "evidence", "sft_nothink"]);
    expect(baselinesFor("rl_other_thought")).toEqual(["prerank", "prior", "evidence"]);
  });

  it("tells policies from baselines and controls", () => {
    expect(systems.filter((s) => isPolicy(s.name)).map((s) => s.name)).toEqual([
      ...["direct", "sft_direct", "sft", "sft_nothink", "rl_direct", "rl", "rl_nothink"],
    ]);
  });

  it("finds what the same weights answer in another mode", () => {
    const sft = findSystem("sft");
    expect(sft && sibling(sft, "direct")?.name).toBe("sft_direct");
    expect(sft && sibling(sft, "prior")).toBeUndefined();
    expect(servable(["think"]).map((s) => s.name)).toEqual(["sft", "rl"]);
    expect(servable(quickModes).map((s) => s.name)).toEqual(["evidence", "prior", "direct", "sft_direct", "rl_direct"]);
  });
});
