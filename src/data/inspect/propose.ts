/** From what was measured to settings: split, k-core, clock, semantic IDs; each with its reason. Pure. */
import type { Measured } from "./measure.ts";

export interface Advice {
  readonly setting: string;
  readonly value: unknown;
  readonly why: string;
}

const day = 86_400;
const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** Settings beyond the layout's own, in the order of the config. */
export function advise(m: Measured, adapter: string): Advice[] {
  const out: Advice[] = [];
  if (m.positions && adapter === "table")
    out.push({
      setting: "data.clock",
      value: false,
      why: "the time column counts 0, 1, 2, ... within each user: an order, not a time",
    });
  const k = ([5, 3, 2] as const).find((n) => m.cores[n] >= 0.4);
  out.push({
    setting: "data.minInteractions",
    value: k ?? 0,
    why:
      k === undefined
        ? "even users and items with two interactions would leave less than 40 % of the rows"
        : `leaves ${percent(m.cores[k])} of the interactions${m.repeats > 0 ? ", repeats counted once" : ""}`,
  });
  out.push(adviseSplit(m, adapter));
  const items = Math.max(m.items, 1);
  const levels = items <= 5000 ? 2 : items <= 100_000 ? 3 : 4;
  out.push({ setting: "sid.levels", value: levels, why: `${items} items; ${levels} levels of 256 codes` });
  out.push({ setting: "sid.codes", value: 256, why: "" });
  if (items >= 200)
    out.push({ setting: "sid.collaborativeDims", value: 32, why: "IDs that also know what people chose together" });
  return out;
}

function adviseSplit(m: Measured, adapter: string): Advice {
  const setting = "data.split.kind";
  const span = m.time ? (m.time.last - m.time.first) / day : 0;
  if (m.time && span >= 14 && m.reach >= 0.3)
    return {
      setting,
      value: "global-time",
      why: `${Math.round(span)} days, and ${percent(m.reach)} of the latest interactions are of users with a history: one cut in time for everybody is the honest test`,
    };
  if (m.time && adapter === "impressions")
    return {
      setting,
      value: "global-time",
      why: "a log has a clock, and other splits drop slates that a boundary cuts",
    };
  const clock = !m.time
    ? "there is no clock"
    : span < 14
      ? `the times span ${span < 1 ? "less than a day" : `${Math.round(span)} days`}, too little for a cut in time`
      : `only ${percent(m.reach)} of the latest interactions are of users with a history`;
  return m.lengthMedian < 10
    ? {
        setting,
        value: "leave-one-out",
        why: `${clock}, and sequences are short (median ${m.lengthMedian}): shares of so few positions would leave segments empty`,
      }
    : {
        setting,
        value: "position",
        why: `${clock}; sequences are long enough to be cut by shares (median ${m.lengthMedian})`,
      };
}
