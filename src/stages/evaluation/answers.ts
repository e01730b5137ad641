/**
 * What every system answers on the validation and test slates. Calibrations are fitted on validation: cross-fitted over
 * users for validation's own numbers, whole for test. Owns how a mode and a control's change become calls of the model;
 * which systems there are is in eval/systems.ts.
 */
import { readPrior, readPriors } from "../../artifacts/calibration.ts";
import type { Corpus } from "../../artifacts/corpus.ts";
import { requestSeconds } from "../../artifacts/results.ts";
import { toSlateInput } from "../../artifacts/slates.ts";
import { stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { deriveSeed, Rng, unitHash } from "../../core/rng.ts";
import { kendallTau } from "../../eval/kendall.ts";
import { type Change, type LanguageModelStage, type System, systems } from "../../eval/systems.ts";
import { type LanguageModel, openLanguageModel } from "../../models/language-model.ts";
import type { Policy, Rollout, SlateInput } from "../../policy/policy.ts";
import {
  crossFittedScores,
  directScores,
  fitPrior,
  orderBy,
  type Prior,
  type PriorExample,
} from "../../policy/prior.ts";
import { type Slate, slateLabels, targetDistribution } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";

/** What all systems are asked. */
export interface Asked {
  readonly context: StageContext;
  readonly corpus: Corpus;
  readonly evidence: Readonly<Record<string, readonly number[]>>;
  /** Conditional slates. */
  readonly validation: readonly Slate[];
  readonly test: readonly Slate[];
  /** Test slates whose true item is not among the candidates. */
  readonly missed: readonly Slate[];
  /** Indices of the validation slates that systems are chosen on. */
  readonly selection: readonly number[];
  /** Ids of the test slates that the report shows. */
  readonly shown: ReadonlySet<string>;
}

/** What a system answered: the labels of each slate's candidates in its order; empty without a valid answer. */
export interface SystemResult {
  readonly system: string;
  /** Of the selection; empty for a control. */
  readonly validation: readonly (readonly number[])[];
  readonly test: readonly (readonly number[])[];
  /** On test: the candidates by index, best first; empty without a valid answer. */
  readonly orders: readonly (readonly number[])[];
  /** Of generated answers on test. */
  readonly health?: {
    readonly valid: number;
    readonly identity: number;
    readonly tau: number;
  };
  /** Per request on test, mean: tokens of the prompt, and of the answer (in direct mode: of the candidates). */
  readonly tokens: { readonly prompt: number; readonly answer: number };
  /** Of a system that scores: as fitted on all of validation, which its answers on test are weighed with. */
  readonly prior?: Prior;
  /** Of a pre-ranker with a list of its own: rank of the target on all test slates, misses after the others. */
  readonly ownRanks?: readonly number[];
  /** Of a system that the registry does not name. */
  readonly about?: System;
  /** Orders, and generated texts, of the test slates that the report shows. */
  readonly shown?: readonly { readonly slate: string; readonly text: string; readonly order: readonly number[] }[];
}

const folds = 5;
/** Of a system without a language model. */
export const none = { prompt: 0, answer: 0 };
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

/** The systems that a stage's weights answer for. */
export async function modelAnswers(stage: LanguageModelStage, asked: Asked): Promise<SystemResult[]> {
  const { context, corpus } = asked;
  const model = await openLanguageModel(
    context,
    corpus,
    stateDir(context.inputDir(stage)),
    tokenizerFile(context.inputDir("midtrain")),
  );
  const respondent = new Respondent(asked, model);
  const out: SystemResult[] = [];
  for (const system of systems)
    if (system.stage === stage && isAsked(system, context.config)) out.push(await respondent.answer(system));
  return out;
}

/** Policies always; controls where the settings ask for them and they change something. */
function isAsked(system: System, { eval: e, prompts }: Config): boolean {
  if (system.kind !== "control") return true;
  if (system.change === "compressed") return e.compress.historyTokens + e.compress.titleWords > 0;
  return e.controls && (system.change !== "other-order" || prompts.showCandidates || prompts.format === "json");
}

interface Views {
  readonly validation: readonly SlateInput[];
  readonly test: readonly SlateInput[];
}

interface Likelihoods {
  readonly validation: readonly number[][];
  readonly test: readonly number[][];
  readonly tokens: SystemResult["tokens"];
}

/** One stage's model, asked in every mode. */
class Respondent {
  private readonly asked: Asked;
  private readonly model: LanguageModel;
  private readonly policy: Policy;
  private readonly views: Views;
  private likelihoods: Likelihoods | undefined;
  /** Generated answers on test by system: a control can start from them. */
  private readonly rollouts = new Map<string, readonly Rollout[]>();

  constructor(asked: Asked, model: LanguageModel) {
    const { context, corpus, evidence } = asked;
    this.asked = asked;
    this.model = model;
    this.policy = model.policy(readPrior(context));
    this.views = {
      validation: asked.validation.map((s) => toSlateInput(corpus, s, evidence)),
      test: asked.test.map((s) => toSlateInput(corpus, s, evidence)),
    };
  }

  async answer(system: System): Promise<SystemResult> {
    const change = system.kind === "control" ? system.change : undefined;
    return system.mode === "direct" ? this.direct(system, change) : this.generate(system, change);
  }

  private async direct({ name }: System, change: Change | undefined): Promise<SystemResult> {
    const validation = // a control is calibrated as the real thing
      this.likelihoods?.validation ?? (await this.likelihood(this.views.validation, `${name}, validation`));
    const slates = this.changed(change);
    const test = await this.timed(name, slates.length, () => this.likelihood(slates, `${name}, test`));
    const groups = slates.map((s) => this.policy.directGroup(s));
    const tokens = {
      prompt: mean(groups.map((g) => g.prompt.length)),
      answer: mean(groups.map((g) => g.responses.reduce((n, r) => n + r.length, 0))),
    };
    this.likelihoods ??= { validation, test, tokens };
    const result = weighed(name, this.asked, { validation, test, tokens });
    return change ? { ...result, validation: [] } : result;
  }

  /** Notes the seconds per request next to the results, which hold nothing that two runs may differ in. */
  private async timed<T>(system: string, requests: number, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await work();
    const seconds = (performance.now() - start) / 1000 / Math.max(1, requests);
    this.asked.context.metrics(
      systems.findIndex((s) => s.name === system),
      { [requestSeconds(system)]: seconds },
    );
    return result;
  }

  private likelihood(slates: readonly SlateInput[], label: string): Promise<number[][]> {
    const { signal, progress } = this.asked.context;
    return this.policy.logLikelihood(slates, { signal, onProgress: (d, t) => progress(label, d, t) });
  }

  private async generate(system: System, change: Change | undefined): Promise<SystemResult> {
    const { selection, validation, context } = this.asked;
    const chosen = change ? [] : selection.map((i) => validation[i] as Slate);
    const onValidation = change
      ? []
      : await this.sample(
          system,
          selection.map((i) => this.views.validation[i] as SlateInput),
          "validation",
        );
    const policy =
      change === "compressed" ? this.model.policy(readPrior(context), context.config.eval.compress) : this.policy;
    const reasonings = change === "other-reasoning" ? this.otherReasonings(system) : undefined;
    const slates = this.changed(change);
    const onTest = await this.timed(system.name, slates.length, () =>
      this.sample(system, slates, "test", policy, reasonings),
    );
    this.rollouts.set(system.name, onTest);
    return generated(system.name, this.asked, chosen, onValidation, onTest);
  }

  private sample(
    { name, mode }: System,
    slates: readonly SlateInput[],
    label: string,
    policy = this.policy,
    reasoning?: readonly (readonly number[])[],
  ): Promise<Rollout[]> {
    const { signal, progress } = this.asked.context;
    return policy.sample(slates, {
      mode: mode === "think" ? "think" : "answer",
      group: 1,
      temperature: 0,
      seed: 0,
      signal,
      ...(reasoning ? { reasoning } : {}),
      onProgress: (d, t) => progress(`${name}, ${label}`, d, t),
    });
  }

  /** The test slates as a control shows them. */
  private changed(change: Change | undefined): readonly SlateInput[] {
    const { test, context } = this.asked;
    const own = this.views.test;
    if (change === "other-history")
      return otherUser(test).map((other, i) => ({
        ...(own[i] as SlateInput),
        history: (own[other] as SlateInput).history,
      }));
    if (change !== "other-order") return own;
    const rng = Rng.of(context.config.seed, "shown order");
    return own.map((v) => ({ ...v, shown: rng.shuffle([...v.candidates]) }));
  }

  private otherReasonings(system: System): readonly (readonly number[])[] {
    const own = this.rollouts.get(system.kind === "control" ? system.of : system.name) ?? [];
    return otherUser(this.asked.test).map((i) => this.policy.readReasoning(own[i] as Rollout));
  }
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
export function weighed(system: string, asked: Asked, likelihood: Likelihoods | undefined): SystemResult {
  const { withLikelihood, alone } = readPriors(asked.context);
  const centre = likelihood ? withLikelihood : alone;
  const seed = deriveSeed(asked.context.config.seed, "calibration-folds");
  const makeExamples = (slates: readonly Slate[], ll: readonly number[][] | undefined) =>
    slates.map((s, i) => ({
      scores: s.scores,
      evidence: asked.evidence[s.id] as readonly number[],
      truth: targetDistribution(s),
      fold: Math.floor(unitHash(seed, s.user) * folds),
      ...(ll ? { logLikelihood: ll[i] as number[] } : {}),
    }));
  const onValidation: (PriorExample & { fold: number })[] = makeExamples(asked.validation, likelihood?.validation);
  const onTest: PriorExample[] = makeExamples(asked.test, likelihood?.test);
  const terms = { likelihood: likelihood !== undefined, evidence: asked.context.config.decoding.evidence };
  const crossFitted = crossFittedScores(onValidation, folds, terms, centre);
  const prior = fitPrior(onValidation, terms, centre);
  const scores = { validation: crossFitted, test: onTest.map((e) => directScores(prior, e, e.logLikelihood)) };
  return { ...scored(system, asked, scores, likelihood?.tokens), prior };
}

/** A system that scores candidates. @param scores of every validation and test slate */
export function scored(
  system: string,
  asked: Asked,
  scores: { readonly validation: readonly (readonly number[])[]; readonly test: readonly (readonly number[])[] },
  tokens: SystemResult["tokens"] = none,
): SystemResult {
  const orders = scores.test.map(orderBy);
  return {
    system,
    tokens,
    validation: asked.selection.map((i) =>
      inOrder(asked.validation[i] as Slate, orderBy(scores.validation[i] as number[])),
    ),
    test: orders.map((order, i) => inOrder(asked.test[i] as Slate, order)),
    orders,
    shown: orders.flatMap((order, i) => {
      const slate = (asked.test[i] as Slate).id;
      return asked.shown.has(slate) ? [{ slate, text: "", order }] : [];
    }),
  };
}

/** The slate's labels in an answer's order. */
function inOrder(slate: Slate, order: readonly number[]): number[] {
  const labels = slateLabels(slate);
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
  const json = asked.context.config.prompts.format === "json";
  return {
    system,
    validation: onValidation.map((r, i) => answered(r, chosen[i] as Slate)),
    test: onTest.map((r, i) => answered(r, asked.test[i] as Slate)),
    orders: onTest.map((r) => (r.parsed.kind === "ranking" ? r.parsed.order : [])),
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
    },
    tokens: { prompt: mean(onTest.map((r) => r.prompt.length)), answer: mean(onTest.map((r) => r.tokens.length)) },
    shown: onTest.flatMap((r, i) => {
      const slate = (asked.test[i] as Slate).id;
      return asked.shown.has(slate) && r.parsed.kind === "ranking"
        ? [{ slate, text: json ? r.parsed.reasoning : r.text, order: r.parsed.order }]
        : [];
    }),
  };
}
