/**
 * Evaluation: every system on the same test slates, looked at once; the system to recommend is chosen on validation.
 *
 *   prerank          the input order
 *   prior            the learned prior alone, no language model (control)
 *   direct           likelihood x prior of the mid-trained LM, one forward pass
 *   sft, rl          generated after a visible thought;  *_nothink: generated at once;  *_direct: likelihood x prior
 *   direct_other_history, *_other_thought   controls: the history, or the thought, of another slate
 *   rl_compressed    what shorter prompts cost (eval.compress): the RL policy, history and titles cut
 *   *_other_order    control for position bias: the prompt lists the candidates in a random order; prior and places stay
 *
 * Calibrations are fitted on validation: cross-fitted over users for validation's own numbers, whole for test.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readPrior, readPriors } from "../artifacts/calibration.ts";
import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { readEvidence } from "../artifacts/evidence.ts";
import { readJson, writeJson } from "../artifacts/files.ts";
import { type DirectPriors, priorsFile, type Results } from "../artifacts/results.ts";
import { conditional, readSlates, viewOf } from "../artifacts/slates.ts";
import { stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { deriveSeed, Rng, unitHash } from "../core/rng.ts";
import { kendallTau } from "../eval/kendall.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import { resultsTable, type SystemAnswers } from "../eval/table.ts";
import { openLanguageModel } from "../models/language-model.ts";
import { checkPromptsOf } from "../models/prompt-check.ts";
import type { Rollout, SlateView } from "../policy/policy.ts";
import { crossFittedScores, directScores, fitPrior, orderBy, type Prior, type PriorExample } from "../policy/prior.ts";
import { labelsOf, type Slate, truthOf } from "../prerank/types.ts";
import { markers } from "../prompts/pieces.ts";
import { modelVerbs } from "../run/code-hash.ts";
import type { Stage, StageContext, StageName, Summary } from "../run/stage.ts";
import { findSids } from "../sid/semantic-id.ts";

export const evaluate: Stage = {
  name: "evaluate",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "calibrate", "traces", "sft", "rl"],
  verbs: modelVerbs,
  settings: (c) => ({ eval: c.eval, prompts: c.prompts, decoding: c.decoding, seed: c.seed }),
  run,
};

/** What a system answered: the labels of each slate's candidates in its order; empty without a valid answer. */
interface SystemResult {
  readonly system: string;
  readonly validation: readonly (readonly number[])[];
  readonly test: readonly (readonly number[])[];
  /** Of generated answers on test. */
  readonly health?: {
    readonly valid: number;
    readonly identity: number;
    readonly tau: number;
    readonly tokens: number;
    readonly promptTokens: number;
  };
  /** Of a direct system: as fitted on all of validation, which its answers on test are weighed with. */
  readonly prior?: Prior;
  /** Generated texts on test slates that the report shows. */
  readonly shown?: readonly { readonly slate: string; readonly text: string; readonly order: readonly number[] }[];
}

const folds = 5;

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const corpus = await openCorpus(context);
  const all = { validation: readSlates(context, "validation"), test: wholeUsers(readSlates(context, "test"), context) };
  const validation = conditional(all.validation);
  const test = conditional(all.test);
  checkPromptsOf(context, corpus, [...validation, ...test], "the evaluation");
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

  const evidence = readEvidence(context);
  const asked = { context, corpus, evidence, validation, test, selection, shown };
  const systems: SystemResult[] = [
    {
      system: "prerank",
      validation: selection.map((i) => labelsOf(validation[i] as Slate)),
      test: test.map(labelsOf),
    },
    direct("prior", asked, undefined),
  ];
  for (const stage of ["midtrain", "sft", "rl"] as const) {
    const file = join(context.dir, `${stage}.json`);
    if (!existsSync(file)) {
      writeJson(file, await systemsOf(stage, asked));
      context.cursor.write(stage); // a killed evaluation resumes after it
    }
    systems.push(...readJson<SystemResult[]>(file));
  }

  const results = tabulate(context, systems, test, all.test, corpus);
  writeJson(join(context.dir, "results.json"), results);
  writeJson(
    priorsFile(context.dir),
    Object.fromEntries(systems.flatMap((s) => (s.prior ? [[s.system, s.prior]] : []))) satisfies DirectPriors,
  );
  writeJson(join(context.dir, "examples.json"), examples(corpus, test, systems, results.selected.system));
  const best = results.comparisons.find(
    (c) =>
      c.system === results.selected.system &&
      c.baseline === "prerank" &&
      c.slice === "conditional" &&
      c.metric === "N@5",
  );
  return { slates: test.length, delta_ndcg5: best?.delta ?? 0, ci_low: best?.ci_low ?? 0, ci_high: best?.ci_high ?? 0 };
}

interface Asked {
  readonly context: StageContext;
  readonly corpus: Corpus;
  readonly evidence: Readonly<Record<string, readonly number[]>>;
  /** Conditional slates. */
  readonly validation: readonly Slate[];
  readonly test: readonly Slate[];
  /** Indices of the validation slates that systems are chosen on. */
  readonly selection: readonly number[];
  readonly shown: ReadonlySet<string>;
}

async function systemsOf(stage: StageName & ("midtrain" | "sft" | "rl"), asked: Asked): Promise<SystemResult[]> {
  const { context, corpus, evidence } = asked;
  const { config, signal } = context;
  const model = await openLanguageModel(
    context,
    corpus,
    stateDir(context.inputDir(stage)),
    tokenizerFile(context.inputDir("midtrain")),
  );
  const policy = model.policy(readPrior(context));
  const likelihoodOf = (slates: readonly SlateView[], label: string): Promise<number[][]> =>
    policy.logLikelihood(slates, { signal, onProgress: (d, t) => context.progress(`${stage}: ${label}`, d, t) });
  const views = {
    validation: asked.validation.map((s) => viewOf(corpus, s, evidence)),
    test: asked.test.map((s) => viewOf(corpus, s, evidence)),
  };
  const likelihood = {
    validation: await likelihoodOf(views.validation, "direct, validation"),
    test: await likelihoodOf(views.test, "direct, test"),
  };
  const name = stage === "midtrain" ? "direct" : `${stage}_direct`;
  const out = [direct(name, asked, likelihood)];
  if (stage === "midtrain") {
    if (!config.eval.controls) return out;
    const swapped = (slates: readonly Slate[], own: readonly SlateView[]): SlateView[] =>
      otherUser(slates).map((other, i) => ({ ...(own[i] as SlateView), history: (own[other] as SlateView).history }));
    const other = {
      validation: likelihood.validation, // calibrated as the real thing
      test: await likelihoodOf(swapped(asked.test, views.test), "control, another history"),
    };
    return [...out, { ...direct("direct_other_history", asked, other), validation: [] }];
  }
  for (const mode of ["think", "answer"] as const) {
    const system = mode === "think" ? stage : `${stage}_nothink`;
    const generate = (
      slates: readonly SlateView[],
      label: string,
      thoughts?: readonly (readonly number[])[],
      by = policy,
    ): Promise<Rollout[]> =>
      by.sample(slates, {
        mode,
        group: 1,
        temperature: 0,
        seed: 0,
        signal,
        ...(thoughts ? { thoughts } : {}),
        onProgress: (d, t) => context.progress(`${system}, ${label}`, d, t),
      });
    const chosen = asked.selection.map((i) => asked.validation[i] as Slate);
    const onValidation = await generate(
      asked.selection.map((i) => views.validation[i] as SlateView),
      "validation",
    );
    const onTest = await generate(views.test, "test");
    out.push(generated(system, asked, chosen, onValidation, onTest));
    const { historyTokens, titleWords } = config.eval.compress;
    if (mode === "think" && stage === "rl" && historyTokens + titleWords > 0) {
      const shorter = model.policy(readPrior(context), config.eval.compress);
      const answers = await generate(views.test, "compressed prompts", undefined, shorter);
      out.push(generated(`${stage}_compressed`, asked, [], [], answers));
    }
    if (stage !== "rl" || !config.eval.controls) continue;
    if (mode === "think") {
      const thoughts = otherUser(asked.test).map((i) => policy.thoughtOf(onTest[i] as Rollout));
      const control = await generate(views.test, "control, another thought", thoughts);
      out.push(generated(`${system}_other_thought`, asked, [], [], control));
    }
    if (config.prompts.showCandidates || config.prompts.format === "json") {
      const rng = Rng.of(config.seed, "shown order");
      const reordered = views.test.map((v) => ({ ...v, shown: rng.shuffle([...v.candidates]) }));
      const shuffled = await generate(reordered, "control, another order");
      out.push(generated(`${system}_other_order`, asked, [], [], shuffled));
    }
  }
  return out;
}

/** For every slate the index of one of another user: the next in line whose user differs. */
function otherUser(slates: readonly Slate[]): number[] {
  return slates.map((s, i) => {
    for (let k = 1; k < slates.length; k++) {
      const j = (i + k) % slates.length;
      if ((slates[j] as Slate).user !== s.user) return j;
    }
    return i;
  });
}

/** Likelihood x prior; without likelihoods the prior alone. */
function direct(
  system: string,
  asked: Asked,
  likelihood: { validation: readonly number[][]; test: readonly number[][] } | undefined,
): SystemResult {
  const { withLikelihood, alone } = readPriors(asked.context);
  const centre = likelihood ? withLikelihood : alone;
  const seed = deriveSeed(asked.context.config.seed, "calibration-folds");
  const examplesOf = (slates: readonly Slate[], ll: readonly number[][] | undefined) =>
    slates.map((s, i) => ({
      scores: s.scores,
      evidence: asked.evidence[s.id] as readonly number[],
      truth: truthOf(s),
      fold: Math.floor(unitHash(seed, s.user) * folds),
      ...(ll ? { logLikelihood: ll[i] as number[] } : {}),
    }));
  const onValidation: (PriorExample & { fold: number })[] = examplesOf(asked.validation, likelihood?.validation);
  const onTest: PriorExample[] = examplesOf(asked.test, likelihood?.test);
  const terms = { likelihood: likelihood !== undefined, evidence: asked.context.config.decoding.evidence };
  const crossFitted = crossFittedScores(onValidation, folds, terms, centre);
  const prior = fitPrior(onValidation, terms, centre);
  return {
    system,
    prior,
    validation: asked.selection.map((i) => inOrder(asked.validation[i] as Slate, orderBy(crossFitted[i] as number[]))),
    test: onTest.map((e, i) => inOrder(asked.test[i] as Slate, orderBy(directScores(prior, e, e.logLikelihood)))),
  };
}

/** The slate's labels in an answer's order. */
function inOrder(slate: Slate, order: readonly number[]): number[] {
  const labels = labelsOf(slate);
  return order.map((i) => labels[i] as number);
}

const answered = (r: Rollout, s: Slate): readonly number[] =>
  r.parsed.kind === "ranking" ? inOrder(s, r.parsed.order) : [];

function generated(
  system: string,
  asked: Asked,
  chosen: readonly Slate[],
  onValidation: readonly Rollout[],
  onTest: readonly Rollout[],
): SystemResult {
  const orders = onTest.flatMap((r) => (r.parsed.kind === "ranking" ? [r.parsed.order] : []));
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
  const json = asked.context.config.prompts.format === "json";
  return {
    system,
    validation: onValidation.map((r, i) => answered(r, chosen[i] as Slate)),
    test: onTest.map((r, i) => answered(r, asked.test[i] as Slate)),
    health: {
      valid: orders.length / Math.max(1, onTest.length),
      identity: mean(orders.map((o) => (o.every((c, i) => c === i) ? 1 : 0))),
      tau: mean(
        orders.map((o) =>
          kendallTau(
            o,
            [...o].sort((a, b) => a - b),
          ),
        ),
      ),
      tokens: mean(onTest.map((r) => r.tokens.length)),
      promptTokens: mean(onTest.map((r) => r.prompt.length)),
    },
    shown: onTest.flatMap((r, i) => {
      const slate = (asked.test[i] as Slate).id;
      return asked.shown.has(slate) && r.parsed.kind === "ranking"
        ? [{ slate, text: json ? r.parsed.reasoning : r.text, order: r.parsed.order }]
        : [];
    }),
  };
}

const isControl = (system: string): boolean =>
  ["prerank", "prior"].includes(system) || system.includes("_other_") || system.endsWith("_compressed");

function tabulate(
  context: StageContext,
  systems: readonly SystemResult[],
  test: readonly Slate[],
  allTest: readonly Slate[],
  corpus: Corpus,
): Results {
  const { config } = context;
  const answers: SystemAnswers[] = systems.map((s) => ({ system: s.system, labels: s.test }));
  const { rows, comparisons } = resultsTable({
    users: test.map((s) => s.user),
    missedUsers: allTest.filter((s) => s.targetIndex < 0).map((s) => s.user),
    systems: answers,
    // What RL adds is a comparison of its own.
    baselinesOf: (system) => ["prerank", "prior", ...(/^rl(_|$)/.test(system) ? [system.replace("rl", "sft")] : [])],
    bootstrap: { resamples: config.eval.bootstrap, seed: deriveSeed(config.seed, "bootstrap") },
  });
  const onValidation = Object.fromEntries(
    systems
      .filter((s) => s.validation.length > 0)
      .map((s) => [
        s.system,
        s.validation.reduce((sum, labels) => sum + gradedNdcg(labels, 5), 0) / s.validation.length,
      ]),
  );
  const candidates = Object.entries(onValidation).filter(([system]) => !isControl(system));
  const [selected] = candidates.reduce((best, next) => (next[1] > best[1] ? next : best));
  const health: Record<string, number> = { sid_uniqueness: corpus.catalogue.uniqueness() };
  const generating = systems.filter((s) => s.health && !isControl(s.system));
  health.valid_rate = Math.min(...generating.map((s) => s.health?.valid ?? 0));
  for (const s of generating) {
    health[`${s.system}_valid_rate`] = s.health?.valid ?? 0;
    health[`${s.system}_identity_rate`] = s.health?.identity ?? 0;
    health[`${s.system}_kendall_tau`] = s.health?.tau ?? 0;
    health[`${s.system}_tokens`] = s.health?.tokens ?? 0;
  }
  for (const s of systems.filter((s) => s.system === "rl" || s.system === "rl_compressed"))
    if (systems.some((other) => other.system === "rl_compressed"))
      health[`${s.system}_prompt_tokens`] = s.health?.promptTokens ?? 0;
  health.identity_rate = health.rl_identity_rate ?? 0;
  return { rows, comparisons, health, selected: { system: selected, validation: onValidation } };
}

/** A dozen slates before and after, for people. */
function examples(
  corpus: Corpus,
  test: readonly Slate[],
  systems: readonly SystemResult[],
  selected: string,
): unknown[] {
  const source =
    systems.find((s) => s.system === selected && s.shown) ?? systems.find((s) => s.system === "rl" && s.shown);
  const titles = (rows: ArrayLike<number>): string[] => Array.from(rows, (r) => corpus.items[r]?.title || "untitled");
  return (source?.shown ?? []).map(({ slate: id, text, order }) => {
    const slate = test.find((s) => s.id === id) as Slate;
    const { history } = viewOf(corpus, slate);
    return {
      slate: id,
      system: source?.system,
      history: titles(Array.prototype.slice.call(history, -10)),
      candidates: slate.candidates.map((row, i) => ({
        title: corpus.items[row]?.title || "untitled",
        sid: corpus.catalogue.textOf(row),
        prerank: i + 1,
      })),
      target: slate.targetIndex,
      ...(slate.labels ? { labels: slate.labels } : {}),
      before: slate.candidates.map((_, i) => i),
      after: order,
      reasoning: readable(corpus, text.split(markers.answer)[0] ?? ""),
    };
  });
}

/** Semantic IDs in a thought, followed by the titles they stand for. */
function readable(corpus: Corpus, thought: string): string {
  let out = "";
  let at = 0;
  for (const { end, codes } of findSids(thought, corpus.catalogue.shape)) {
    const row = corpus.catalogue.rowOf(codes);
    out += `${thought.slice(at, end)} [${row === undefined ? "no such item" : corpus.items[row]?.title || "untitled"}]`;
    at = end;
  }
  return out + thought.slice(at);
}

/** Caps test slates by drawing whole users, so that the bootstrap over users stays honest; 0 = all. */
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
