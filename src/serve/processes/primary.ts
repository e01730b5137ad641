/**
 * Several processes that are one service: starts them, starts lost ones again, passes on what they tell each other. It
 * opens the ports for them (node:cluster) and hands each new connection to the next process; it answers nothing itself.
 */
import cluster, { type Worker } from "node:cluster";
import { Gr2Error, InterruptedError } from "../../core/errors.ts";
import type { FromChild, FromPrimary, Started } from "./messages.ts";

export interface ProcessGroup {
  /** Of the first process; all serve the same ports. */
  readonly started: Started;
  /** Every process reads tokens and certificates again at once, and then the run. */
  reload(): void;
  /** Resolves once all have finished what they accepted and ended. May be called twice. */
  stop(options: { readonly lameDuck: boolean }): Promise<void>;
}

export interface GroupOptions {
  readonly count: number;
  readonly log: (message: string) => void;
  /** Aborts the start. */
  readonly signal: AbortSignal;
  /** Pauses before a lost process is started again; the last one repeats. */
  readonly backoffMs?: readonly number[];
}

/** Processes that do not answer a question within this time are left out. */
const answerMs = 1_000;
const defaultBackoffMs = [0, 1_000, 5_000, 30_000];
/** A process that has lived so long is started again without a pause. */
const settledMs = 60_000;

interface Question {
  readonly from: Worker;
  readonly id: number;
  readonly waiting: Set<Worker>;
  readonly answers: unknown[];
  readonly timer: NodeJS.Timeout;
}

const tell = (worker: Worker, message: FromPrimary): void => {
  if (worker.isConnected()) worker.send(message, () => {}); // it may have ended in between
};

/** Resolves once all processes answer requests; rejects with what keeps one from starting. */
export async function startProcesses(options: GroupOptions): Promise<ProcessGroup> {
  const { count, log, signal, backoffMs = defaultBackoffMs } = options;
  const children = new Map<Worker, { readonly number: number; ready: boolean | undefined }>();
  const questions = new Map<number, Question>();
  const losses = new Map<number, number>();
  let numQuestions = 0;
  let stopping = false;
  let allEnded: () => void = () => {};
  const starts: Promise<Started>[] = [];

  const announce = (): void => {
    const ready = [...children.values()].every((child) => child.ready !== false);
    for (const worker of children.keys()) tell(worker, { kind: "others", ready });
  };
  const close = (own: number): void => {
    const question = questions.get(own);
    if (!question) return;
    questions.delete(own);
    clearTimeout(question.timer);
    tell(question.from, { kind: "answers", id: question.id, answers: question.answers });
  };
  const ask = (from: Worker, message: FromChild & { kind: "ask" }): void => {
    const own = ++numQuestions;
    const waiting = new Set([...children.keys()].filter((w) => w !== from && children.get(w)?.ready !== undefined));
    const timer = setTimeout(() => close(own), answerMs);
    questions.set(own, { from, id: message.id, waiting, answers: [], timer });
    for (const worker of waiting) tell(worker, { kind: "ask", id: own, question: message.question });
    if (waiting.size === 0) close(own);
  };
  const answered = (worker: Worker, own: number, answer?: unknown): void => {
    const question = questions.get(own);
    if (!question?.waiting.delete(worker)) return;
    if (answer !== undefined && answer !== null) question.answers.push(answer);
    if (question.waiting.size === 0) close(own);
  };

  const start = (number: number, late: boolean): Promise<Started> =>
    new Promise((resolve, reject) => {
      const worker = cluster.fork();
      const since = performance.now();
      children.set(worker, { number, ready: undefined });
      let failure: Gr2Error | undefined;
      worker.on("message", (message: FromChild) => {
        const child = children.get(worker);
        if (message.kind === "hello") tell(worker, { kind: "begin", number, count, late });
        else if (message.kind === "started") resolve(message);
        else if (message.kind === "failed")
          failure = new Gr2Error(message.code ?? "RUN", message.message, {
            ...(message.advice === undefined ? {} : { advice: message.advice }),
          });
        else if (message.kind === "state" && child) {
          child.ready = message.ready;
          announce();
        } else if (message.kind === "ask") ask(worker, message);
        else if (message.kind === "reply") answered(worker, message.id, message.answer);
      });
      worker.on("error", (e) => log(`process ${number}: ${e.message}`));
      worker.on("exit", (code, how) => {
        children.delete(worker);
        for (const [own] of questions) answered(worker, own);
        announce();
        reject(failure ?? new Gr2Error("RUN", `process ${number} of the service ended with ${how ?? code}`));
        if (children.size === 0) allEnded();
        if (stopping || signal.aborted || (!late && !settled)) return;
        if (performance.now() - since > settledMs) losses.delete(number);
        const lost = losses.get(number) ?? 0;
        losses.set(number, lost + 1);
        const why = failure ? failure.message : `it ended with ${how ?? code}`;
        log(`process ${number} is lost: ${why}; starting it again`);
        setTimeout(
          () => {
            if (!stopping) start(number, true).catch(() => {}); // what is wrong was logged, and it is tried again
          },
          backoffMs[Math.min(lost, backoffMs.length - 1)],
        );
      });
    });

  const end = async (message: FromPrimary | undefined): Promise<void> => {
    stopping = true;
    if (children.size === 0) return;
    const ended = new Promise<void>((resolve) => {
      allEnded = resolve;
    });
    for (const worker of children.keys()) {
      if (message) tell(worker, message);
      else worker.process.kill("SIGKILL");
    }
    await ended;
  };

  let settled = false;
  const onAbort = (): void => void end(undefined);
  signal.addEventListener("abort", onAbort);
  try {
    for (let number = 0; number < count; number++) starts.push(start(number, false));
    const [started] = await Promise.all(starts);
    settled = true;
    let stopped: Promise<void> | undefined;
    return {
      started: started as Started,
      reload() {
        for (const worker of children.keys()) tell(worker, { kind: "reload" });
      },
      stop({ lameDuck }) {
        stopped ??= end({ kind: "stop", lameDuck });
        return stopped;
      },
    };
  } catch (e) {
    await end(undefined);
    throw signal.aborted ? new InterruptedError() : e;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
