/** One process of a service that has several, as it sees the others. What they say goes through primary.ts. */
import cluster from "node:cluster";
import { Gr2Error } from "../../core/errors.ts";
import type {
  CallOptions,
  ItemReference,
  RegisteredCount,
  RerankAnswer,
  Reranker,
  RerankRequest,
} from "../request/types.ts";
import type { FromChild, FromPrimary, Question, Started } from "./messages.ts";

export interface Peers {
  /** From 0. */
  readonly number: number;
  /** Processes of the service. */
  readonly count: number;
  /** It takes the place of one that was lost: the others answer meanwhile. */
  readonly late: boolean;
  /** Whether every process that listens has a model that answers. */
  ready(): boolean;
  /** Asks all others; resolves with the answers of those that answer in time. */
  ask(question: Question): Promise<readonly unknown[]>;
  /** Answers the others from now on, and tells them whether this one is ready. */
  join(answer: (question: Question) => unknown, ready: () => boolean): void;
  /** This process answers requests. */
  started(started: Started): void;
  failed(error: unknown): void;
  /** Resolves when the service is to end; `reload` is called whenever it is to read its run again. */
  untilStopped(reload: () => void): Promise<{ readonly lameDuck: boolean }>;
  /** Ends this process's part: nothing more is heard of the others. */
  leave(): void;
}

/** How often a change of readiness is looked for. */
const lookMs = 100;

const tell = (message: FromChild): void => {
  if (process.connected) process.send?.(message);
};

/** Whether this process is one that a primary has started. */
export const isPeer = (): boolean => cluster.isWorker;

/** Waits for what the primary says this process is. */
export async function joinPeers(): Promise<Peers> {
  const waiting = new Map<number, (answers: readonly unknown[]) => void>();
  let numAsked = 0;
  let ready = true;
  let answer: (question: Question) => unknown = () => undefined;
  let stop: (how: { readonly lameDuck: boolean }) => void = () => {};
  let reload: () => void = () => {};
  const stopped = new Promise<{ readonly lameDuck: boolean }>((resolve) => {
    stop = resolve;
  });
  let begin: (message: FromPrimary & { kind: "begin" }) => void = () => {};
  const begun = new Promise<FromPrimary & { kind: "begin" }>((resolve) => {
    begin = resolve;
  });
  process.on("message", (message: FromPrimary) => {
    if (message.kind === "begin") begin(message);
    else if (message.kind === "stop") stop(message);
    else if (message.kind === "reload") reload();
    else if (message.kind === "others") ready = message.ready;
    else if (message.kind === "ask") tell({ kind: "reply", id: message.id, answer: answer(message.question) });
    else if (message.kind === "answers") {
      waiting.get(message.id)?.(message.answers);
      waiting.delete(message.id);
    }
  });
  tell({ kind: "hello" });
  const { number, count, late } = await begun;
  return {
    number,
    count,
    late,
    ready: () => ready,
    ask: (question) =>
      new Promise((resolve) => {
        if (!process.connected) return resolve([]);
        const id = ++numAsked;
        waiting.set(id, resolve);
        tell({ kind: "ask", id, question });
      }),
    join(how, isReady) {
      answer = how;
      let told: boolean | undefined;
      const look = (): void => {
        const now = isReady();
        if (now !== told) tell({ kind: "state", ready: now });
        told = now;
      };
      look();
      setInterval(look, lookMs).unref();
    },
    started: (started) => tell({ kind: "started", ...started }),
    failed: (error) =>
      tell({
        kind: "failed",
        message: error instanceof Error ? error.message : String(error),
        ...(error instanceof Gr2Error ? { code: error.code } : {}),
        ...(error instanceof Gr2Error && error.advice !== undefined ? { advice: error.advice } : {}),
      }),
    untilStopped(onReload) {
      reload = onReload;
      return stopped;
    },
    leave: () => process.disconnect(),
  };
}

/** The re-ranker of this process, as one of several: ready when all are, and what is registered here is known to all. */
export class PeerReranker implements Reranker {
  private readonly own: Reranker;
  private readonly peers: Peers;

  constructor(own: Reranker, peers: Peers) {
    this.own = own;
    this.peers = peers;
  }

  shed = (): void => this.own.shed();
  rerank = (request: RerankRequest, options?: CallOptions): Promise<RerankAnswer> => this.own.rerank(request, options);
  stream = (request: RerankRequest, options?: CallOptions) => this.own.stream(request, options);
  itemsVersion = (): number => this.own.itemsVersion();
  model = () => this.own.model();
  ready = (): boolean => this.own.ready() && this.peers.ready();
  load = () => this.own.load();

  async register(items: readonly ItemReference[], options?: CallOptions): Promise<RegisteredCount> {
    const count = await this.own.register(items, options);
    await this.peers.ask("items");
    return count;
  }
}
