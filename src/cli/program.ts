/** `gr2`: arguments and exit codes. Commands are loaded on demand: `gr2 doctor` works on a broken setup. */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { exitCodes } from "../core/errors.ts";
import { readOwnPackage } from "../core/own-package.ts";
import type { InspectOptions } from "./data-inspect.ts";
import { describeError, exitCodeFor } from "./errors.ts";
import { addServeToken } from "./serve-token.ts";

const describeExitCodes = (): string =>
  ["0 done", "1 bug", ...Object.entries(exitCodes).map(([code, n]) => `${n} ${code.toLowerCase()}`)].join(", ");

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
    .description("GR2, the Generative Reasoning Re-ranker: train, evaluate, inspect and serve it.")
    .version(readOwnPackage().version, "-V, --version", "print the version")
    .addHelpText("after", `\nExit codes: ${describeExitCodes()} (docs/runs.md).`)
    .showSuggestionAfterError()
    .exitOverride();
  const root = ["--root <folder>", "folder that contains the runs", "runs"] as const;
  const config = ["-c, --config <file>", "recipe", "configs/nano-ml100k.yaml"] as const;
  const json = ["--json", "print one JSON object"] as const;
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
    .option("--from <stage>", "rerun this stage and all later ones")
    .option("--until <stage>", "stop after this stage")
    .option("--fresh", "discard the results of an earlier run of this name")
    .option("--no-share", "run every stage, even if another run under --root has finished the same one")
    .option("--seeds <list>", "one run per seed, named NAME-seedK, and their combined results; for example 0,1,2")
    .action(async (options) => {
      if (options.seeds === undefined) await (await import("./pipeline.ts")).runPipeline(options, out);
      else await (await import("./seeds.ts")).pipelineSeeds(options, out);
    });

  gr2
    .command("compare <runs...>")
    .description("compare runs: settings, code and data that differ, paired results on the same test slates, costs")
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
    .option("--in <file>", "slates: .parquet, .csv, .tsv or .jsonl (text may be gzipped: .gz); - for stdin")
    .option("--out <file>", "ranked slates: .parquet, .csv or .jsonl; resumable (default: JSONL on stdout)")
    .option("--format <format>", "format of stdin: jsonl, csv or tsv", "jsonl")
    .option("--column <field=column>", "column that contains a field of the slates (repeatable)", collect, [])
    .option("--user <id>", "show this user of the run's data: history, candidates, reasoning, order")
    .option("--system <name>", "system that answers (serve.system; default: the recommended one)")
    .option("--top-n <count>", "candidates to keep (default: all)", positiveInteger)
    .option("--workers <count>", "number of workers (serve.workers)", positiveInteger)
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
    .description("serve re-rank requests from a finished run, over gRPC and HTTP (docs/serving.md)")
    .option("-r, --run <name>", "the run, or a symbolic link to one; SIGHUP rereads the link")
    .option("-p, --port <port>", "gRPC port; 0 = any free port (serve.grpc.port)", port)
    .option("--http-port <port>", "HTTP port; 0 = any free port (serve.http.port)", port)
    .addOption(
      new Option("--log <what>", "log one line of JSON per request to stderr, without any text from callers").choices([
        "requests",
      ]),
    )
    .option(...set)
    .option(...root)
    .action(async (name: string | undefined, options) => (await import("./serve.ts")).serveRun(name, options, out));
  addServeToken(serve, print);

  gr2
    .command("init <name>")
    .description("create a project: a recipe, your own reward and pre-ranker with tests, and a README")
    .action(async (name: string) => {
      print((await import("../commands/init.ts")).initProject(name));
    });

  gr2
    .command("doctor")
    .description("check this machine: Python, packages, device, memory, disk, data")
    .option("--python <path>", "Python interpreter to check")
    .option(...json)
    .action(async (options: { python?: string; json?: boolean }) => {
      const { examine, renderChecks } = await import("./doctor.ts");
      const checks = await examine({ python: options.python });
      const ok = checks.every((c) => c.state !== "problem");
      print(options.json ? JSON.stringify({ ok, checks }) : renderChecks(checks));
      if (!ok) process.exitCode = exitCodes.ENVIRONMENT;
    });

  gr2
    .command("plan [file]")
    .description("estimate the memory that each stage of a recipe needs, whether it fits, and what to change if not")
    .option(...set)
    .option("--memory <GiB>", "GPU memory to plan for (default: this machine's GPU, else its main memory)", positive)
    .option(...json)
    .action(async (file: string | undefined, options: { set: string[]; memory?: number; json?: boolean }) => {
      print((await import("./plan.ts")).plan({ config: file ?? config[2], ...options }));
    });

  gr2
    .command("export <name>")
    .description("export a run's model as a checkpoint that transformers and vLLM can load")
    .requiredOption("-o, --out <folder>", "folder to write; replaces an earlier export there")
    .option("--stage <stage>", "rl, sft or midtrain (default: the last finished one)")
    .option("--dtype <type>", "float32 or bfloat16 (default: the recipe's runtime.dtype)")
    .option(...root)
    .action(async (name: string, options: { out: string; stage?: string; dtype?: string; root: string }) => {
      print(await (await import("./export.ts")).exportModel({ name, ...options }, print));
    });

  gr2
    .command("trec <name>")
    .description("write a run's test slates and orders as TREC qrels and run files (docs/daily-work.md)")
    .requiredOption("-o, --out <folder>", "folder to write")
    .option(...root)
    .action(async (name: string, options: { out: string; root: string }) => {
      const { RunFolder } = await import("../run/run-folder.ts");
      const { writeTrec } = await import("../commands/trec.ts");
      const { qrels, runs, slates } = await writeTrec(RunFolder.view(options.root, name), options.out);
      print(`${options.out}: ${slates} slates in ${qrels.join(" and ")}, ${runs.length} systems in SYSTEM.run.txt`);
    });

  const run = gr2.command("run").description("inspect runs");
  run
    .command("show [name]")
    .description("show the state, stages and results of a run; without a name, list all runs")
    .option(...root)
    .option(...json)
    .action(async (name: string | undefined, options: { root: string; json?: boolean }) => {
      const show = await import("./show.ts");
      print(name === undefined ? show.showRuns(options) : show.showRun(name, options));
    });

  gr2
    .command("rollout")
    .description("inspect sampled answers")
    .command("show <name>")
    .description("show a run's latest rollouts: text, parsed order, reward")
    .option("-n, --n <count>", "how many", positiveInteger, 4)
    .option(...root)
    .option(...json)
    .action(async (name: string, options: { n: number; root: string; json?: boolean }) => {
      print((await import("./show.ts")).showRollouts(name, options));
    });

  gr2
    .command("report <name>")
    .description("rewrite a run's report.html")
    .option(...root)
    .action(async (name: string, options: { root: string }) => {
      const { RunFolder } = await import("../run/run-folder.ts");
      const { writeReport } = await import("../report/report.ts");
      print(await writeReport(RunFolder.view(options.root, name).path, { force: true }));
    });

  gr2
    .command("reward")
    .description("inspect rewards")
    .command("explain [response]")
    .description("explain the RL reward of an answer, step by step; write candidates as c1 to cN, or as in a run")
    .option("-n, --candidates <N>", "number of candidates", positiveInteger)
    .option("-k, --target <K>", "position of the true item in the input order, from 1", positiveInteger)
    .option("--file <file>", "read the answer from a file")
    .option("--mode <mode>", "think or answer (default: detected from the answer)")
    .option("-r, --run <name>", "use the settings, items and slate of this run")
    .option("--slate <id>", "a slate of that run")
    .option(...config)
    .option(...set)
    .option(...root)
    .option(...json)
    .action(async (response: string | undefined, options) => {
      print(await (await import("./explain.ts")).explainReward({ ...options, response }));
    });

  const sid = gr2
    .command("sid")
    .description("inspect a run's semantic IDs, assign IDs to new items, ablate the techniques");
  sid
    .command("report <name>")
    .description("show uniqueness, collisions, code usage and purity of a run's semantic IDs")
    .option(...root)
    .option(...json)
    .action(async (name: string, options: { root: string; json?: boolean }) => {
      print((await import("./sid-report.ts")).showSidReport(name, options));
    });
  sid
    .command("encode <name>")
    .description("assign semantic IDs to new items; existing IDs never change, and entries already in OUT are kept")
    .requiredOption("-i, --items <file>", "new items: CSV, TSV, JSONL (each may end in .gz) or Parquet")
    .requiredOption("-o, --out <file>", "JSONL file to write or append to: codes, text of the ID, nearest known items")
    .option(
      "--column <field=column>",
      "column that contains id, title, brand, categories or description (repeatable)",
      collect,
      [],
    )
    .option(...root)
    .action(async (name: string, options: { items: string; out: string; column: string[]; root: string }) => {
      print(await (await import("./sid-encode.ts")).sidEncode({ name, ...options }, print));
    });

  const data = gr2.command("data").description("inspect data");
  data
    .command("inspect <path>")
    .description("describe the data in a folder or file, and propose a recipe that reads it")
    .option(...json)
    .option("-o, --output <file>", "write the recipe to this file")
    .option("-m, --module <file>", "read it with your own adapter (docs/plugins.md)")
    .option("--options <yaml>", "options of that module, for example '{from: 2024-01}'")
    .option("--module-version <text>", "version of the data, if the module does not read a path")
    .action(async (path: string, options: InspectOptions) => {
      print(await (await import("./data-inspect.ts")).dataInspect(path, options));
    });

  data
    .command("show <name>")
    .description("show statistics of a run's data: lengths, popularity, segments, cold items, repeats, ties")
    .option(...root)
    .option(...json)
    .action(async (name: string, options: { root: string; json?: boolean }) => {
      print((await import("./data-show.ts")).showData(name, options));
    });

  sid
    .command("ablate")
    .description(
      "compare semantic-ID techniques on and off: uniqueness, reconstruction and next-item recall, over seeds",
    )
    .requiredOption("-c, --config <file>", "recipe, for example configs/ablations/sid-ml100k.yaml")
    .option(...set)
    .option("--seeds <list>", "seeds", "0,1,2")
    .option("--rows <list>", "rows of the table (default: all)")
    .option("--out <folder>", "folder for cells and table (default: runs/ablate-RECIPE)")
    .option("--positions <count>", "maximum number of validation positions to search", positiveInteger, 5000)
    .action(async (options) => (await import("./sid-ablate.ts")).ablateSid(options, out));

  const configuration = gr2.command("config").description("check a recipe, or list every setting");
  configuration
    .command("check <file>")
    .description("check that a recipe is valid")
    .option(...set)
    .action(async (file: string, options: { set: string[] }) => {
      print((await import("../config/load.ts")).checkConfigFile(file, options.set));
    });
  configuration
    .command("docs")
    .description("print every setting with its default and meaning, as Markdown")
    .option(...json)
    .action(async ({ json }: { json?: boolean }) => {
      const docs = await import("../config/docs.ts");
      print(json ? JSON.stringify(docs.configRows()) : docs.renderConfigDocs());
    });
  configuration
    .command("schema")
    .description("print the JSON Schema of recipes, for editors (docs/daily-work.md)")
    .action(async () => print(JSON.stringify((await import("../config/json-schema.ts")).configJsonSchema(), null, 1)));

  gr2
    .command("completion")
    .description('print the shell completion script: eval "$(gr2 completion)" in bash')
    .action(async () => print((await import("./completion.ts")).bashCompletion(gr2)));
  return gr2;
}

/** Runs one command line and returns the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    await program().parseAsync([...argv], { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (e) {
    if (e instanceof CommanderError) return e.exitCode === 0 ? 0 : exitCodes.CONFIG; // commander has already printed it
    process.stderr.write(`${describeError(e, Boolean(process.env.GR2_DEBUG))}\n`);
    return exitCodeFor(e);
  }
}
