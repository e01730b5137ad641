/**
 * Which run answers now, and which requests each run still owes an answer. Swaps runs without losing a request: the one
 * before finishes what it has accepted and closes. Drains at the end. Not here: who is let in (admission.ts), how a request
 * is answered (engine.ts).
 */
import type { FallbackReason } from "../request/types.ts";
import type { Deployment } from "./deployment.ts";

/** Ends a request that is under way with the caller's own order. */
export type EndRequest = (reason: FallbackReason) => void;

export class Rotation {
  private deployed: Deployment | undefined;
  /** Requests under way and whose they are, by the run that answers them; retired runs included. */
  private readonly underWay = new Map<Deployment, Map<EndRequest, string>>();
  private readonly retiring = new Set<Promise<void>>();
  private idle: (() => void)[] = [];
  private drains = false;

  /** The run that answers what comes now; undefined before the first and after a drain. */
  get current(): Deployment | undefined {
    return this.deployed;
  }

  /** Nothing more is accepted. */
  get draining(): boolean {
    return this.drains;
  }

  /** Requests a run still owes an answer. */
  accepted(deployment: Deployment): number {
    return this.underWay.get(deployment)?.size ?? 0;
  }

  /** Those of one client. */
  acceptedFrom(client: string, deployment: Deployment): number {
    let count = 0;
    for (const whose of this.underWay.get(deployment)?.values() ?? []) if (whose === client) count++;
    return count;
  }

  /** Counts a request of a client as under way until the function it returns is called. */
  enter(deployment: Deployment, client: string, end: EndRequest): () => void {
    const requests = this.underWay.get(deployment);
    requests?.set(end, client);
    return () => {
      requests?.delete(end);
      if (requests?.size === 0) for (const wake of this.idle.splice(0)) wake();
    };
  }

  /** Requests of all runs: waiting for a worker, and being computed. */
  load(): { readonly queued: number; readonly running: number } {
    const loads = [...this.underWay.keys()].map((deployment) => deployment.batcher.load());
    return {
      queued: loads.reduce((n, load) => n + load.queued, 0),
      running: loads.reduce((n, load) => n + load.running, 0),
    };
  }

  /** Answers from now on with this run; the one before finishes what it has accepted and closes. */
  deploy(next: Deployment): void {
    const before = this.deployed;
    this.underWay.set(next, new Map());
    this.deployed = next;
    if (before) {
      const retired = this.whenIdle(before).then(() => this.close(before));
      this.retiring.add(retired);
      void retired.finally(() => this.retiring.delete(retired));
    }
  }

  /** Accepts nothing more, finishes what is accepted; what is not finished in time gets the caller's own order. */
  async drain(withinMs: number): Promise<void> {
    this.drains = true;
    const force = setTimeout(() => {
      for (const requests of this.underWay.values()) for (const end of [...requests.keys()]) end("shutting_down");
    }, withinMs);
    await Promise.all([...this.underWay.keys()].map((d) => this.whenIdle(d)));
    clearTimeout(force);
    await Promise.all(this.retiring);
    if (this.deployed) await this.close(this.deployed);
    this.deployed = undefined;
  }

  private async close(deployment: Deployment): Promise<void> {
    await deployment.close();
    this.underWay.delete(deployment);
  }

  private async whenIdle(deployment: Deployment): Promise<void> {
    while (this.accepted(deployment) > 0)
      await new Promise<void>((resolve) => {
        this.idle.push(resolve);
      });
  }
}
