/**
 * `npm run bench -- NAME [ARGUMENTS]`: runs bench/NAME and prints one JSON line per claim.
 *   --keep [--conditions TEXT]   also writes bench/results/NAME.json
 *   --compare                    says what is worse than in bench/results/NAME.json
 * Exit code 1: a bar was missed; 8: all bars are met, but something regressed;
 * 2 to 7: an error, see src/core/errors.ts.
 */
import { fileURLToPath } from "node:url";
import { describeError, exitCodeFor } from "../src/cli/errors.ts";
import { ConfigError } from "../src/core/errors.ts";
import { codeRevision } from "../src/run/manifest.ts";
import { type Benchmark, type Claim, toClaim } from "./claim.ts";
import { type Comparison, compareResults, readKept, writeKept } from "./results.ts";

const folder = fileURLToPath(new URL("./results", import.meta.url));
const regressionExitCode = 8;

const benchmarks: Readonly<Record<string, () => Promise<{ bench: Benchmark }>>> = {
  pipeline: () => import("./pipeline.ts"),
  eval: () => import("./eval.ts"),
  candidates: () => import("./candidates.ts"),
  prerank: () => import("./prerank.ts"),
  evidence: () => import("./evidence.ts"),
  rl: () => import("./rl.ts"),
  retrieval: () => import("./retrieval.ts"),
  data: () => import("./data.ts"),
  cases: () => import("./cases.ts"),
  "fuzz-data": () => import("./fuzz-data.ts"),
  sid: () => import("./sid.ts"),
  hacking: () => import("./hacking.ts"),
  serve: () => import("./serve.ts"),
  "fuzz-serve": () => import("./fuzz-serve.ts"),
  plan: () => import("./plan.ts"),
  plugins: () => import("./plugins.ts"),
};

const usage = `usage: npm run bench -- NAME [OPTIONS] [--keep [--conditions TEXT] | --compare]

NAME: ${Object.keys(benchmarks).join(", ")}
OPTIONS: those of the benchmark, see bench/README.md

  --keep              also write the claims to bench/results/NAME.json
  --conditions TEXT   with --keep: what else the machine is doing
  --compare           list what is worse than in bench/results/NAME.json

Prints one JSON line per claim. Exit code 1: a bar was missed; 8: all bars are met, but something regressed.
`;

async function main([name, ...args]: readonly string[]): Promise<number> {
  const load = name === undefined ? undefined : benchmarks[name];
  if (!load) {
    if (name !== undefined && name !== "--help" && name !== "-h") {
      process.stderr.write(`there is no benchmark "${name}"\n\n${usage}`);
      return 2;
    }
    process.stdout.write(usage);
    return name === undefined ? 2 : 0;
  }
  try {
    const own = ownOptions(args);
    const before = own.compare ? readKept(folder, name as string) : undefined;
    const { revision, dirty } = codeRevision("bench/results");
    const claims: Claim[] = [];
    await (await load()).bench((measured) => {
      const claim = toClaim(measured);
      claims.push(claim);
      process.stdout.write(`${JSON.stringify(claim)}\n`);
    }, own.rest);
    const comparison = before && compareResults(before, claims, own.rest);
    if (before && comparison) say(comparison, `${before.revision?.slice(0, 12) ?? "no git"}, ${before.date}`);
    if (own.keep) {
      const file = writeKept(folder, {
        bench: name as string,
        args: [...own.rest],
        revision,
        uncommitted_changes: dirty,
        date: new Date().toISOString().slice(0, 10),
        conditions: own.conditions,
        claims,
      });
      process.stderr.write(`kept in ${file}\n`);
    }
    if (claims.some((c) => !c.ok)) return 1;
    return comparison && comparison.regressed.length > 0 ? regressionExitCode : 0;
  } catch (e) {
    process.stderr.write(`${describeError(e, false)}\n`);
    return exitCodeFor(e);
  }
}

/** The options of this file, taken out of a benchmark's own arguments. */
function ownOptions(args: readonly string[]): { keep: boolean; compare: boolean; conditions: string; rest: string[] } {
  const rest = [...args];
  const flag = (name: string): boolean => {
    const at = rest.indexOf(name);
    if (at >= 0) rest.splice(at, 1);
    return at >= 0;
  };
  const keep = flag("--keep");
  const compare = flag("--compare");
  const at = rest.indexOf("--conditions");
  const [, conditions] = at >= 0 ? rest.splice(at, 2) : [];
  if (at >= 0 && (!conditions || !keep)) {
    throw new ConfigError("--conditions needs a text and goes with --keep, for example --conditions 'idle machine'");
  }
  return { keep, compare, conditions: conditions ?? "", rest };
}

function say({ regressed, notCompared, compared }: Comparison, kept: string): void {
  const lines = [
    ...notCompared.map((line) => `not compared: ${line}`),
    ...regressed.map((line) => `REGRESSED: ${line}`),
    `${compared} claims compared with the kept results (${kept}): ${regressed.length} regressed`,
  ];
  process.stderr.write(`${lines.join("\n")}\n`);
}

process.exitCode = await main(process.argv.slice(2));
