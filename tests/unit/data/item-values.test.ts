/**
 * Lists and texts of items as files have them: the cases 11 and 12 of public bug reports, variants of each,
 * and other forms.
 */
import { describe, expect } from "vitest";
import { csv, type Input, ids, items, Parquet, testInputs } from "./shop.ts";

describe("lists", () => {
  const expected: Input["items"] = { 100: { title: "Item 100", categories: ["Home", "Men's Lamps"] } };
  const inCsv = (cell: string): Input["files"] => ({
    "interactions.csv": csv(),
    "items.csv": `item_id,title,categories\n${ids.map((i) => `${i},Item ${i},${cell}\n`).join("")}`,
  });
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
  const inJson = (categories: unknown): Input["files"] => ({
    "interactions.csv": csv(),
    "items.jsonl": items(() => ({ categories })),
  });
  const inParquet = (categories: string): Input["files"] => ({
    "interactions.csv": csv(),
    "items.parquet": new Parquet(`item AS item_id, 'Item ' || item AS title, ${categories} AS categories`),
  });
  testInputs([
    { what: "case 11: JSON in a CSV", files: inCsv(quoted('["Home", "Men\'s Lamps"]')), items: expected },
    {
      what: "case 11: Python in a CSV, as pandas writes it",
      files: inCsv(quoted("['Home', \"Men's Lamps\"]")),
      items: expected,
    },
    { what: "a tuple", files: inCsv(quoted("('Home', \"Men's Lamps\")")), items: expected },
    { what: "NumPy, without commas", files: inCsv(quoted("['Home' \"Men's Lamps\"]")), items: expected },
    { what: "bare words in brackets", files: inCsv(quoted("[Home, Men's Lamps]")), items: expected },
    { what: "bars", files: inCsv("Home|Men's Lamps"), items: expected },
    {
      what: "objects with names, in JSON in a CSV",
      files: inCsv(quoted(`[{'id': 1, 'name': 'Home'}, {'id': 2, 'name': "Men's Lamps"}]`)),
      items: expected,
    },
    { what: "an empty list", files: inCsv("[]"), items: { 100: { categories: [] } } },
    {
      what: "a comma within a name",
      files: inCsv(quoted('["Home, Garden", "Lamps"]')),
      items: { 100: { categories: ["Home, Garden", "Lamps"] } },
    },
    {
      what: "case 12: BIGINT[] in Parquet",
      files: inParquet("[7, item::BIGINT]"),
      items: { 100: { categories: ["7", "100"] } },
    },
    { what: "case 12: a plain BIGINT", files: inParquet("item::BIGINT"), items: { 100: { categories: ["100"] } } },
    {
      what: "case 12: a list of structs",
      files: inParquet("[{'id': 1, 'name': 'Home'}, {'id': 2, 'name': 'Men''s Lamps'}]"),
      items: expected,
    },
    { what: "a list of lists", files: inParquet("[['Home'], ['Men''s Lamps']]"), items: expected },
    { what: "a map", files: inParquet("MAP {'a': 'Home', 'b': 'Men''s Lamps'}"), items: expected },
    {
      what: "DOUBLE[] of whole numbers",
      files: inParquet("[7.0::DOUBLE, item::DOUBLE]"),
      items: { 100: { categories: ["7", "100"] } },
    },
    { what: "nested lists in JSON, Amazon's way", files: inJson([["Home", "Men's Lamps"], ["Home"]]), items: expected },
    { what: "numbers in JSON", files: inJson([7, 8.5]), items: { 100: { categories: ["7", "8.5"] } } },
    { what: "null among them", files: inJson(["Home", null, "", "Men's Lamps"]), items: expected },
    { what: "a text with the separator in JSON", files: inJson("Home|Men's Lamps"), items: expected },
  ]);
});

describe("texts", () => {
  const title = (value: unknown): Input["files"] => ({
    "interactions.csv": csv(),
    "items.jsonl": items(() => ({ title: value })),
  });
  const reads = (text: string): Input["items"] => ({ 100: { title: text } });
  testInputs([
    { what: "a number", files: title(1984), items: reads("1984") },
    {
      what: "a number in Parquet",
      files: { "interactions.csv": csv(), "items.parquet": new Parquet("item AS item_id, 1984::BIGINT AS title") },
      items: reads("1984"),
    },
    {
      what: "brackets that are no list",
      files: title("[REC]: the film"),
      items: { 100: { title: expect.stringContaining("REC") as unknown } },
    },
    { what: "null and NaN", files: title("NaN"), items: reads("") },
    { what: "a list of lines", files: title(["One", "Two"]), items: reads("One Two") },
    {
      what: "the first of two records with one id counts",
      files: { "interactions.csv": csv(), "items.jsonl": items() + items(() => ({ title: "Another" })) },
      items: reads("Item 100"),
    },
    {
      what: "HTML and entities",
      files: title("Lamp &amp; shade<br>"),
      items: { 100: { title: expect.stringContaining("Lamp & shade") as unknown } },
    },
  ]);
});
