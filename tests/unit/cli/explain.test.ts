import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { type ExplainArguments, explainReward } from "../../../src/cli/explain.ts";
import { main } from "../../../src/cli/program.ts";
import { renderSidReport, showSidReport } from "../../../src/cli/sid-report.ts";
import { configSchema } from "../../../src/config/schema.ts";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import { sidReport } from "../../../src/sid/report.ts";

const esc = String.fromCharCode(27);
const noColour = (text: string) => text.replaceAll(new RegExp(`${esc}\\[[0-9;]*m`, "g"), "");
const recipe = join(mkdtempSync(join(tmpdir(), "gr2-explain-")), "recipe.yaml");
writeFileSync(recipe, "rl: { reward: { kind: rank-promotion, format: conditional, formatBonus: 0.2, invalid: -1 } }\n");

const explain = async (response: string, more: Partial<ExplainArguments> = {}): Promise<string> =>
  noColour(
    await explainReward({ response, candidates: 4, target: 3, config: recipe, set: [], root: "nowhere", ...more }),
  );

describe("gr2 reward explain", () => {
  it("shows parse, move, arithmetic and sum of a promotion", async () => {
    const text = await explain("c3 fits<|answer|>c3 c1 c2 c4<|end|>");
    expect(text).toContain("compact format, with visible reasoning, 4 candidates");
    expect(text).toContain("reasoning  c3 fits");
    expect(text).toContain("c3 > c1 > c2 > c4: a complete permutation");
    expect(text).toContain("c3: position 3 in the input order, position 1 in the answer");
    expect(text).toContain("(3 - 1) / 4 = 0.5");
    expect(text).toContain("0.2: the true item moved up");
    expect(text).toMatch(/reward +0\.5 \+ 0\.2 = 0\.7$/);
  });

  it.each([
    ["c1 c2 c3 c4<|end|>", [], "0: the true item did not move up", "reward     0"],
    ["c1 c2 c4 c3<|end|>", [], "(3 - 4) / 4 = -0.25", "reward     -0.25"],
    ["c1 c2 c3 c4<|end|>", ["rl.reward.format=unconditional"], "every valid answer earns the bonus", "reward     0.2"],
    [
      "c1 c2 c3 c4<|end|>",
      ["rl.reward.kind=auc", "rl.reward.dehacked=true"],
      "the input order repeated",
      "reward     0",
    ],
    // The true item of position 3 at position 2 of 4: 2 of 3 pairs right, and the bonus of a promotion.
    ["c1 c3 c2 c4<|end|>", ["rl.reward.kind=auc", "rl.reward.dehacked=true"], "AUC of the answer = ", "= 0.8667"],
    ["c3 c2 c1 c4<|end|>", ["rl.reward.kind=ndcg", "rl.reward.format=none"], "NDCG@5 of the answer", "reward     0.5"],
  ])("%s with %s", async (response, set, because, reward) => {
    const text = await explain(response, { set });
    expect(text).toContain(because);
    expect(text).toMatch(new RegExp(`${reward}$`));
  });

  it.each([
    ["c3 c1 c2<|end|>", "missing candidates (3 of 4 candidates)"],
    ["c3 c1 c3 c2<|end|>", "repeated candidate (c3 appears twice)"],
    ["c3 c1 c2 c12<|end|>", "not a candidate (c12"],
    ["c3 c1 c2 c4", "not ended"],
    ["c3 c1 c2 c4<|end|> thanks", "trailing text (thanks)"],
  ])("says why %s cannot be read", async (response, reason) => {
    const text = await explain(response);
    expect(text).toContain(`unparseable: ${reason}`);
    expect(text).toMatch(/reward +-1$/);
  });

  it("tells c1 from c10", async () => {
    const text = await explain("c10 c1 c2 c3 c4 c5 c6 c7 c8 c9<|end|>", { candidates: 10, target: 10 });
    expect(text).toContain("(10 - 1) / 10 = 0.9");
  });

  it("reads the slate and the spelling from a run, and the answer from a file", async () => {
    const root = mkdtempSync(join(tmpdir(), "gr2-explain-"));
    const stages = join(root, "r", "stages");
    mkdirSync(join(stages, "sid"), { recursive: true });
    mkdirSync(join(stages, "slates"));
    const shape = { levels: 2, codes: 4, format: "bare" } as const;
    const catalogue = Catalogue.of(
      [0, 1, 2, 3].map((c) => [c, 3 - c]),
      shape,
    );
    writeFileSync(join(stages, "sid", "catalogue.json"), JSON.stringify(catalogue.toJSON()));
    const slates = [
      { id: "a1", candidates: [2, 0, 1], targetIndex: 1 },
      { id: "b2", candidates: [2, 0, 1], targetIndex: -1 },
      { id: "c3", candidates: [2, 0, 1], targetIndex: 1, labels: [0, 2, 1] },
    ];
    writeFileSync(join(stages, "slates", "rerank.jsonl"), slates.map((s) => `${JSON.stringify(s)}\n`).join(""));
    writeFileSync(join(root, "r", "config.resolved.yaml"), JSON.stringify(configSchema.parse({})));
    const file = join(root, "answer.txt");
    writeFileSync(file, "<s_a_0><s_b_3><s_a_2><s_b_1><s_a_1><s_b_2><|end|>\n");
    const asked = { candidates: undefined, target: undefined, response: undefined, file, run: "r", root };
    const text = await explain("", { ...asked, slate: "a1" });
    expect(text).toContain("<s_a_0><s_b_3> > <s_a_2><s_b_1> > <s_a_1><s_b_2>");
    expect(text).toContain("(2 - 1) / 3 = 0.3333");
    // Labels 0 2 1 become 2 0 1: 2 of 3 pairs right, before 1 of 3; positions 2, 3 become 1, 3.
    const graded = await explain("", { ...asked, slate: "c3" });
    expect(graded).toContain("<s_a_0><s_b_3> (label 2): position 2 in the input order, position 1 in the answer");
    expect(graded).toContain("mean over true items of (before - after) / N = 0.1667");
    expect(graded).toContain(": more pairs in the right order than in the input");
    await expect(explain("", { ...asked, slate: "b2" })).rejects.toThrow("no reward is defined");
    await expect(explain("", { ...asked, slate: "zz" })).rejects.toThrow("no slate zz");
    await expect(explain("", asked)).rejects.toThrow("--run needs --slate");
  });

  it("refuses questions that make no sense, with exit code 2", async () => {
    await expect(explain("x", { target: 9 })).rejects.toThrow("there are only 4 candidates");
    await expect(explain("x", { mode: "loud" })).rejects.toThrow("expected think or answer");
    await expect(explain("x", { candidates: undefined })).rejects.toThrow("--candidates N and --target K");
    await expect(explain("x", { response: undefined })).rejects.toThrow("either as an argument or with --file");
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      expect(await main(["reward", "explain", "--file", "/nonexistent", "-n", "3", "-k", "1"])).toBe(2);
      expect(String(err.mock.calls[0])).toContain("cannot be read (ENOENT)");
    } finally {
      err.mockRestore();
    }
  });
});

describe("gr2 sid report", () => {
  it("shows uniqueness, use, purity and collisions with titles", () => {
    const codes = [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 0],
    ];
    const catalogue = Catalogue.of(codes, { levels: 2, codes: 2, format: "bare" });
    const report = sidReport({ catalogue, titles: ["A", "B", "C", "D"], labels: ["x", "x", "y", "y"] });
    const text = noColour(renderSidReport(report));
    expect(text).toContain("50.00 % of 4 items have a unique semantic ID");
    expect(text).toMatch(/1 +2 of 2 +100\.00 % +2 +0 \(2 items\)/);
    expect(text).toContain("[1, 0]  C | D");
    expect(text).toContain("2 items share 1 ID:");
    const examples = [{ row: 0, nearest: [{ row: 1, similarity: 0.875 }] }];
    const fit = {
      reconstruction: 0.43,
      reconstruction_assigned: 0.48,
      uniqueness_nearest: 0.9,
      moved_items: 2,
      largest_bucket: 7,
    };
    const neighbours = [[1], [0], [3], [2]];
    const more = noColour(
      renderSidReport(sidReport({ catalogue, titles: ["A", "B", "C", "D"], neighbours, examples, fit })),
    );
    expect(more).toContain(
      "43.00 % of the embeddings' variance lost by the nearest codes, 48.00 % by the assigned codes",
    );
    expect(more).toContain("90.00 % unique, at most 7 items under one prefix; 2 items moved out of a full one");
    expect(more).toMatch(/1 +100\.00 % +33\.33 %/); // neighbours share their first code; two pairs of six do by chance
    expect(more).toContain("  [0, 0]  A\n      1  0.88  [0, 1]  B");
    expect(() => showSidReport(mkdtempSync(join(tmpdir(), "gr2-")), "nope")).toThrow('no run "nope"');
  });
});
