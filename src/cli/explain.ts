/**
 * `gr2 reward explain`: parses one answer and shows, step by step, its reward and why. Parser, verification and
 * arithmetic are RL's; this file only adds the wording.
 */
import { existsSync, readFileSync } from "node:fs";
import pc from "picocolors";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError, RunError } from "../core/errors.ts";
import { slateLabels } from "../prerank/types.ts";
import { parseResponse } from "../prompts/parse.ts";
import { markers } from "../prompts/pieces.ts";
import type { PromptMode } from "../prompts/rerank.ts";
import { isIdeal, type Verdict, verify } from "../reward/verify.ts";
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
  /** Instead of candidates and target: a slate of a run, whose items are spelled as semantic IDs. */
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
  /** The name of a candidate in the explanation. */
  readonly getName: (index: number) => string;
  /** The parser's message with the candidates' names. */
  readonly named: (text: string) => string;
}

/** The verdict as text. Throws ConfigError or RunError for invalid arguments. */
export function explainReward(args: ExplainArguments): string {
  const explained = args.run === undefined ? fromNumbers(args) : fromRun(args, args.run);
  const { config, response, spellings, labels, getName, named } = explained;
  const mode = chooseMode(args.mode, config, response);
  const parsed = parseResponse(response, spellings, mode, config.prompts);
  const verdict = verify(parsed, labels, config.rl.reward);
  if (args.json) return JSON.stringify({ mode, parsed, ...verdict });
  const steps: [string, string][] = [
    [
      "read",
      `${config.prompts.format} format, ${mode === "think" ? "with" : "without"} visible reasoning, ${spellings.length} candidates`,
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
      ["ranking", rankingText(verdict, labels, parsed.order, config)],
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

function rankingText(verdict: Verdict, labels: readonly number[], order: readonly number[], config: Config): string {
  const { kind, ndcgK, dehacked } = config.rl.reward;
  const single = isSingle(labels);
  if (dehacked && verdict.identity && !isIdeal(labels))
    return `${number(0)}: the input order repeated although ${single ? "the true item was not first" : "it was not ideal"} (rl.reward.dehacked)`;
  const value = number(verdict.parts.ranking);
  if (kind !== "rank-promotion") {
    const name = kind === "ndcg" ? `NDCG@${ndcgK}` : "AUC";
    return `${name} of the answer${dehacked ? "" : " - of the input order"} = ${value}`;
  }
  return single
    ? `rank promotion (before - after) / N = (${verdict.before + 1} - ${verdict.after + 1}) / ${order.length} = ${value}`
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

/** Replaces c1 to cN by semantic IDs of one code, so that the parser sees the same text as in a run. */
function fromNumbers(args: ExplainArguments): ExplainedResponse {
  const { candidates: n, target } = args;
  if (n === undefined || target === undefined)
    throw new ConfigError("give --candidates N and --target K, or --run NAME and --slate ID");
  if (target > n) throw new ConfigError(`--target ${target}: there are only ${n} candidates`);
  const spell = (k: number): string => codeToken(0, k);
  return {
    config: loadConfig(args.config, args.set),
    response: readResponse(args).replace(/\bc([1-9][0-9]*)\b/g, (_, k: string) => spell(Number(k))),
    spellings: Array.from({ length: n }, (_, i) => spell(i + 1)),
    labels: Array.from({ length: n }, (_, i) => (i === target - 1 ? 1 : 0)),
    getName: (i) => `c${i + 1}`,
    named: (text) => text.replace(/<s_a_(\d+)>/g, "c$1").replace(/^candidate (\d+) /, (_, i) => `c${Number(i) + 1} `),
  };
}

interface SlateLine {
  readonly id: string;
  readonly candidates: readonly number[];
  readonly targetIndex: number;
  readonly labels?: readonly number[];
}

function fromRun(args: ExplainArguments, name: string): ExplainedResponse {
  const folder = RunFolder.view(args.root, name);
  if (args.slate === undefined) throw new ConfigError("--run needs --slate ID, as in rollouts.jsonl");
  const slate = findSlate(folder, args.slate);
  if (slate.targetIndex < 0)
    throw new RunError(`the true item of slate ${slate.id} is not among its candidates: no reward is defined`);
  const catalogue = Catalogue.fromJSON(JSON.parse(readRunFile(folder, "stages", "sid", "catalogue.json")));
  return {
    config: loadConfig(folder.file("config.resolved.yaml"), args.set),
    response: readResponse(args),
    spellings: slate.candidates.map((row) => catalogue.textAt(row)),
    labels: slateLabels(slate),
    getName: (i) => catalogue.textAt(slate.candidates[i] as number),
    named: (text) => text,
  };
}

function findSlate(folder: RunFolder, id: string): SlateLine {
  for (const segment of ["rerank", "validation", "test"]) {
    const path = folder.file("stages", "slates", `${segment}.jsonl`);
    if (!existsSync(path)) continue;
    const line = readFileSync(path, "utf8")
      .split("\n")
      .find((l) => l.includes(`"${id}"`));
    if (line !== undefined) return JSON.parse(line) as SlateLine;
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
