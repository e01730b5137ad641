/** Random tables with a known truth, at a size for CI; the large one is `npm run bench -- fuzz-data`. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, it } from "vitest";
import { aTable, compareTable } from "../../table-fuzz.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-fuzz-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

it("any table in any form gives the interactions, items and bad rows that it was made of", async () => {
  await fc.assert(
    fc.asyncProperty(aTable, async (table) => {
      const folder = mkdtempSync(join(root, "table-"));
      const { difference } = await compareTable(table, folder);
      rmSync(folder, { recursive: true });
      expect(difference).toBe("");
    }),
    { numRuns: 40, seed: 14 },
  );
}, 120_000);
