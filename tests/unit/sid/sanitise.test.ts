import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { neutralise } from "../../../src/sid/sanitise.ts";
import { sidTokens } from "../../../src/sid/semantic-id.ts";

const specials = [
  ...sidTokens({ levels: 2, codes: 3, format: "wrapped" }),
  "<|im_start|>",
  "<|im_end|>",
  "<|endoftext|>",
  "<think>",
  "</think>",
  "<s>",
  "</s>",
  "<<SYS>>",
  "[INST]",
  "[/INST]",
  "[PAD]",
  "EOT",
  "E",
  "a b",
];

const clean = (text: string) => neutralise(text, specials);

describe("neutralise", () => {
  it.each([
    [
      "plain text stays",
      "Café crème, 50% off — L'Oréal 8.4 oz [50ml] AT&T",
      "Café crème, 50% off — L'Oréal 8.4 oz [50ml] AT&T",
    ],
    ["semantic IDs", "x <s_a_1><s_b_2> y", "x ‹s_a_1›‹s_b_2› y"],
    ["chat markers", "<|im_start|>system", "‹|im_start|›system"],
    ["thoughts", "<think>hm</think>", "‹think›hm‹/think›"],
    ["instruction brackets", "[INST] a [/INST] [ inst ]", "(INST) a (/INST) (inst)"],
    ["full-width brackets", "＜｜im_end｜＞", "‹|im_end|›"],
    ["zero-width characters", "<\u200b|im_\u2060end|\ufeff>", "‹|im_end|›"],
    ["bidirectional controls, soft hyphens, tags", "[I\u202eN\u00adS\u{e0041}T]", "(INST)"],
    ["named entities", "&lt;s_a_1&gt; &amp;", "‹s_a_1› &"],
    ["numeric entities", "&#60;s_a_1&#x3E; &#91;INST&#93;", "‹s_a_1› (INST)"],
    ["nested entities", "&amp;amp;lt;s_a_1&amp;#62;", "‹s_a_1›"],
    ["entities spelt with entities", "&#38;#38;&#35;60;x", "‹x"],
    ["entities hidden by full width and zero width", "＆l\u200dt；s_a_1＆gt;", "‹s_a_1›"],
    ["old Windows quotes", "Women&#146;s &#150; new", "Women’s – new"],
    ["control characters and white space", "a\u0000b\t\tc\r\n d\u0085e\u00a0f ", "ab c d e f"],
    ["lone surrogates", "a\ud800b", "ab"],
    ["accents are composed", "e\u200b\u0301", "é"],
    ["mixed fractions keep their value", "5½ in, 2&frac34;", "5 1⁄2 in, 2 3⁄4"],
    ["impossible entities", "&#xD800;x&#99999999;y&nosuch;", "x y&nosuch;"],
    ["nothing", " \u200b ", ""],
  ])("%s", (_what, text, expected) => {
    expect(neutralise(text, sidTokens({ levels: 2, codes: 3, format: "wrapped" }))).toBe(expected);
  });

  it("takes out special tokens that look like words, also those that arise by taking out others", () => {
    expect(neutralise("EEOTOT", ["EOT"])).toBe("E OT");
    expect(neutralise("x[INEOTST]y", ["EOT", "IN ST"])).toBe("x( )y");
    expect(neutralise("a EOT b", ["EOT", "a b"])).toBe("");
    expect(neutralise("EOTX EOT", ["EOT", "EOTX"])).toBe("");
    expect(neutralise("a.b axb", ["a.b", " ", ""])).toBe("axb");
  });

  it("takes a pattern, whatever its flags", () => {
    expect(neutralise("x EOT eot y", /eot/iy)).toBe("x y");
    expect(neutralise("xay", /z*/)).toBe("xay");
    const shared = /EOT/g;
    expect(neutralise("EOT EOT", shared)).toBe("");
    expect(shared.lastIndex).toBe(0);
  });

  it("is quick on hostile input", () => {
    const started = performance.now();
    for (const text of [
      `${"&".repeat(50_000)}${"#35;".repeat(50_000)}60;`,
      `&${"amp;".repeat(100_000)}lt;`,
      "[".repeat(200_000),
      `[${"a".repeat(200_000)}`,
      "<".repeat(200_000),
      "EO".repeat(50_000) + "T".repeat(50_000),
    ]) {
      const out = clean(text);
      expect(clean(out)).toBe(out);
    }
    expect(performance.now() - started).toBeLessThan(5000);
  });

  // Text made of what an attacker has: tokens and their pieces, entities, disguises.
  const fragment = fc.oneof(
    fc.constantFrom(...specials),
    fc.constantFrom(..."<>|[]/&#;&＜＞｜［］＆＃；_ \t\n\u0000\u200b\u200d\ufeff\u00ad\u202e\u0301\u0338\ud800\udc00'"),
    fc.constantFrom(
      "&lt;",
      "&gt;",
      "&amp;",
      "amp;",
      "lt;",
      "&#60;",
      "&#x3c;",
      "#38;",
      "&lsqb;",
      "&vert;",
      "&shy;",
      "&#0;",
      "&#65308;",
    ),
    fc.constantFrom(
      "s_a_1",
      "s_b_",
      "|sid_begin|",
      "im_start",
      "INST",
      "think",
      "EO",
      "T",
      "a",
      "b",
      "ﷺ",
      "ﬁ",
      "5½",
      "Å",
      "\uffa0",
      "👩‍💻",
    ),
    fc.string({ unit: "binary", maxLength: 3 }),
  );
  const hostile = fc.array(fragment, { maxLength: 14 }).map((parts) => parts.join(""));

  it("never leaves a special token, and is idempotent", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        const out = clean(text);
        for (const token of specials) expect(out).not.toContain(token);
        expect(out).not.toMatch(/[<>]|\[\/?[A-Za-z_]+\]|&(lt|gt|amp|#\d+|#x[\da-f]+);|\s\s|^\s|\s$/i);
        expect(out).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u);
        expect(out.normalize("NFKC")).toBe(out);
        expect(clean(out)).toBe(out);
      }),
      { numRuns: 3000 },
    );
  });

  it("cannot be undone by putting two texts together, for tokens in angle brackets", () => {
    const angled = specials.filter((token) => token.startsWith("<"));
    fc.assert(
      fc.property(hostile, hostile, (a, b) => {
        const joined = clean(a) + clean(b);
        for (const token of angled) expect(joined).not.toContain(token);
      }),
    );
  });
});
