/**
 * Awkward inputs from public bug reports, run as a user would: one folder per input (NN-name: recipe.yaml, data), each
 * run through `gr2`, its result compared with the right one (bench/case-truths.ts).
 *   npm run bench -- cases --folder FOLDER [--only 01,07] [--whole]
 * --whole: input 03 through all stages. Input 08 needs the Python worker for half a minute, 23 for some seconds.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { DataError } from "../src/core/errors.ts";
import { truths } from "./case-truths.ts";
import type { Benchmark } from "./claim.ts";

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: { folder: { type: "string" }, only: { type: "string" }, whole: { type: "boolean", default: false } },
  });
  if (values.folder === undefined) throw new DataError("--folder names the folder with the inputs.");
  const folder = resolve(values.folder);
  const only = values.only?.split(",");
  const names = readdirSync(folder)
    .filter((n) => /^\d\d-/.test(n) && (only === undefined || only.includes(n.slice(0, 2))))
    .sort();
  const temp = mkdtempSync(join(tmpdir(), "gr2-cases-"));
  let right = 0;
  try {
    for (const name of names) {
      const check = truths[name.slice(0, 2)];
      const wrong = check
        ? await check({
            folder: join(folder, name),
            temp: mkdtempSync(join(temp, "case-")),
            whole: values.whole,
          }).catch((e: unknown) => (e instanceof Error ? e.message : String(e)))
        : "there is no check for it";
      if (wrong === undefined) right++;
      else process.stderr.write(`${name}: ${wrong}\n`);
      emit({
        claim: `cases/${name}`,
        value: wrong === undefined ? 1 : 0,
        unit: "right",
        n: 1,
        bar: ["value", ">=", 1],
      });
    }
    const n = names.length;
    emit({ claim: "cases/inputs with the right result", value: right, unit: `of ${n}`, n, bar: ["value", ">=", n] });
  } finally {
    rmSync(temp, { recursive: true, force: true });
  }
};
