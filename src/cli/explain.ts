/**
 * `gr2 reward explain`: parses one answer and explains its reward step by step. Parser, verification and arithmetic are
 * those of RL; this file only adds the wording.
 */
import { existsSync, readFileSync } from "node:fs";
import pc from "picocolors";
import { toLabelledSlate } from "../artifacts/slates.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError, RunError } from "../core/errors.ts";
import { itemId } from "../core/ids.ts";
import { loadDataset } from "../data/cache.ts";
import type { LabelledSlate } from "../data/slate-items.ts";
import type { Item } from "../data/types.ts";
import { closePlugins } from "../plugins/python.ts";
import { openReward } from "../plugins/reward.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import { type Parsed, parseResponse } from "../prompts/parse.ts";
import { markers } from "../prompts/pieces.ts";
import type { PromptMode } from "../prompts/rerank.ts";
import type { Score } from "../reward/reward.ts";
import { isIdeal, judge, type Verdict } from "../reward/verify.ts";
import { RunFolder } from "../run/run-folder.ts";
import { Catalogue } from "../sid/catalogue.ts";
import { codeToken } from "../sid/semantic-id.ts";
import { number, plain } from "./format.ts";

export interface ExplainArguments {
  readonly response?: string;
  readonly file?: string;
  /** Number of candidates, spelled c1 to cN in the response. */
  readonly candidates?: number;
  /** Position of the true item in the input order, from 1. */
  readonly target?: number;
  /** A slate of a run, instead of candidates and target; its items are spelled as semantic IDs. */
  readonly run?: string;
  readonly slate?: string;
  readonly mode?: string;
  readonly config: string;
  readonly set: readonly string[];
  readonly root: string;
  readonly json?: boolean;
}

interface ExplainedResponse {
  readonly config: Config;
  readonly response: string;
  readonly spellings: readonly string[];
  /** Relevance of every candidate, in input order. */
  readonly labels: readonly number[];
  /** The slate as passed to the reward. */
  readonly readSlate: () => Promise<LabelledSlate>;
  /** The name of a candidate in the explanation. */
  readonly getName: (index: number) => string;
  /** The parser's message with the candidates' names. */
  readonly named: (text: string) => string;
}

/** The explanation as text. Throws ConfigError or RunError for invalid arguments. */
export async function explainReward(args: ExplainArguments): Promise<string> {
  const explained = args.run === undefined ? fromNumbers(args) : fromRun(args, args.run);
  const { config, response, spellings, labels, getName, named } = explained;
  const mode = chooseMode(args.mode, config, response);
  const parsed = parseResponse(response, spellings, mode, config.prompts);
  const score = parsed.kind === "ranking" ? await askReward(explained, mode, parsed) : undefined;
  const verdict = judge(parsed, labels, config.rl.reward, () => score as Score);
  if (args.json) return JSON.stringify({ mode, parsed, ...verdict });
  const steps: [string, string][] = [
    [
      "read",
      `${config.prompts.format} format, ${mode === "think" ? "with" : "without"} visible reasoning, ` +
        `${spellings.length} candidates`,
    ],
  ];
  if (parsed.kind === "unparseable")
    steps.push(
      ["parse", `${pc.red("unparseable")}: ${parsed.reason} (${plain(named(parsed.detail), 160)})`],
      ["invalid", `rl.reward.invalid = ${number(verdict.parts.invalid)}`],
    );
  else {
    if (parsed.reasoning !== "") steps.push(["reasoning", plain(named(parsed.reasoning), 300)]);
    steps.push(
      ["parse", `${parsed.order.map(getName).join(" > ")}: a complete permutation`],
      ...labels.flatMap((label, i): [string, string][] => (label > 0 ? [trueItem(i, parsed.order)] : [])),
      ["ranking", rankingText(verdict, labels, parsed.order, config, score)],
      ["format", formatText(verdict, labels, parsed.order, config)],
    );
  }
  const parts = Object.values(verdict.parts).filter((p) => p !== 0);
  const sum = parts.length > 1 ? `${parts.map(number).join(" + ")} = ` : "";
  steps.push(["reward", `${sum}${pc.bold(number(verdict.reward))}`]);
  return steps.map(([name, text], i) => `${i + 1}  ${name.padEnd(10)} ${text}`).join("\n");

  function trueItem(i: number, order: readonly number[]): [string, string] {
    const graded = labels[i] === 1 ? "" : ` (label ${labels[i]})`;
    return [
      "true item",
      `${getName(i)}${graded}: position ${i + 1} in the input order, position ${order.indexOf(i) + 1} in the answer`,
    ];
  }
}

/** The built-in reward, or the module that the recipe names. */
async function askReward(
  { config, readSlate }: ExplainedResponse,
  mode: PromptMode,
  { order, reasoning }: Extract<Parsed, { kind: "ranking" }>,
): Promise<Score> {
  const slate = await readSlate();
  try {
    const reward = await openReward({ config, items: [] });
    const [score] = await reward.score([{ slate, mode, order, reasoning }]);
    return score as Score;
  } finally {
    await closePlugins();
  }
}

function rankingText(
  verdict: Verdict,
  labels: readonly number[],
  order: readonly number[],
  config: Config,
  score: Score | undefined,
): string {
  const { kind, ndcgK, dehacked } = config.rl.reward;
  const single = isSingle(labels);
  if (dehacked && verdict.identity && !isIdeal(labels))
    return (
      `${number(0)}: the input order repeated although ` +
      `${single ? "the true item was not first" : "it was not ideal"} (rl.reward.dehacked)`
    );
  const value = number(verdict.parts.ranking);
  if (kind === "module") {
    const details = Object.entries(verdict.details).map(([name, addend]) => `${name} ${number(addend)}`);
    const because = score?.because ? [plain(score.because, 160)] : [];
    const why = [...details, ...because].join("; ");
    return `${config.rl.reward.module} says ${value}${why === "" ? "" : ` (${why})`}`;
  }
  if (kind !== "rank-promotion") {
    const name = kind === "ndcg" ? `NDCG@${ndcgK}` : "AUC";
    return `${name} of the answer${dehacked ? "" : " - of the input order"} = ${value}`;
  }
  return single
    ? `rank promotion (before - after) / N = (${verdict.before + 1} - ${verdict.after + 1}) / ${order.length} = ` +
        `${value}`
    : `rank promotion, mean over true items of (before - after) / N = ${value}`;
}

const isSingle = (labels: readonly number[]): boolean => labels.filter((l) => l > 0).length === 1;

function formatText(verdict: Verdict, labels: readonly number[], order: readonly number[], config: Config): string {
  const { format } = config.rl.reward;
  const paid = number(verdict.parts.format);
  const [before, after] = [verdict.before, verdict.after];
  if (format === "none") return `${paid}: no bonus (rl.reward.format = none)`;
  if (format === "unconditional")
    return `${paid}: every valid answer earns the bonus (rl.reward.format = unconditional)`;
  if (!isSingle(labels)) {
    if (isIdeal(labels) && isIdeal(order.map((i) => labels[i] as number))) return `${paid}: an ideal order stays ideal`;
    return `${paid}: ${verdict.parts.format === 0 ? "no more" : "more"} pairs in the right order than in the input`;
  }
  if (after < before) return `${paid}: the true item moved up`;
  if (before === 0 && after === 0) return `${paid}: the true item was first and stays first`;
  return `${paid}: the true item did not move up (rl.reward.format = conditional)`;
}

function chooseMode(asked: string | undefined, config: Config, response: string): PromptMode {
  if (asked === "think" || asked === "answer") return asked;
  if (asked !== undefined) throw new ConfigError(`--mode ${asked}: expected think or answer`);
  if (config.prompts.format === "json") return response.includes('"ranking"') ? "think" : "answer";
  return response.includes(markers.answer) ? "think" : "answer";
}

function readResponse(args: ExplainArguments): string {
  if ((args.response === undefined) === (args.file === undefined))
    throw new ConfigError("give the answer either as an argument or with --file", {
      advice: `For example: gr2 reward explain --candidates 3 --target 2 'c2 c1 c3${markers.end}'`,
    });
  if (args.response !== undefined) return args.response;
  try {
    return readFileSync(args.file as string, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw new ConfigError(`--file ${args.file}: cannot be read (${(cause as NodeJS.ErrnoException).code ?? cause})`, {
      cause,
    });
  }
}

/** Replaces c1 to cN by semantic IDs of one code: the parser then sees the same text as in a run. */
function fromNumbers(args: ExplainArguments): ExplainedResponse {
  const { candidates: n, target } = args;
  if (n === undefined || target === undefined)
    throw new ConfigError("give --candidates N and --target K, or --run NAME and --slate ID");
  if (target > n) throw new ConfigError(`--target ${target}: there are only ${n} candidates`);
  const spell = (k: number): string => codeToken(0, k);
  const labels = Array.from({ length: n }, (_, i) => (i === target - 1 ? 1 : 0));
  return {
    config: loadConfig(args.config, args.set),
    response: readResponse(args).replace(/\bc([1-9][0-9]*)\b/g, (_, k: string) => spell(Number(k))),
    spellings: Array.from({ length: n }, (_, i) => spell(i + 1)),
    labels,
    readSlate: async () => ({
      id: "c1 to cN",
      history: [],
      candidates: labels.map((_, i) => nameItem(`c${i + 1}`)),
      scores: labels.map((_, i) => n - i),
      labels,
    }),
    getName: (i) => `c${i + 1}`,
    named: (text) => text.replace(/<s_a_(\d+)>/g, "c$1").replace(/^candidate (\d+) /, (_, i) => `c${Number(i) + 1} `),
  };
}

/** For a run whose data are gone: items without text. */
const withoutItems = (slate: Slate, catalogue: Catalogue): LabelledSlate => ({
  id: slate.id,
  history: [],
  candidates: slate.candidates.map((row) => nameItem(catalogue.textAt(row))),
  scores: slate.scores,
  labels: slateLabels(slate),
});

const nameItem = (name: string): Item => ({
  ...{ id: itemId(name), title: name, brand: "", categories: [], description: "" },
});

function fromRun(args: ExplainArguments, name: string): ExplainedResponse {
  const folder = RunFolder.view(args.root, name);
  if (args.slate === undefined) throw new ConfigError("--run needs --slate ID (ids are in rollouts.jsonl)");
  const slate = findSlate(folder, args.slate);
  if (slate.targetIndex < 0)
    throw new RunError(`the true item of slate ${slate.id} is not among its candidates: no reward is defined`);
  const catalogue = Catalogue.fromJSON(JSON.parse(readRunFile(folder, "stages", "sid", "catalogue.json")));
  const config = loadConfig(folder.file("config.resolved.yaml"), args.set);
  return {
    config,
    response: readResponse(args),
    readSlate: async () => {
      if (!existsSync(folder.file("stages", "data", "dataset.json"))) return withoutItems(slate, catalogue);
      const dataset = await loadDataset(folder.file("stages", "data"));
      return toLabelledSlate(
        { split: { dataset, splits: [] }, items: dataset.items },
        slate,
        config.prompts.historyItems,
      );
    },
    spellings: slate.candidates.map((row) => catalogue.textAt(row)),
    labels: slateLabels(slate),
    getName: (i) => catalogue.textAt(slate.candidates[i] as number),
    named: (text) => text,
  };
}

function findSlate(folder: RunFolder, id: string): Slate {
  for (const segment of ["rerank", "validation", "test"]) {
    const path = folder.file("stages", "slates", `${segment}.jsonl`);
    if (!existsSync(path)) continue;
    const line = readFileSync(path, "utf8")
      .split("\n")
      .find((l) => l.includes(`"${id}"`));
    if (line !== undefined) return JSON.parse(line) as Slate;
  }
  throw new RunError(`run ${folder.name} has no slate ${id}`, {
    advice: "Slate ids are in rollouts.jsonl; see `gr2 rollout show`.",
  });
}

function readRunFile(folder: RunFolder, ...parts: string[]): string {
  try {
    return readFileSync(folder.file(...parts), "utf8");
  } catch (cause) {
    throw new RunError(`run ${folder.name} has no ${parts.join("/")} yet`, { cause });
  }
}
