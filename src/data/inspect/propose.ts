/**
 * Turns measurements into a recipe: a tuned base (configs/base-*.yaml) plus settings scaled to the data (split, k-core,
 * semantic IDs, epochs, caps), each with its reason. Pure.
 */
import type { Core, Measured } from "./measure.ts";

export interface Advice {
  readonly setting: string;
  readonly value: unknown;
  readonly why: string;
}

const day = 86_400;
const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** Configs that proposals extend (configs/); they contain all settings that are tuned but not scaled to the data. */
export type Base = "base-small.yaml" | "base-sparse.yaml" | "base-impressions.yaml" | "base-large.yaml";

/** Maximum slates per segment: enough to distinguish systems. */
const maxSlates = 25_000;
/** Sequence tokens that mid-training of a small model reads in a few minutes on two cores. */
const tokenBudget = 1.8e6;
/** Slates for fine-tuning of a small model; with far fewer, its reasoning is mostly invalid. */
const sftLessons = 16_000;
/** From this many users on, fine-tuning and validation use only a part of them. */
const manyUsers = 10_000;

/** Settings beyond the layout's own, in the order of the config. */
export function advise(m: Measured, adapter: string): Advice[] {
  const out: Advice[] = [];
  const base = chooseBase(m, adapter);
  out.push({ setting: "extends", ...base });
  if (m.positions && adapter === "table")
    out.push({
      setting: "data.clock",
      value: false,
      why: "the time column counts 0, 1, 2, ... per user: it is an order, not a time",
    });
  const core = coreFor(m);
  out.push(core);
  const left = m.left[core.value];
  const split = adviseSplit(m, adapter);
  out.push(split);
  out.push(...ids(left.items));
  const levels = levelsFor(left.items);
  const perEpoch = Math.max(1, left.interactions * levels * (split.value === "leave-one-out" ? 0.7 : 0.6) * 1.4);
  const most = base.value === "base-small.yaml" ? 12 : 8;
  const epochs = Math.max(2, Math.min(most, Math.round(tokenBudget / perEpoch)));
  out.push({
    setting: "midtrain.epochs",
    value: epochs,
    why:
      `${(perEpoch / 1e6).toFixed(perEpoch < 1e5 ? 2 : 1)} million tokens per epoch; ` +
      `${epochs === most ? "as tuned" : "more would take over twenty minutes on two cores"}`,
  });
  const perUser = split.value === "leave-one-out" ? 1 : (0.15 * left.interactions) / Math.max(1, left.users);
  const cap = Math.max(1, Math.floor(maxSlates / Math.max(1, left.users)));
  if (perUser * left.users > maxSlates)
    out.push({
      setting: "prerank.maxSlatesPerUser",
      value: cap,
      why:
        `otherwise a segment would have ${Math.round(perUser * left.users)} slates; ` +
        `the latest of each user are kept`,
    });
  if (left.users > maxSlates && base.value !== "base-large.yaml")
    out.push({
      setting: "eval.maxSlates",
      value: maxSlates,
      why: "enough to distinguish systems; whole users are sampled",
    });
  if (base.value === "base-sparse.yaml") {
    const epochs = Math.max(0.5, Math.min(6, Math.round((2 * sftLessons) / Math.max(1, left.users)) / 2));
    if (epochs !== 1)
      out.push({
        setting: "sft.epochs",
        value: epochs,
        why: `${left.users} users: about ${sftLessons} lessons teach a small model to answer in form`,
      });
    if (left.users > manyUsers)
      out.push({ setting: "eval.validationSlates", value: 5000, why: "enough to choose a system on" });
  }
  return out;
}

function chooseBase(m: Measured, adapter: string): { value: Base; why: string } {
  const perItem = m.interactions / Math.max(1, m.items);
  if (adapter === "impressions" || adapter === "mind")
    return {
      value: "base-impressions.yaml",
      why: "the data has logged slates: the incumbent's candidates are re-ranked",
    };
  if (!m.whole || m.interactions > 3e6 || m.items > 100_000)
    return { value: "base-large.yaml", why: "more than three million interactions or a hundred thousand items" };
  if (m.items <= 20_000 && perItem >= 10 && m.lengthMedian >= 20)
    return {
      value: "base-small.yaml",
      why: `dense: ${perItem.toFixed(0)} interactions per item, median sequence length ${m.lengthMedian}`,
    };
  return {
    value: "base-sparse.yaml",
    why: `sparse: ${perItem.toFixed(1)} interactions per item, median sequence length ${m.lengthMedian}`,
  };
}

/** The largest k-core that keeps most of the data, with its cost as the reason. */
function coreFor(m: Measured): Advice & { readonly value: Core } {
  const share = (k: Core): number => m.left[k].interactions / Math.max(1, m.left[0].interactions);
  const k = ([5, 3, 2] as const).find((n) => share(n) >= (n === 5 ? 0.8 : n === 3 ? 0.7 : 0.5)) ?? 0;
  const [all, left] = [m.left[0], m.left[k]];
  const lost =
    `${all.users - left.users} of ${all.users} users and ` +
    `${all.items - left.items} of ${all.items} items are dropped`;
  return {
    setting: "data.minInteractions",
    value: k,
    why:
      k === 0
        ? "even a 2-core would keep less than half of the rows"
        : `keeps ${percent(share(k))} of the interactions${m.repeats > 0 ? ", repeats counted once" : ""}; ${lost}`,
  };
}

/** Several times more IDs than items: every item can have a unique ID. */
const levelsFor = (items: number): number => (items <= 5000 ? 2 : items <= 100_000 ? 3 : 4);

function ids(items: number): Advice[] {
  const [levels, codes] = [levelsFor(items), items <= 500 ? 64 : 256];
  return [
    { setting: "sid.levels", value: levels, why: `${items} items; ${levels} levels of ${codes} codes` },
    { setting: "sid.codes", value: codes, why: "" },
    items >= 200
      ? { setting: "sid.collaborativeDims", value: 32, why: "IDs also reflect which items users chose together" }
      : {
          setting: "sid.collaborativeDims",
          value: 0,
          why: "too few items to factorise which items were chosen together",
        },
  ];
}

function adviseSplit(m: Measured, adapter: string): Advice {
  const setting = "data.split.kind";
  const span = m.time ? (m.time.last - m.time.first) / day : 0;
  if (m.time && span >= 14 && m.reach >= 0.3)
    return {
      setting,
      value: "global-time",
      why:
        `${Math.round(span)} days, and ${percent(m.reach)} of the latest interactions are by users with a history: ` +
        `one cut-off time for all users is the most realistic test`,
    };
  if (m.time && (adapter === "impressions" || adapter === "mind"))
    return {
      setting,
      value: "global-time",
      why: "a log has times, and other splits drop slates that cross a boundary",
    };
  const clock = !m.time
    ? "the data has no times"
    : span < 14
      ? `the times span ${span < 1 ? "less than a day" : `${Math.round(span)} days`}, too short for a split by time`
      : `only ${percent(m.reach)} of the latest interactions are by users with a history`;
  return m.lengthMedian < 10
    ? {
        setting,
        value: "leave-one-out",
        why:
          `${clock}, and sequences are short (median ${m.lengthMedian}): ` +
          `a split by shares would leave segments empty`,
      }
    : {
        setting,
        value: "position",
        why: `${clock}; sequences are long enough for a split by shares (median ${m.lengthMedian})`,
      };
}
