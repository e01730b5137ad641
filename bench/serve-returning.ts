/**
 * Users that come back, in mode direct: what the prefix cache is worth. Two services take the same visits in turn, one with
 * serve.prefixCacheMb=0. Every user's first visit is not measured.
 *
 *   other candidates        the same history, the candidates of somebody else's slate
 *   a growing history       one more item each time, below the items a prompt shows (prompts.historyItems)
 *   a full history          one more item each time, above: the prompt's window moves, its beginning is another one
 */
import { readFileSync } from "node:fs";
import { Mode } from "../src/client/index.ts";
import { workersUnder } from "../tests/integration/served.ts";
import type { Measurement } from "./claim.ts";
import { isWhole, type Question, type Service } from "./serve-load.ts";

const visits = 8;
const maxUsers = 200;
const numCallers = 32;
/** Of Linux' clock in /proc. */
const ticksPerSecond = 100;

/** A user's visits, first to last. */
type Visits = readonly Question[];
interface Spent {
  seconds: number;
  workerSeconds: number;
  faults: number;
}

/** A candidate's scores by its id, best first. */
type Scores = readonly (readonly [id: string, score: number])[];

/**
 * @param questions one a user
 * @param historyItems that a prompt shows
 */
export async function returning(
  emit: (measured: Measurement) => void,
  questions: readonly Question[],
  services: { readonly on: Service; readonly off: Service },
  historyItems: number,
): Promise<void> {
  const long = questions.filter(({ history }) => history.length >= historyItems + visits).slice(0, maxUsers);
  const kinds: Record<string, (q: Question, user: number) => Visits> = {
    "other candidates": ({ history }, user) =>
      each((visit) => ({ ...(long[(user + visit) % long.length] as Question), history: history.slice(-historyItems) })),
    "a growing history": (q) =>
      each((visit) => ({ ...q, history: q.history.slice(0, historyItems - visits + visit + 1) })),
    "a full history": (q) => each((visit) => ({ ...q, history: q.history.slice(0, historyItems + visit + 1) })),
  };
  for (const [kind, visitsOf] of Object.entries(kinds)) {
    const users = long.map(visitsOf);
    const before = await tokensOf(services.on);
    const spent = { on: { seconds: 0, workerSeconds: 0, faults: 0 }, off: { seconds: 0, workerSeconds: 0, faults: 0 } };
    for (let visit = 0; visit < visits; visit++)
      for (const which of visit % 2 ? (["on", "off"] as const) : (["off", "on"] as const)) {
        const took = await all(
          services[which],
          users.map((own) => own[visit] as Question),
        );
        if (visit > 0) add(spent[which], took);
      }
    const after = await tokensOf(services.on);
    const name = `serve/returning, ${kind}`;
    const n = (visits - 1) * users.length;
    const off = { peer: "serve.prefixCacheMb=0" };
    emit({
      claim: `${name}: answers a second`,
      value: n / spent.on.seconds,
      unit: "1/s",
      n,
      ...off,
      peerValue: n / spent.off.seconds,
    });
    emit({
      ...{ claim: `${name}: CPU of the worker an answer`, value: (1000 * spent.on.workerSeconds) / n, unit: "ms", n },
      ...{ ...off, peerValue: (1000 * spent.off.workerSeconds) / n },
    });
    const [computed, reused] = [after.computed - before.computed, after.reused - before.reused];
    emit({
      claim: `${name}: prompt tokens reused, first visits included`,
      value: reused / (computed + reused),
      unit: "share",
      n,
    });
    const faults = spent.on.faults + spent.off.faults;
    emit({ claim: `${name}: faults`, value: faults, unit: "answers", n: 2 * n, bar: ["value", "<=", 0] });
  }
}

const each = (visit: (number: number) => Question): Visits =>
  Array.from({ length: visits }, (_, number) => visit(number));

/** Every request once, from as many callers as there are. */
async function all({ client, pid }: Service, requests: readonly Question[]): Promise<Spent> {
  const cpu = workerSeconds(pid);
  const begin = performance.now();
  let next = 0;
  let faults = 0;
  const caller = async (): Promise<void> => {
    for (let i = next++; i < requests.length; i = next++) {
      const request = { ...(requests[i] as Question), mode: Mode.MODE_DIRECT, deadlineMs: 50_000 };
      const answer = await client.rerank(request).catch(() => undefined);
      if (answer?.fallback !== 0 || !isWhole(request, answer)) faults++;
    }
  };
  await Promise.all(Array.from({ length: numCallers }, caller));
  return { seconds: (performance.now() - begin) / 1000, workerSeconds: workerSeconds(pid) - cpu, faults };
}

function add(to: Spent, took: Spent): void {
  to.seconds += took.seconds;
  to.workerSeconds += took.workerSeconds;
  to.faults += took.faults;
}

/** CPU time of a service's workers. */
function workerSeconds(pid: number): number {
  const ticks = workersUnder(pid).map((worker) => {
    const fields = readFileSync(`/proc/${worker}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return Number(fields[11]) + Number(fields[12]); // utime, stime
  });
  return ticks.reduce((a, b) => a + b, 0) / ticksPerSecond;
}

/** Of the service's counters. */
async function tokensOf({ url }: Service): Promise<{ computed: number; reused: number }> {
  const text = await (await fetch(new URL("/metrics", url))).text();
  const of = (how: string): number =>
    Number(new RegExp(`^gr2_prompt_tokens_total\\{how="${how}"\\} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  return { computed: of("computed"), reused: of("reused") };
}
