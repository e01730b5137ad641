/** A queue that serves clients in turn: a client with a thousand requests delays its own, not another client's one. */
export class FairQueue<T> {
  /** Clients with something waiting, the one whose turn is next first. */
  private readonly lanes = new Map<string, T[]>();
  private numWaiting = 0;

  get size(): number {
    return this.numWaiting;
  }

  push(client: string, item: T): void {
    const lane = this.lanes.get(client);
    if (lane) lane.push(item);
    else this.lanes.set(client, [item]);
    this.numWaiting++;
  }

  /** Before everything else, regardless of turns. */
  unshift(client: string, item: T): void {
    const lane = [item, ...(this.lanes.get(client) ?? [])];
    const others = [...this.lanes].filter(([name]) => name !== client);
    this.lanes.clear();
    for (const [name, items] of [[client, lane] as const, ...others]) this.lanes.set(name, items);
    this.numWaiting++;
  }

  /** False if it is no longer waiting. */
  remove(client: string, item: T): boolean {
    const lane = this.lanes.get(client);
    const at = lane?.indexOf(item) ?? -1;
    if (!lane || at < 0) return false;
    lane.splice(at, 1);
    this.numWaiting--;
    if (lane.length === 0) this.lanes.delete(client);
    return true;
  }

  /** Removes at most `most`, one of each client in turn. */
  take(most: number): T[] {
    const taken: T[] = [];
    while (taken.length < most) {
      const next = this.lanes.entries().next();
      if (next.done) break;
      const [client, lane] = next.value;
      taken.push(lane.shift() as T);
      this.numWaiting--;
      this.lanes.delete(client);
      if (lane.length > 0) this.lanes.set(client, lane);
    }
    return taken;
  }

  /** Each client's longest-waiting item. */
  heads(): T[] {
    return [...this.lanes.values()].map((lane) => lane[0] as T);
  }

  count(client: string): number {
    return this.lanes.get(client)?.length ?? 0;
  }

  /** Items that are taken before one that this client adds now. */
  ahead(client: string): number {
    const own = this.count(client);
    let sum = own;
    for (const [name, lane] of this.lanes) if (name !== client) sum += Math.min(lane.length, own + 1);
    return sum;
  }
}
