/** `gr2 pipeline --seeds`: one run per seed, then their combined results. */
import { join } from "node:path";
import { type SeedRun, type SeedsSummary, seedRun, summariseSeeds } from "../commands/seeds.ts";
import { loadConfig } from "../config/load.ts";
import { ConfigError } from "../core/errors.ts";
import { writePrettyJson } from "../run/files.ts";
import { nameRun, type PipelineArguments, type PipelineOutput, runPipeline } from "./pipeline.ts";
import { renderTables, signed, signedInterval, type Table } from "./tables.ts";

/** Runs NAME-seedK for every seed and writes ROOT/NAME.seeds.json; after an interruption, the same command resumes. */
export async function pipelineSeeds(args: PipelineArguments & { seeds: string }, out: PipelineOutput): Promise<void> {
  const seeds = parseSeeds(args.seeds);
  if (args.set.some((s) => s.startsWith("seed=")))
    throw new ConfigError("--seeds and --set seed= contradict each other", { advice: "Leave out --set seed=." });
  const name = nameRun(args);
  const config = loadConfig(args.config, args.set);
  const finished: SeedRun[] = [];
  for (const [i, seed] of seeds.entries()) {
    const run = seedRun(name, seed);
    out.write(`\nseed ${seed} (${i + 1} of ${seeds.length}): run ${run}\n`);
    const metrics = await runPipeline({ ...args, run, set: [...args.set, `seed=${seed}`] }, out);
    if (metrics) finished.push({ name: run, metrics });
  }
  if (finished.length < seeds.length) return; // stopped before the evaluation, as requested
  const summary = summariseSeeds(args.root, name, finished, "N@5", config.eval.bootstrap);
  const file = join(args.root, `${name}.seeds.json`);
  writePrettyJson(file, summary);
  out.write(`\n${renderSeeds(summary)}\n\n${file}\n`);
}

function renderSeeds({ metric, runs, slices }: SeedsSummary): string {
  const several = runs.length > 1;
  const tables = slices.map(({ slice, slates, users, systems }): Table => {
    const n = [...new Set(slates)].join(", ");
    const what =
      slice === "end_to_end"
        ? `all ${n} test slates, misses count as 0`
        : `test slates that contain their true item: ${n}`;
    return {
      title: `${metric}, ${what}`,
      rows: [
        [
          "system",
          ...runs.map((r) => `seed ${r.seed}`),
          "mean",
          "Δ pre-rank",
          "95 % users",
          ...(several ? ["95 % seeds", "95 % both"] : []),
        ],
        ...systems.map(({ system, value, over_prerank: d }) => [
          system,
          ...(value.runs ?? []).map((v) => v.toFixed(4)),
          value.value.toFixed(4),
          ...(system === "prerank"
            ? []
            : [
                signed(d.value),
                signedInterval(d.users),
                ...(d.seeds && d.both ? [signedInterval(d.seeds), signedInterval(d.both)] : []),
              ]),
        ]),
      ],
      note: `Paired over ${users} users and ${runs.length} seeds.`,
    };
  });
  const chosen = runs.map((r) => `${r.recommended} (seed ${r.seed})`).join(", ");
  const none = "The runs have no test slate in common: eval.maxSlates draws users by seed; set it to 0.";
  return `${tables.length > 0 ? renderTables(tables, "text") : none}\n\nrecommended: ${chosen}`;
}

export function parseSeeds(text: string): number[] {
  const seeds = text.split(",").map((part) => {
    const seed = Number(part);
    if (!/^\d+$/.test(part.trim())) throw invalid(text);
    return seed;
  });
  if (new Set(seeds).size < seeds.length) throw invalid(text);
  return seeds;
}

const invalid = (text: string): ConfigError =>
  new ConfigError(`--seeds ${text}: expected different whole numbers, for example --seeds 0,1,2`);
