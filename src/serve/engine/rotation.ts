/**
 * Tracks which run answers now, and which requests each run has not answered yet. Swaps runs without losing a request:
 * the previous run finishes its accepted requests and closes. Drains at the end. Not here: admission (admission.ts),
 * answering (engine.ts).
 */
import type { FallbackReason } from "../request/types.ts";
import type { Deployment } from "./deployment.ts";

/** Ends a request in progress with the caller's own order. */
export type EndRequest = (reason: FallbackReason) => void;

export class Rotation {
  private deployed: Deployment | undefined;
  /** Requests in progress and their clients, by the run that answers them; includes retired runs. */
  private readonly underWay = new Map<Deployment, Map<EndRequest, string>>();
  private readonly retiring = new Set<Promise<void>>();
  private idle: (() => void)[] = [];
  private drains = false;

  /** The run that answers new requests; undefined before the first run and after a drain. */
  get current(): Deployment | undefined {
    return this.deployed;
  }

  /** Whether new requests are refused. */
  get draining(): boolean {
    return this.drains;
  }

  /** Unanswered requests of a run. */
  accepted(deployment: Deployment): number {
    return this.underWay.get(deployment)?.size ?? 0;
  }

  /** Those of one client. */
  acceptedFrom(client: string, deployment: Deployment): number {
    let count = 0;
    for (const whose of this.underWay.get(deployment)?.values() ?? []) if (whose === client) count++;
    return count;
  }

  /** Counts a client's request as in progress until the returned function is called. */
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

  /** Switches to this run; the previous one finishes its accepted requests and closes. */
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

  /** Stops accepting and finishes accepted requests; those not finished in time get the caller's own order. */
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
