/**
 * Ten thousand random tables with a known truth (tests/table-fuzz.ts), in all formats,
 * through the data stage's own code.
 *   npm run bench -- fuzz-data [--tables 10000] [--seed 0]
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { aTable, compareTable } from "../tests/table-fuzz.ts";
import type { Benchmark } from "./claim.ts";

const atOnce = 500;
const maxShown = 10;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: { tables: { type: "string", default: "10000" }, seed: { type: "string", default: "0" } },
  });
  const [n, seed] = [Number(values.tables), Number(values.seed)];
  const root = mkdtempSync(join(tmpdir(), "gr2-fuzz-data-"));
  const start = process.cpuUsage();
  let [silent, refused, crashed, done] = [0, 0, 0, 0];
  try {
    for (let block = 0; done < n; block++)
      for (const table of fc.sample(aTable, { seed: seed + 7919 * block, numRuns: Math.min(atOnce, n - done) })) {
        const folder = join(root, String(done++));
        mkdirSync(folder);
        const found = await compareTable(table, folder).catch((e: unknown) => ({
          ...{ difference: `crashed: ${e instanceof Error ? e.stack : String(e)}`, refused: false, crashed: true },
        }));
        if (found.difference !== "") {
          if ("crashed" in found) crashed++;
          else if (found.refused) refused++;
          else silent++;
          if (silent + refused + crashed <= maxShown) {
            const file = join(tmpdir(), `gr2-fuzz-data-${seed}-${done - 1}.json`);
            writeFileSync(file, JSON.stringify(table, null, 1));
            process.stderr.write(`table ${done - 1} (${file}): ${found.difference.slice(0, 1500)}\n`);
          }
        }
        rmSync(folder, { recursive: true, force: true });
      }
    const { user, system } = process.cpuUsage(start);
    const bar = ["value", "<=", 0] as const;
    emit({ claim: "fuzz-data/data sets that differ from the truth", value: silent, unit: "tables", n, bar });
    emit({ claim: "fuzz-data/readable tables refused", value: refused, unit: "tables", n, bar });
    emit({ claim: "fuzz-data/crashes", value: crashed, unit: "tables", n, bar });
    emit({ claim: "fuzz-data/CPU milliseconds per table", value: (user + system) / 1000 / n, unit: "ms", n });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
};
