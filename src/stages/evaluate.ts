/**
 * Evaluation: every system of eval/systems.ts on the same test slates, which are used once. The system to recommend is
 * chosen on validation.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { readEvidence } from "../artifacts/evidence.ts";
import { readJson, writeJson } from "../artifacts/files.ts";
import { cutHeads } from "../artifacts/heads.ts";
import { ordersFile, type TestOrders } from "../artifacts/orders.ts";
import { type DirectPriors, priorsFile, type Results } from "../artifacts/results.ts";
import { conditional, readSlates, toLabelledSlate } from "../artifacts/slates.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { Rng } from "../core/rng.ts";
import type { LabelledSlate } from "../data/slate-items.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import { choose, recommend } from "../eval/recommend.ts";
import { baselinesFor, findSystem, isPolicy, type LanguageModelStage } from "../eval/systems.ts";
import { resultsTable } from "../eval/table.ts";
import { checkRenderedPrompts } from "../models/prompt-check.ts";
import { openMetrics } from "../plugins/evaluation.ts";
import type { Slate } from "../prerank/types.ts";
import { describeFaults } from "../prompts/reasoning.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";
import { modelAnswers, type SystemResult } from "./evaluation/answers.ts";
import type { Asked } from "./evaluation/asked.ts";
import { baselineAnswers, bestPreranker } from "./evaluation/baselines.ts";
import { crossEncoderAnswers } from "./evaluation/cross-encoder.ts";
import { examples } from "./evaluation/examples.ts";
import { bootstrapOptions, fitValidationPrior } from "./evaluation/weights.ts";

export const evaluate: Stage = {
  name: "evaluate",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "calibrate", "traces", "sft", "rl"],
  verbs: ["fitCrossEncoder", ...modelVerbs],
  plugins: ["metrics", "baselines"],
  settings: (c) => ({
    eval: c.eval,
    ...(c.eval.crossEncoder.slates > 0 ? { encoder: c.embed.model } : {}),
    brought: Object.values(c.eval.baselines).map((from) => (typeof from === "string" ? hashFile(from) : "")),
    ...{ prompts: c.prompts, decoding: c.decoding, refit: c.refit, seed: c.seed },
    ...(c.refit ? { refitted: c.midtrain } : {}),
  }),
  run,
};

/** Hash of a file that a setting names. */
function hashFile(path: string): string {
  try {
    return sha256(readFileSync(path));
  } catch (cause) {
    throw new ConfigError(`eval.baselines: ${path} cannot be read`, { cause, advice: "Name an existing file." });
  }
}

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const corpus = await openCorpus(context);
  const all = { validation: readSlates(context, "validation"), test: wholeUsers(readSlates(context, "test"), context) };
  const validation = conditional(all.validation);
  const test = conditional(all.test);
  const evidence = readEvidence(context);
  const cut = (slates: readonly Slate[]) => cutHeads(slates, evidence, config.prompts.candidates);
  const heads = { validation: cut(validation), test: cut(test) };
  const rendered = [...heads.validation.slates, ...heads.test.slates];
  checkRenderedPrompts(context, corpus, rendered, "the evaluation");
  const selection = Rng.of(config.seed, "selection")
    .shuffle(validation.map((_, i) => i))
    .slice(0, config.eval.validationSlates || validation.length)
    .sort((a, b) => a - b);
  const shown = new Set(
    Rng.of(config.seed, "examples")
      .shuffle(test.map((s) => s.id))
      .slice(0, config.eval.examples),
  );
  context.log(`${test.length} conditional test slates of ${all.test.length}; ${validation.length} for validation`);

  const missed = all.test.filter((s) => s.targetIndex < 0);
  const prior = fitValidationPrior({ context, evidence }, validation);
  const asked = { context, corpus, evidence, prior, validation, test, heads, missed, selection, shown };
  const answers: SystemResult[] = await baselineAnswers(asked);
  const parts: readonly (readonly [name: string, answer: () => Promise<SystemResult[]>])[] = [
    ...(config.eval.crossEncoder.slates > 0 ? [["minilm", () => crossEncoderAnswers(asked)] as const] : []),
    ...listModels(config).map((stage) => [stage, () => modelAnswers(stage, asked)] as const),
  ];
  const done = context.cursor.read<number>() ?? 0; // parts whose answers an interrupted attempt wrote
  for (const [i, [name, answer]] of parts.entries()) {
    const file = join(context.dir, `${name}.json`);
    if (i >= done) {
      writeJson(file, await answer());
      context.cursor.write(i + 1);
    }
    answers.push(...readJson<SystemResult[]>(file));
  }

  const results = tabulate(asked, answers, await measureBrought(asked, answers), bestPreranker(all.validation));
  writeJson(join(context.dir, "results.json"), results);
  writeJson(
    priorsFile(context.dir),
    Object.fromEntries(answers.flatMap((a) => (a.prior ? [[a.system, a.prior]] : []))) satisfies DirectPriors,
  );
  writeJson(ordersFile(context.dir), {
    slates: test.map((s) => s.id),
    missed: asked.missed.map((s) => s.id),
    systems: Object.fromEntries(answers.map((a) => [a.system, a.orders])),
  } satisfies TestOrders);
  writeJson(join(context.dir, "examples.json"), examples(corpus, test, answers, results.selected.system));
  const { over_ranker, sentence } = results.recommendation;
  context.log(sentence);
  for (const alarm of results.alarms ?? []) context.log(`! ${alarm}`);
  return {
    slates: test.length,
    delta_ndcg5: over_ranker.delta,
    ci_low: over_ranker.ci_low,
    ci_high: over_ranker.ci_high,
  };
}

/** Language models that answer: those of the stages, and the base model if it can rank untrained. */
const listModels = ({ eval: { zeroShot }, model }: Config): LanguageModelStage[] => [
  ...(zeroShot && model.source === "pretrained" ? (["base"] as const) : []),
  ...(["midtrain", "sft", "rl"] as const),
];

/** The metrics of eval.metrics, by system and name; 0 for an unparseable answer. */
async function measureBrought(
  { context, corpus, test }: Asked,
  answers: readonly SystemResult[],
): Promise<readonly Readonly<Record<string, readonly number[]>>[]> {
  const { config, signal } = context;
  const metrics = await openMetrics({ config, items: corpus.items, signal });
  if (metrics.length === 0) return [];
  const slates = test.map((s) => toLabelledSlate(corpus, s, config.prompts.historyItems));
  const out: Readonly<Record<string, readonly number[]>>[] = [];
  for (const { orders } of answers) {
    const readable = orders.flatMap((order, i) => (order.length > 0 ? [i] : []));
    const questions = readable.map((i) => ({
      slate: slates[i] as LabelledSlate,
      order: orders[i] as readonly number[],
    }));
    const byName: Record<string, number[]> = {};
    for (const { name, ask } of metrics) {
      const values = new Array<number>(orders.length).fill(0);
      (await ask(questions)).forEach((value, k) => {
        values[readable[k] as number] = value;
      });
      byName[name] = values;
    }
    out.push(byName);
  }
  return out;
}

function tabulate(
  asked: Asked,
  answers: readonly SystemResult[],
  brought: Awaited<ReturnType<typeof measureBrought>>,
  preranker: string | undefined,
): Results {
  const { context, corpus, test, selection } = asked;
  const bootstrap = bootstrapOptions(context);
  const { rows, comparisons } = resultsTable({
    users: test.map((s) => s.user),
    missedUsers: asked.missed.map((s) => s.user),
    systems: answers.map((a, i) => ({
      ...{ system: a.system, labels: a.test },
      ...(brought[i] ? { brought: brought[i] } : {}),
      ...(a.ownRanks ? { ownRanks: a.ownRanks } : {}),
    })),
    baselinesFor: (system) => [...baselinesFor(system), ...(preranker ? [preranker] : [])],
    bootstrap,
  });
  const judged = answers
    .filter((a) => a.validation.length > 0)
    .map((a) => ({
      system: a.system,
      values: a.validation.map((labels) => gradedNdcg(labels, 5)),
      silent: findSystem(a.system)?.mode === "direct" && a.prior?.likelihood === 0,
    }));
  const users = selection.map((i) => asked.validation[i]?.user ?? -1);
  const recommendation = recommend(choose(users, judged, bootstrap), rows, comparisons);
  const validation = Object.fromEntries(
    judged.map(({ system, values }) => [system, values.reduce((sum, v) => sum + v, 0) / values.length]),
  );
  return {
    rows,
    comparisons,
    health: measureHealth(answers, corpus),
    alarms: listAlarms(answers),
    selected: { system: recommendation.system, validation },
    recommendation,
    ...(preranker ? { best_preranker: preranker } : {}),
    systems: answers.flatMap(({ system, tokens, about }) => {
      const found = about ?? findSystem(system);
      if (!found) return [];
      const { name, kind, servable, cost, description } = found;
      return [{ name, kind, servable, cost, description, prompt_tokens: tokens.prompt, answer_tokens: tokens.answer }];
    }),
  };
}

/** Health of each policy's generated answers, and prompt tokens if shortened prompts are compared. */
function measureHealth(answers: readonly SystemResult[], corpus: Corpus): Record<string, number> {
  const health: Record<string, number> = { sid_uniqueness: corpus.catalogue.uniqueness() };
  const generated = answers.filter((a) => a.health && isPolicy(a.system));
  health.valid_rate = Math.min(...generated.map((a) => a.health?.valid ?? 0));
  for (const a of generated) {
    health[`${a.system}_valid_rate`] = a.health?.valid ?? 0;
    health[`${a.system}_identity_rate`] = a.health?.identity ?? 0;
    health[`${a.system}_kendall_tau`] = a.health?.tau ?? 0;
    health[`${a.system}_tokens`] = a.tokens.answer;
    if (a.health?.faults) {
      const shares = Object.entries(a.health.faults);
      for (const [fault, share] of shares) health[`${a.system}_reasoning_${fault}`] = share;
      health[`${a.system}_fault_rate`] = shares.reduce((sum, [, share]) => sum + share, 0);
    }
  }
  for (const a of answers) {
    const system = findSystem(a.system);
    if (system?.kind !== "control" || system.change !== "compressed") continue;
    const whole = answers.find((other) => other.system === system.of);
    health[`${system.of}_prompt_tokens`] = whole?.tokens.prompt ?? 0;
    health[`${a.system}_prompt_tokens`] = a.tokens.prompt;
  }
  health.identity_rate = health.rl_identity_rate ?? 0;
  return health;
}

/** Warnings about a policy's answers. */
const listAlarms = (answers: readonly SystemResult[]): string[] =>
  answers.flatMap(({ system, health }) =>
    health?.faults && isPolicy(system) ? describeFaults(health.faults).map((text) => `${system}: ${text}`) : [],
  );

/** Caps test slates by drawing whole users, which keeps the bootstrap over users valid; 0 = all. */
function wholeUsers(slates: readonly Slate[], context: StageContext): readonly Slate[] {
  const cap = context.config.eval.maxSlates;
  if (cap === 0 || slates.length <= cap) return slates;
  const users = Rng.of(context.config.seed, "test-users").shuffle([...new Set(slates.map((s) => s.user))]);
  const kept = new Set<number>();
  let count = 0;
  for (const user of users) {
    if (count >= cap) break;
    kept.add(user);
    count += slates.reduce((n, s) => n + (s.user === user ? 1 : 0), 0);
  }
  return slates.filter((s) => kept.has(s.user));
}
