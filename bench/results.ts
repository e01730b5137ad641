/**
 * Kept results: bench/results/NAME.json holds the claims of one run with its arguments, revision, date and conditions,
 * so that a later run can say what got worse. A ratio is compared whatever the machine;
 * a bare value only on the same hardware.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { ConfigError } from "../src/core/errors.ts";
import type { Claim } from "./claim.ts";

const claim = z.object({
  claim: z.string(),
  value: z.number().nullable(),
  unit: z.string(),
  peer: z.string(),
  peer_value: z.number().nullable(),
  ratio: z.number().nullable(),
  bar: z.string(),
  ok: z.boolean(),
  n: z.number(),
  hardware: z.string(),
});
const kept = z.object({
  bench: z.string(),
  args: z.array(z.string()),
  revision: z.string().nullable(),
  uncommitted_changes: z.boolean().nullable(),
  date: z.string(),
  conditions: z.string(),
  claims: z.array(claim),
});
export type KeptResults = z.output<typeof kept>;
type KeptClaim = KeptResults["claims"][number];

/** How much worse a claim may be before it counts as a regression. */
export const allowedChange = 0.1;

export interface Comparison {
  /** Claims that are worse by more than `allowedChange`, or miss a bar that they cleared. */
  readonly regressed: readonly string[];
  /** Claims that could not be compared, with the reason. */
  readonly notCompared: readonly string[];
  readonly compared: number;
}

const cacheFile = (folder: string, name: string): string => join(folder, `${name}.json`);

export function writeKept(folder: string, results: KeptResults): string {
  mkdirSync(folder, { recursive: true });
  const file = cacheFile(folder, results.bench);
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  return file;
}

export function readKept(folder: string, name: string): KeptResults {
  const file = cacheFile(folder, name);
  if (!existsSync(file)) {
    throw new ConfigError(`no kept results of ${name}: ${file} does not exist`, {
      advice: `Make them at the revision to compare with: npm run bench -- ${name} --keep`,
    });
  }
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new ConfigError(`${file} is not JSON`, { cause, advice: `Make it again: npm run bench -- ${name} --keep` });
  }
  const read = kept.safeParse(content);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new ConfigError(`${file}: ${issue?.path.join(".")}: ${issue?.message}`, {
    advice: `Make it again: npm run bench -- ${name} --keep`,
  });
}

/** What `now` does worse than `before`, in sentences. */
export function compareResults(before: KeptResults, now: readonly Claim[], args: readonly string[]): Comparison {
  const regressed: string[] = [];
  const notCompared: string[] = [];
  let compared = 0;
  if (args.join(" ") !== before.args.join(" ")) {
    notCompared.push(`arguments differ: kept with "${before.args.join(" ")}", now "${args.join(" ")}"`);
  }
  const key = (c: { claim: string; bar: string }): string => `${c.claim}\t${c.bar}`;
  const earlier = new Map(before.claims.map((c) => [key(c), c]));
  const directions = (name: string): Set<boolean> =>
    new Set(now.filter((c) => c.claim === name && c.bar).map((c) => c.bar.includes("<")));
  for (const c of now) {
    const old = earlier.get(key(c));
    earlier.delete(key(c));
    const label = c.bar ? `${c.claim} (bar ${c.bar})` : c.claim;
    if (!old) {
      notCompared.push(`${label}: not among the kept results`);
      continue;
    }
    const pair = comparablePair(old, c, directions(c.claim).size === 2);
    if (typeof pair === "string") {
      notCompared.push(`${label}: ${pair}`);
      continue;
    }
    compared++;
    const { what, from, to, change } = pair;
    if (change > allowedChange) {
      const percent = Number.isFinite(change) ? `${(100 * change).toFixed(0)} % worse` : "worse";
      regressed.push(`${label}: ${what} ${from} -> ${to}, ${percent}`);
    } else if (old.ok && !c.ok) regressed.push(`${label}: ${what} ${from} -> ${to}, misses its bar`);
  }
  for (const old of earlier.values()) notCompared.push(`${old.claim}: kept, but not measured now`);
  return { regressed, notCompared, compared };
}

interface Pair {
  readonly what: string;
  readonly from: number;
  readonly to: number;
  /** Relative, positive = worse; Infinity if it cannot be expressed as a share. */
  readonly change: number;
}

/**
 * The two numbers that a claim stands for, or why they cannot be compared. `twoSided`: the claim has a bar on either
 * side of 1, so that what counts is how far the ratio is from 1.
 */
function comparablePair(old: KeptClaim, now: Claim, twoSided: boolean): Pair | string {
  if (now.bar === "") return "for information: no bar says which direction is better";
  const ratio = now.bar.startsWith("ratio ");
  const what = ratio ? "ratio" : now.unit;
  const from = ratio ? old.ratio : old.value;
  const to = ratio ? now.ratio : now.value;
  if (!ratio && old.hardware !== now.hardware) return `other hardware (kept: ${old.hardware})`;
  if (from === null) return "the kept result has no number";
  if (to === null || Number.isNaN(to)) return { what, from, to: Number.NaN, change: Number.POSITIVE_INFINITY };
  if (twoSided) return { what, from, to, change: Math.max(to, 1 / to) / Math.max(from, 1 / from) - 1 };
  const lost = now.bar.includes("<") ? to - from : from - to;
  if (lost <= 0) return { what, from, to, change: 0 };
  return { what, from, to, change: from === 0 ? Number.POSITIVE_INFINITY : lost / Math.abs(from) };
}
