/** `gr2`: arguments and exit codes, nothing else. Every command is loaded on demand, so that `gr2 doctor` runs on a broken setup. */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { exitCodes } from "../core/errors.ts";
import { describeError, exitCodeFor } from "./errors.ts";
import { addServeToken } from "./serve-token.ts";

const collect = (value: string, before: string[]): string[] => [...before, value];

function positiveInteger(value: string): number {
  const n = Number(value);
  if (!Number.isInteger(n) || n < 1) throw new InvalidArgumentError("It must be a whole number above 0.");
  return n;
}

function port(value: string): number {
  const n = Number(value);
  if (!/^\d+$/.test(value) || n > 65_535) throw new InvalidArgumentError("It must be a whole number from 0 to 65535.");
  return n;
}

function positive(value: string): number {
  const n = Number(value);
  if (!(n > 0 && Number.isFinite(n))) throw new InvalidArgumentError("It must be a number above 0.");
  return n;
}

export function program(out: NodeJS.WriteStream = process.stdout): Command {
  const print = (text: string) => void out.write(`${text}\n`);
  const gr2 = new Command("gr2")
    .description("GR2, the Generative Reasoning Re-ranker: train it, measure it, look at it.")
    .showSuggestionAfterError()
    .exitOverride();
  const root = ["--root <folder>", "folder of all runs", "runs"] as const;
  const config = ["-c, --config <file>", "recipe", "configs/nano-ml100k.yaml"] as const;
  const set = ["-s, --set <path=value>", "override one setting (repeatable)", collect, [] as string[]] as const;

  gr2
    .command("pipeline")
    .description(
      "run every stage that is not up to date: data, semantic IDs, mid-training, traces, SFT, RL, evaluation, report",
    )
    .option(...config)
    .option(...set)
    .option("-r, --run <name>", "name of the run (default: the recipe's file name)")
    .option(...root)
    .option("--from <stage>", "run this stage and all behind it again")
    .option("--until <stage>", "stop behind this stage")
    .option("--fresh", "forget what an earlier run of this name made")
    .option("--no-share", "make every stage here, even if another run under --root has the same one")
    .option("--seeds <list>", "one run for each seed, NAME-seedK, and their results together: 0,1,2")
    .action(async (options) => {
      if (options.seeds === undefined) await (await import("./pipeline.ts")).runPipeline(options, out);
      else await (await import("./seeds.ts")).pipelineSeeds(options, out);
    });

  gr2
    .command("compare <runs...>")
    .description("what differs between runs: settings, code, data; results on the same test slates, paired; costs")
    .option("-m, --metric <name>", "R@1, R@3, R@5, N@3, N@5 or MRR", "N@5")
    .addOption(new Option("--json", "print one JSON object").conflicts("markdown"))
    .option("--markdown", "print Markdown")
    .option(...root)
    .action(async (runs: string[], options: { metric: string; json?: boolean; markdown?: boolean; root: string }) => {
      print((await import("./compare.ts")).compare(runs, options));
    });

  gr2
    .command("watch [name]")
    .description("follow a running pipeline from another terminal")
    .option(...root)
    .action(async (name: string | undefined, options: { root: string }) => {
      const { handleInterrupts } = await import("../worker/interrupt.ts");
      const { signal, dispose } = handleInterrupts();
      await (await import("./watch.ts")).watch({ root: options.root, name, signal }, out).finally(dispose);
    });

  gr2
    .command("rerank <name>")
    .description("re-rank a table of slates with a finished run, or show one user's slate (docs/daily-work.md)")
    .option("--in <file>", "slates: .parquet, .csv, .tsv or .jsonl, text also as .gz; - is stdin")
    .option("--out <file>", "ranked slates: .parquet, .csv or .jsonl; resumable (default: JSONL on stdout)")
    .option("--format <format>", "of stdin: jsonl, csv or tsv", "jsonl")
    .option("--column <field=column>", "which column holds what (repeatable)", collect, [])
    .option("--user <id>", "a user of the run's data: history, candidates, reasoning, order")
    .option("--system <name>", "which system answers, as serve.system (default: the recommended one)")
    .option("--top-n <count>", "candidates to keep (default: all)", positiveInteger)
    .option("--workers <count>", "workers (serve.workers)", positiveInteger)
    .option("--json", "with --user: print one JSON object")
    .option(...set)
    .option(...root)
    .action(async (name: string, options) => {
      if (options.user === undefined)
        await (await import("./rerank.ts")).rerankFile({ ...options, name }, { out, errors: process.stderr });
      else print(await (await import("./rerank-user.ts")).rerankUser({ ...options, name }));
    });

  const serve = gr2
    .command("serve [name]")
    .description("answer re-rank requests with a finished run, over gRPC and HTTP (docs/serving.md)")
    .option("-r, --run <name>", "the run; may be a symbolic link to one, which SIGHUP follows again")
    .option("-p, --port <port>", "of gRPC; 0 = any free one (serve.grpc.port)", port)
    .option("--http-port <port>", "of HTTP; 0 = any free one (serve.http.port)", port)
    .addOption(
      new Option("--log <what>", "a line of JSON a request on stderr, without anything callers wrote").choices([
        "requests",
      ]),
    )
    .option(...set)
    .option(...root)
    .action(async (name: string | undefined, options) => (await import("./serve.ts")).serveRun(name, options, out));
  addServeToken(serve, print);

  gr2
    .command("doctor")
    .description("check this machine: Python, packages, device, memory, disk, data")
    .option("--python <path>", "Python to examine")
    .option("--json", "print one JSON object")
    .action(async (options: { python?: string; json?: boolean }) => {
      const { examine, renderChecks } = await import("./doctor.ts");
      const checks = await examine({ python: options.python });
      const ok = checks.every((c) => c.state !== "problem");
      print(options.json ? JSON.stringify({ ok, checks }) : renderChecks(checks));
      if (!ok) process.exitCode = exitCodes.ENVIRONMENT;
    });

  gr2
    .command("plan [file]")
    .description("how much memory a recipe needs, stage by stage, whether it fits, and what to change if not")
    .option(...set)
    .option("--memory <GiB>", "memory of the GPU to plan for (default: this machine's GPU, else its memory)", positive)
    .action(async (file: string | undefined, options: { set: string[]; memory?: number }) => {
      print((await import("./plan.ts")).plan({ config: file ?? config[2], ...options }));
    });

  gr2
    .command("export <name>")
    .description("write a run's model as a checkpoint that plain transformers and vLLM load")
    .requiredOption("-o, --out <folder>", "folder to write; an earlier export there is replaced")
    .option("--stage <stage>", "rl, sft or midtrain (default: the last that is finished)")
    .option("--dtype <type>", "float32 or bfloat16 (default: the recipe's runtime.dtype)")
    .option(...root)
    .action(async (name: string, options: { out: string; stage?: string; dtype?: string; root: string }) => {
      print(await (await import("./export.ts")).exportModel({ name, ...options }, print));
    });

  const run = gr2.command("run").description("look at runs");
  run
    .command("show [name]")
    .description("state, stages and results of a run; without a name: all runs")
    .option(...root)
    .action(async (name: string | undefined, options: { root: string }) => {
      const show = await import("./show.ts");
      print(name === undefined ? show.showRuns(options.root) : show.showRun(options.root, name));
    });

  gr2
    .command("rollout")
    .description("look at sampled answers")
    .command("show <name>")
    .description("the newest rollouts of a run: text, parse, reward")
    .option("-n, --n <count>", "how many", positiveInteger, 4)
    .option(...root)
    .action(async (name: string, options: { n: number; root: string }) => {
      print((await import("./show.ts")).showRollouts(options.root, name, options.n));
    });

  gr2
    .command("report <name>")
    .description("write report.html of a run again")
    .option(...root)
    .action(async (name: string, options: { root: string }) => {
      const { RunFolder } = await import("../run/run-folder.ts");
      const { writeReport } = await import("../report/report.ts");
      print(await writeReport(RunFolder.view(options.root, name).path, { force: true }));
    });

  gr2
    .command("reward")
    .description("look at rewards")
    .command("explain [response]")
    .description("what an answer earns in RL, step by step; candidates are spelled c1 to cN, or as in a run")
    .option("-n, --candidates <N>", "number of candidates", positiveInteger)
    .option("-k, --target <K>", "position of the true item in the input order, from 1", positiveInteger)
    .option("--file <file>", "read the answer from a file")
    .option("--mode <mode>", "think or answer (default: by what the answer holds)")
    .option("-r, --run <name>", "settings, items and slate of this run")
    .option("--slate <id>", "a slate of that run")
    .option(...config)
    .option(...set)
    .option(...root)
    .action(async (response: string | undefined, options) => {
      print((await import("./explain.ts")).explainReward({ ...options, response }));
    });

  const sid = gr2
    .command("sid")
    .description("look at a run's semantic IDs, give new items theirs, measure the techniques");
  sid
    .command("report <name>")
    .description("uniqueness, collisions, use of codes and purity of a run's semantic IDs")
    .option(...root)
    .action(async (name: string, options: { root: string }) => {
      print((await import("./sid-report.ts")).showSidReport(options.root, name));
    });
  sid
    .command("encode <name>")
    .description("IDs for items that came later; no ID given out before changes, and what OUT holds already is kept")
    .requiredOption("-i, --items <file>", "new items: CSV, TSV, JSONL (each may end in .gz) or Parquet")
    .requiredOption("-o, --out <file>", "JSONL to write or to add to: codes, text of the ID, nearest known items")
    .option(
      "--column <field=column>",
      "where id, title, brand, categories, description stand (repeatable)",
      collect,
      [],
    )
    .option(...root)
    .action(async (name: string, options: { items: string; out: string; column: string[]; root: string }) => {
      print(await (await import("./sid-encode.ts")).sidEncode({ name, ...options }, print));
    });

  const data = gr2.command("data").description("look at data");
  data
    .command("inspect <path>")
    .description("what a folder or file holds, and the recipe that reads it")
    .option("--json", "print one JSON object")
    .option("-o, --output <file>", "write the recipe to this file")
    .action(async (path: string, options: { json?: boolean; output?: string }) => {
      print(await (await import("./data-inspect.ts")).dataInspect(path, options));
    });

  data
    .command("show <name>")
    .description("a run's data in numbers: lengths, popularity, segments, cold items, repeats, ties")
    .option(...root)
    .action(async (name: string, options: { root: string }) => {
      print((await import("./data-show.ts")).showData(options.root, name));
    });

  sid
    .command("ablate")
    .description("one row a technique on or off: uniqueness, reconstruction and next-item recall, over seeds")
    .requiredOption("-c, --config <file>", "recipe, for example configs/ablations/sid-ml100k.yaml")
    .option(...set)
    .option("--seeds <list>", "seeds", "0,1,2")
    .option("--rows <list>", "rows of the table (default: all)")
    .option("--out <folder>", "where cells and table go (default: runs/ablate-RECIPE)")
    .option("--positions <count>", "validation positions searched at most", positiveInteger, 5000)
    .action(async (options) => (await import("./sid-ablate.ts")).ablateSid(options, out));

  const configuration = gr2.command("config").description("check a recipe, or list every setting");
  configuration
    .command("check <file>")
    .description("is this recipe valid?")
    .option(...set)
    .action(async (file: string, options: { set: string[] }) => {
      print((await import("../config/load.ts")).checkConfigFile(file, options.set));
    });
  configuration
    .command("docs")
    .description("every setting with its default and meaning, as Markdown")
    .action(async () => print((await import("../config/docs.ts")).renderConfigDocs()));
  return gr2;
}

/** Runs one command line and returns the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    await program().parseAsync([...argv], { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (e) {
    if (e instanceof CommanderError) return e.exitCode === 0 ? 0 : exitCodes.CONFIG; // commander has printed it
    process.stderr.write(`${describeError(e, Boolean(process.env.GR2_DEBUG))}\n`);
    return exitCodeFor(e);
  }
}
