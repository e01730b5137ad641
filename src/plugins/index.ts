/**
 * `gr2/plugins`: the types that a user's modules implement, and pure functions useful there. docs/plugins.md explains
 * each.
 */
export type {
  Adapter,
  BroughtInteraction,
  BroughtItem,
  BroughtSource,
  SourcePlace,
} from "../data/brought.ts";
export type { LabelledSlate, SlateItems } from "../data/slate-items.ts";
export type { Item } from "../data/types.ts";
export type { Baseline, Metric, OrderedSlate } from "../eval/brought.ts";
export { gradedAuc, gradedNdcg, multiRecall } from "../eval/metrics.ts";
export type { BroughtPreRanker, FittedPreRanker, Training } from "../prerank/brought.ts";
export type { FitPurpose, Ranked, Repeats } from "../prerank/types.ts";
export type { Answer, Reward, Score } from "../reward/reward.ts";
export type { BroughtQuestion, BroughtReply, BroughtTeacher, ReasoningPart } from "../teacher/brought.ts";
export type { Plugin, PluginSetup } from "./setup.ts";
