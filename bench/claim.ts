/** The output of every benchmark: one JSON line per claim, with the peer to compare with and the bar it must clear. */
import { cpus, totalmem } from "node:os";

export interface Claim {
  /** "BENCH/what is measured". */
  readonly claim: string;
  readonly value: number;
  readonly unit: string;
  /** What it is compared with; "" = nothing. */
  readonly peer: string;
  readonly peer_value: number | null;
  /** value / peer_value. */
  readonly ratio: number | null;
  /** Condition that `value`, or the ratio, must meet, e.g. "<= 720" or "ratio <= 2"; "" = for information. */
  readonly bar: string;
  readonly ok: boolean;
  /** Observations behind the value. */
  readonly n: number;
  readonly hardware: string;
}

export interface Measurement {
  readonly claim: string;
  readonly value: number;
  readonly unit: string;
  readonly n: number;
  readonly peer?: string;
  readonly peerValue?: number;
  readonly bar?: Bar;
}

export type Bar = readonly [of: "value" | "ratio", condition: "<=" | ">=" | ">", limit: number];

/** Prints claims as they are made; a benchmark is a function of this and its own arguments. */
export type Benchmark = (emit: (measured: Measurement) => void, args: readonly string[]) => Promise<void>;

export function toClaim({ claim, value, unit, n, peer, peerValue, bar }: Measurement): Claim {
  const ratio = peerValue === undefined || peerValue === 0 ? null : significant(value / peerValue);
  const [of, condition, limit] = bar ?? [];
  const judged = of === "ratio" ? ratio : value;
  const ok =
    limit === undefined ||
    (judged !== null && (condition === "<=" ? judged <= limit : condition === ">=" ? judged >= limit : judged > limit));
  return {
    claim,
    value: significant(value),
    unit,
    peer: peer ?? "",
    peer_value: peerValue === undefined ? null : significant(peerValue),
    ratio,
    bar: bar ? `${of === "ratio" ? "ratio " : ""}${condition} ${limit}` : "",
    ok,
    n,
    hardware: hardware(),
  };
}

const significant = (x: number): number => Number(x.toPrecision(5));

const hardware = (): string => {
  const all = cpus();
  return `${all.length} x ${all[0]?.model.trim() || "unknown CPU"}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}`;
};

/**
 * Median CPU seconds of some runs of a piece of work on this thread, with its last result:
 * load elsewhere does not count.
 */
export function timed<T>(times: number, work: () => T): { seconds: number; result: T } {
  const seconds: number[] = [];
  let result: T | undefined;
  for (let k = 0; k < times; k++) {
    const start = process.cpuUsage();
    result = work();
    const { user, system } = process.cpuUsage(start);
    seconds.push((user + system) / 1e6);
  }
  seconds.sort((a, b) => a - b);
  return { seconds: seconds[seconds.length >> 1] as number, result: result as T };
}
