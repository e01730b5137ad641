/**
 * Every system's answers on the validation and test slates. Calibrations (weights.ts) are fitted on validation. Owns
 * how a mode and a control's change become model calls on the heads of slates; the list of systems is in
 * eval/systems.ts.
 */
import { readPrior } from "../../artifacts/calibration.ts";
import type { Heads } from "../../artifacts/heads.ts";
import { requestSeconds } from "../../artifacts/results.ts";
import { conditional, toSlateInput } from "../../artifacts/slates.ts";
import type { Config } from "../../config/schema.ts";
import { Rng } from "../../core/rng.ts";
import { kendallTau } from "../../eval/kendall.ts";
import { type Change, type LanguageModelStage, type System, systems } from "../../eval/systems.ts";
import type { LanguageModel } from "../../models/language-model.ts";
import { combine, describeCombination } from "../../policy/combination.ts";
import type { Policy, Rollout, SlateInput } from "../../policy/policy.ts";
import { type FoldedPriors, flatPrior, orderBy, outOfSample, type Prior } from "../../policy/prior.ts";
import { type Parted, wholeOrder } from "../../prerank/heads.ts";
import { type Slate, slateLabels } from "../../prerank/types.ts";
import { type FaultName, measureFaults } from "../../prompts/reasoning.ts";
import type { Group } from "../../worker/types.ts";
import type { Asked } from "./asked.ts";
import { StageWeights } from "./stage-weights.ts";
import { bootstrapOptions, fitValidationPrior, makeExamples, scoreSlates } from "./weights.ts";

/** What a system answered: the labels of each slate's candidates in its order; empty without a valid answer. */
export interface SystemResult {
  readonly system: string;
  /** On the selection slates; empty for a control. */
  readonly validation: readonly (readonly number[])[];
  readonly test: readonly (readonly number[])[];
  /** On test: the candidates by index, best first; empty without a valid answer. */
  readonly orders: readonly (readonly number[])[];
  /** Statistics of generated answers on test. */
  readonly health?: {
    readonly valid: number;
    readonly identity: number;
    readonly tau: number;
    /** For a system that writes reasoning: shares of worthless reasoning, by kind. */
    readonly faults?: Readonly<Record<FaultName, number>>;
  };
  /** Per request on test, mean: tokens of the prompt, and of the answer (in direct mode: of the candidates). */
  readonly tokens: { readonly prompt: number; readonly answer: number };
  /** For a system that scores: the weights fitted on all of validation and used on test. */
  readonly prior?: Prior;
  /** For a pre-ranker with its own list: the target's rank on all test slates, misses last. */
  readonly ownRanks?: readonly number[];
  /** For a system that is not in the registry. */
  readonly about?: System;
  /** Orders and generated texts of the test slates that the report shows. */
  readonly shown?: readonly { readonly slate: string; readonly text: string; readonly order: readonly number[] }[];
}

/** For a system without a language model. */
export const none = { prompt: 0, answer: 0 };
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

/** The systems that use a stage's weights. */
export async function modelAnswers(stage: LanguageModelStage, asked: Asked): Promise<SystemResult[]> {
  const { context } = asked;
  const weights = new StageWeights(stage, asked);
  const respondent = new Respondent(asked, weights, await weights.open("own"));
  const out: SystemResult[] = [];
  for (const system of systems)
    if (system.stage === stage && isAsked(system, context.config)) out.push(await respondent.answer(system));
  return out;
}

/** All policies; controls if the settings request them and they change something. */
function isAsked(system: System, { eval: e, prompts }: Config): boolean {
  if (system.kind !== "control") return true;
  if (system.change === "compressed") return e.compress.historyTokens + e.compress.titleWords > 0;
  return e.controls && (system.change !== "other-order" || prompts.showCandidates || prompts.format === "json");
}

interface Views {
  readonly validation: readonly SlateInput[];
  readonly test: readonly SlateInput[];
}

/** The model in direct mode, on the validation slates. */
interface CombinedOnValidation {
  readonly priors: FoldedPriors;
  readonly scores: readonly (readonly number[])[];
}

/** One stage's model in every mode. */
class Respondent {
  private readonly asked: Asked;
  private readonly weights: StageWeights;
  private readonly model: LanguageModel;
  private readonly policy: Policy;
  private readonly views: Views;
  private onValidation: CombinedOnValidation | undefined;
  /** Generated answers on test by system: a control can start from them. */
  private readonly rollouts = new Map<string, readonly Rollout[]>();

  /** @param model with the stage's own weights; refitted weights use the same tokens and prompts */
  constructor(asked: Asked, weights: StageWeights, model: LanguageModel) {
    const { context, corpus, heads } = asked;
    const views = ({ slates, evidence }: Heads): SlateInput[] => slates.map((s) => toSlateInput(corpus, s, evidence));
    this.asked = asked;
    this.weights = weights;
    this.model = model;
    const n = Math.max(0, ...heads.test.slates.map((s) => s.candidates.length));
    this.policy = model.policy(weights.stage === "base" ? flatPrior(n) : readPrior(context));
    this.views = { validation: views(heads.validation), test: views(heads.test) };
  }

  async answer(system: System): Promise<SystemResult> {
    const change = system.kind === "control" ? system.change : undefined;
    if (system.mode !== "direct") return this.generate(system, change);
    return this.weights.stage === "base" ? this.byTitles(system) : this.direct(system, change);
  }

  private async direct({ name }: System, change: Change | undefined): Promise<SystemResult> {
    this.onValidation ??= await this.combineOnValidation(name); // a control uses the weights of the system it controls
    const { priors, scores } = this.onValidation;
    const { context, heads } = this.asked;
    if (priors.whole.likelihood === 0) {
      const result = priorAnswer(name, this.asked);
      return change ? { ...result, validation: [] } : result;
    }
    const slates = this.changed(change);
    await this.weights.open("validation");
    const likelihoods = await this.timed(name, slates.length, () => this.likelihood(slates, `${name}, test`));
    const known = { context, evidence: heads.test.evidence };
    const test = scoreSlates(priors.whole, makeExamples(known, heads.test.slates, likelihoods));
    const orders = { validation: wholeOrders(heads.validation, scores), test: wholeOrders(heads.test, test) };
    return {
      ...ordered(name, this.asked, orders, this.countTokens(slates)),
      ...(change ? { validation: [] } : {}),
      prior: priors.whole,
    };
  }

  /** Runs the model on the validation slates and decides its weight. */
  private async combineOnValidation(system: string): Promise<CombinedOnValidation> {
    const { context, heads } = this.asked;
    const { slates, evidence } = heads.validation;
    const known = { context, evidence };
    await this.weights.open("rerank");
    const likelihoods = await this.likelihood(this.views.validation, `${system}, validation`);
    const examples = makeExamples(known, slates, likelihoods);
    // A slate whose true item is outside the head says nothing about the model.
    const hits = examples.filter((_, i) => (slates[i] as Slate).targetIndex >= 0);
    const prior =
      context.config.prompts.candidates > 0 ? fitValidationPrior(known, conditional(slates)) : this.asked.prior;
    const combination = combine(hits, prior, bootstrapOptions(context));
    context.log(describeCombination(system, combination));
    return { priors: combination.priors, scores: outOfSample(combination.priors, examples) };
  }

  /** Mean log-likelihood of a title's tokens: titles differ in length. */
  private async byTitles({ name }: System): Promise<SystemResult> {
    const { heads } = this.asked;
    await this.weights.open("own");
    const toGroup = (slate: SlateInput): Group => this.policy.titleGroup(slate);
    const score = async (slates: readonly SlateInput[], label: string): Promise<number[][]> => {
      const sums = await this.likelihood(slates, label, toGroup);
      return slates.map((slate, i) =>
        toGroup(slate).responses.map((r, j) => (sums[i]?.[j] as number) / Math.max(1, r.length)),
      );
    };
    const validation = await score(this.views.validation, `${name}, validation`);
    const { test } = this.views;
    const scores = await this.timed(name, test.length, () => score(test, `${name}, test`));
    const orders = { validation: wholeOrders(heads.validation, validation), test: wholeOrders(heads.test, scores) };
    return ordered(name, this.asked, orders, this.countTokens(test, toGroup));
  }

  private countTokens(
    slates: readonly SlateInput[],
    toGroup = (slate: SlateInput): Group => this.policy.directGroup(slate),
  ): SystemResult["tokens"] {
    const groups = slates.map(toGroup);
    return {
      prompt: mean(groups.map((g) => g.prompt.length)),
      answer: mean(groups.map((g) => g.responses.reduce((n, r) => n + r.length, 0))),
    };
  }

  /** Writes the seconds per request next to the results, which contain nothing that differs between equal runs. */
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

  private likelihood(
    slates: readonly SlateInput[],
    label: string,
    toGroup?: (slate: SlateInput) => Group,
  ): Promise<number[][]> {
    const { signal, progress } = this.asked.context;
    return this.policy.logLikelihood(slates, { signal, onProgress: (d, t) => progress(label, d, t) }, toGroup);
  }

  private async generate(system: System, change: Change | undefined): Promise<SystemResult> {
    const { selection, context } = this.asked;
    await this.weights.open("own");
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
    return generated(system, this.asked, change ? [] : selection, onValidation, onTest);
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

  /** The test slates as a control presents them. */
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

/** For every slate, the index of the next slate of a different user. */
function otherUser(slates: readonly Slate[]): number[] {
  return slates.map((s, i) => {
    for (let k = 1; k < slates.length; k++) {
      const j = (i + k) % slates.length;
      if ((slates[j] as Slate).user !== s.user) return j;
    }
    return i;
  });
}

/** Without likelihoods: the prior of every candidate. */
export function priorAnswer(system: string, asked: Asked): SystemResult {
  const { prior, validation, test } = asked;
  const scores = {
    validation: outOfSample(prior, makeExamples(asked, validation)),
    test: scoreSlates(prior.whole, makeExamples(asked, test)),
  };
  return { ...scored(system, asked, scores), prior: prior.whole };
}

/** Orders of whole slates from scores of their heads. */
const wholeOrders = ({ parts }: Heads, scores: readonly (readonly number[])[]): number[][] =>
  parts.map((part, i) => wholeOrder(part, orderBy(scores[i] as readonly number[])));

/** A system that scores candidates. @param scores of every validation and test slate */
export function scored(
  system: string,
  asked: Asked,
  scores: { readonly validation: readonly (readonly number[])[]; readonly test: readonly (readonly number[])[] },
): SystemResult {
  return ordered(system, asked, { validation: scores.validation.map(orderBy), test: scores.test.map(orderBy) }, none);
}

/** @param orders of every validation and test slate */
function ordered(
  system: string,
  asked: Asked,
  orders: { readonly validation: readonly (readonly number[])[]; readonly test: readonly (readonly number[])[] },
  tokens: SystemResult["tokens"],
): SystemResult {
  return {
    system,
    tokens,
    validation: asked.selection.map((i) =>
      inOrder(asked.validation[i] as Slate, orders.validation[i] as readonly number[]),
    ),
    test: orders.test.map((order, i) => inOrder(asked.test[i] as Slate, order)),
    orders: orders.test,
    shown: orders.test.flatMap((order, i) => {
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

/** Labels of the whole slate, from a generated order of its head; empty without a valid answer. */
const answeredOrder = ({ parsed }: Rollout, part: Parted): readonly number[] =>
  parsed.kind === "ranking" ? wholeOrder(part, parsed.order) : [];

const answered = (r: Rollout, slate: Slate, part: Parted): readonly number[] => inOrder(slate, answeredOrder(r, part));

const readReason = ({ parsed }: Rollout): string | undefined =>
  parsed.kind === "unparseable" ? parsed.reason : undefined;

function generated(
  { name: system, mode }: System,
  asked: Asked,
  chosen: readonly number[],
  onValidation: readonly Rollout[],
  onTest: readonly Rollout[],
): SystemResult {
  const orders = onTest.flatMap((r) => (r.parsed.kind === "ranking" ? [r.parsed.order] : []));
  const { heads } = asked;
  const json = asked.context.config.prompts.format === "json";
  return {
    system,
    validation: onValidation.map((r, i) => {
      const k = chosen[i] as number;
      return answered(r, asked.validation[k] as Slate, heads.validation.parts[k] as Parted);
    }),
    test: onTest.map((r, i) => answered(r, asked.test[i] as Slate, heads.test.parts[i] as Parted)),
    orders: onTest.map((r, i) => answeredOrder(r, heads.test.parts[i] as Parted)),
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
      ...(mode === "think" ? { faults: measureFaults(onTest.map(readReason)) } : {}),
    },
    tokens: { prompt: mean(onTest.map((r) => r.prompt.length)), answer: mean(onTest.map((r) => r.tokens.length)) },
    shown: onTest.flatMap((r, i) => {
      const slate = (asked.test[i] as Slate).id;
      return asked.shown.has(slate) && r.parsed.kind === "ranking"
        ? [
            {
              slate,
              text: json ? r.parsed.reasoning : r.text,
              order: wholeOrder(heads.test.parts[i] as Parted, r.parsed.order),
            },
          ]
        : [];
    }),
  };
}
