/**
 * The systems that the evaluation compares: anything that orders the candidates of a slate. One entry holds everything
 * the evaluation, the report, the command line and the service need to know about a system; adding one takes one entry.
 * Entries are in the order of the results table.
 *
 * Not here: how an order is computed (stages/evaluation), how orders are compared (table.ts).
 */
import type { Mode } from "../prompts/rerank.ts";

/** Stages that leave a language model; base: the pretrained model before any of them. */
export type LanguageModelStage = "base" | "midtrain" | "sft" | "rl";

/**
 *   input     the input order
 *   scores    scores of a pre-ranker, of another baseline's model or of a user
 *   evidence  the evidence's scores, no language model
 *   prior     the fitted prior's scores, no language model
 *   think, answer, direct   see Mode; direct is the likelihood times the prior
 */
export type SystemMode = "input" | "scores" | "evidence" | "prior" | Mode;

/**
 * What a control changes in its system.
 *
 *   other-history     the history of another user
 *   other-reasoning   the reasoning of another slate
 *   other-order       the prompt lists the candidates in a random order; prior and positions stay
 *   compressed        prompts shortened as eval.compress says
 */
export type Change = "other-history" | "other-reasoning" | "other-order" | "compressed";

/**
 * Modes without reasoning and with at most one model call: those with which `gr2 serve` answers requests of mode
 * direct.
 */
export const quickModes: readonly SystemMode[] = ["evidence", "prior", "direct"];

/** What an answer costs, cheapest first. */
export const costClasses = ["none", "statistics", "one pass", "generation", "reasoning"] as const;
export type CostClass = (typeof costClasses)[number];

interface Entry {
  /** As in metrics.json. */
  readonly name: string;
  /** Whose weights answer; absent: no language model. */
  readonly stage?: LanguageModelStage;
  readonly mode: SystemMode;
  /** Systems it is compared with, besides prerank, prior and evidence. */
  readonly comparedWith?: readonly string[];
  /** `gr2 serve` can answer with it. */
  readonly servable: boolean;
  readonly cost: CostClass;
  /** A short description. */
  readonly description: string;
}

/** baseline: exists without GR2's models; policy: a trained system; control: a policy with something taken away. */
export type System =
  | (Entry & { readonly kind: "baseline" | "policy" })
  | (Entry & {
      readonly kind: "control";
      /** The system it is a control for. */
      readonly of: string;
      readonly change: Change;
      readonly servable: false;
    });

/** A system's entry in metrics.json. */
export type SystemEntry = Pick<System, "name" | "kind" | "servable" | "cost" | "description"> & {
  /** Per request on test, mean. */
  readonly prompt_tokens: number;
  readonly answer_tokens: number;
};

export const systems: readonly System[] = [
  {
    name: "prerank",
    mode: "input",
    kind: "baseline",
    servable: false,
    cost: "none",
    description: "the input order",
  },
  {
    name: "popularity",
    mode: "scores",
    kind: "baseline",
    servable: false,
    cost: "none",
    description: "the most popular candidate first",
  },
  {
    name: "lambdamart",
    mode: "scores",
    kind: "baseline",
    servable: false,
    cost: "statistics",
    description: "the evidence by boosted trees alone",
  },
  {
    name: "listwise",
    mode: "scores",
    kind: "baseline",
    servable: false,
    cost: "statistics",
    description: "the evidence by a listwise regression alone",
  },
  {
    name: "minilm",
    mode: "scores",
    kind: "baseline",
    servable: false,
    cost: "one pass",
    description: "a cross-encoder over titles, fine-tuned on re-rank slates",
  },
  {
    name: "evidence",
    mode: "evidence",
    kind: "baseline",
    servable: true,
    cost: "statistics",
    description: "the evidence alone, no language model",
  },
  {
    name: "prior",
    mode: "prior",
    kind: "baseline",
    servable: true,
    cost: "statistics",
    description: "learned prior alone, no language model",
  },
  {
    name: "zero_shot",
    stage: "base",
    mode: "answer",
    kind: "baseline",
    servable: false,
    cost: "generation",
    description: "the base model before any training, asked with the same prompt, no prior",
  },
  {
    name: "zero_shot_titles",
    stage: "base",
    mode: "direct",
    kind: "baseline",
    servable: false,
    cost: "one pass",
    description: "the base model's likelihood of each title after those of the history, no prior",
  },
  {
    name: "direct",
    stage: "midtrain",
    mode: "direct",
    kind: "policy",
    servable: true,
    cost: "one pass",
    description: "likelihood × prior, mid-trained model",
  },
  {
    name: "direct_other_history",
    stage: "midtrain",
    mode: "direct",
    kind: "control",
    of: "direct",
    change: "other-history",
    servable: false,
    cost: "one pass",
    description: "the history of another user",
  },
  {
    name: "sft_direct",
    stage: "sft",
    mode: "direct",
    kind: "policy",
    comparedWith: ["direct"],
    servable: true,
    cost: "one pass",
    description: "likelihood × prior, SFT model",
  },
  {
    name: "sft",
    stage: "sft",
    mode: "think",
    kind: "policy",
    servable: true,
    cost: "reasoning",
    description: "generated after visible reasoning, SFT",
  },
  {
    name: "sft_nothink",
    stage: "sft",
    mode: "answer",
    kind: "policy",
    servable: true,
    cost: "generation",
    description: "generated at once, SFT",
  },
  {
    name: "rl_direct",
    stage: "rl",
    mode: "direct",
    kind: "policy",
    comparedWith: ["sft_direct"],
    servable: true,
    cost: "one pass",
    description: "likelihood × prior, RL model",
  },
  {
    name: "rl",
    stage: "rl",
    mode: "think",
    kind: "policy",
    comparedWith: ["sft"],
    servable: true,
    cost: "reasoning",
    description: "generated after visible reasoning, RL",
  },
  {
    name: "rl_compressed",
    stage: "rl",
    mode: "think",
    kind: "control",
    of: "rl",
    change: "compressed",
    servable: false,
    cost: "reasoning",
    description: "prompts shortened, RL",
  },
  {
    name: "rl_other_thought",
    stage: "rl",
    mode: "think",
    kind: "control",
    of: "rl",
    change: "other-reasoning",
    servable: false,
    cost: "reasoning",
    description: "the reasoning of another slate",
  },
  {
    name: "rl_other_order",
    stage: "rl",
    mode: "think",
    kind: "control",
    of: "rl",
    change: "other-order",
    servable: false,
    cost: "reasoning",
    description: "candidates listed in a random order",
  },
  {
    name: "rl_nothink",
    stage: "rl",
    mode: "answer",
    kind: "policy",
    comparedWith: ["sft_nothink"],
    servable: true,
    cost: "generation",
    description: "generated at once, RL",
  },
  {
    name: "rl_nothink_other_order",
    stage: "rl",
    mode: "answer",
    kind: "control",
    of: "rl_nothink",
    change: "other-order",
    servable: false,
    cost: "generation",
    description: "the same, generated at once",
  },
];

const byName: ReadonlyMap<string, System> = new Map(systems.map((s) => [s.name, s]));

/** Undefined if this version has no such system (metrics of another version may name one). */
export const findSystem = (name: string): System | undefined => byName.get(name);

/** One of several pre-rankers whose lists were fused. */
export const prerankerSystem = (preranker: string): System => ({
  ...{ name: `prerank_${preranker}`, mode: "scores", kind: "baseline", servable: false, cost: "none" },
  description: `pre-ranker ${preranker} alone; of all slates, its own list`,
});

/** A user's scores (eval.baselines). */
export const broughtSystem = (name: string, description: string): System => ({
  ...{ name, mode: "scores", kind: "baseline", servable: false, cost: "none", description },
});

/**
 * Whether it is one of GR2's own systems, neither a baseline nor a control.
 * @param known the systems of a run; those in the registry are always known
 */
export const isPolicy = (name: string, known: readonly Pick<System, "name" | "kind">[] = []): boolean =>
  (known.find((s) => s.name === name) ?? findSystem(name))?.kind === "policy";

/**
 * What a system is compared with: the pre-rank, the systems without a language model, and its own `comparedWith`, such
 * as the system it was trained from.
 */
export const baselinesFor = (name: string): readonly string[] => [
  "prerank",
  "prior",
  "evidence",
  ...(findSystem(name)?.comparedWith ?? []),
];

/** The servable systems of some modes. */
export const servable = (modes: readonly SystemMode[]): readonly System[] =>
  systems.filter((s) => s.servable && modes.includes(s.mode));

/** The system with the same weights and another mode. */
export const sibling = (system: System, mode: SystemMode): System | undefined =>
  systems.find((s) => s.stage === system.stage && s.mode === mode && s.kind === system.kind);
