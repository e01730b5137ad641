/** `npm run bench -- NAME [ARGUMENTS]`: runs bench/NAME and prints one JSON line a claim. Exit code 1: a bar was missed. */
import { describeError, exitCodeOf } from "../src/cli/errors.ts";
import { type Benchmark, toClaim } from "./claim.ts";

const benchmarks: Readonly<Record<string, () => Promise<{ bench: Benchmark }>>> = {
  pipeline: () => import("./pipeline.ts"),
  eval: () => import("./eval.ts"),
  prerank: () => import("./prerank.ts"),
  evidence: () => import("./evidence.ts"),
  rl: () => import("./rl.ts"),
  retrieval: () => import("./retrieval.ts"),
  data: () => import("./data.ts"),
  sid: () => import("./sid.ts"),
  hacking: () => import("./hacking.ts"),
  serve: () => import("./serve.ts"),
  "fuzz-serve": () => import("./fuzz-serve.ts"),
  plan: () => import("./plan.ts"),
};

async function main([name, ...args]: readonly string[]): Promise<number> {
  const load = name === undefined ? undefined : benchmarks[name];
  if (!load) {
    const known = Object.keys(benchmarks).join(", ");
    process.stderr.write(
      `${name === undefined ? "which benchmark?" : `no benchmark "${name}";`} there are: ${known}. See bench/README.md.\n`,
    );
    return 2;
  }
  let missed = 0;
  try {
    await (await load()).bench((measured) => {
      const claim = toClaim(measured);
      if (!claim.ok) missed++;
      process.stdout.write(`${JSON.stringify(claim)}\n`);
    }, args);
  } catch (e) {
    process.stderr.write(`${describeError(e, false)}\n`);
    return exitCodeOf(e);
  }
  return missed > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
