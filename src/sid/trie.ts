/**
 * Prefix trie over sequences of integers (codes, or the token ids that spell them), in flat arrays: 100,000 items cost
 * a few megabytes. Both sides use it: beam search sends these arrays to the worker (TokenTrie in worker.proto), which
 * walks them. It tells what may come next. A set of allowed continuations is never empty: if there is none, the result
 * is undefined, and a decoder must stop or fail rather than run on unconstrained.
 *
 * Nodes are numbered breadth first: node 0 is the root, edge e leads to node e + 1.
 */
import { DataError } from "../core/errors.ts";

type Sequence = ArrayLike<number>;

export class Trie {
  /** Edges of node n are edgeStarts[n] .. edgeStarts[n + 1] - 1, by ascending token. Node 0 is the root. */
  readonly edgeStarts: Int32Array;
  readonly edgeTokens: Int32Array;
  /** Rows of the subtree under node n are rows[rowStarts[n]] .. rows[rowEnds[n] - 1]. */
  readonly rowStarts: Int32Array;
  readonly rowEnds: Int32Array;
  readonly rows: Int32Array;

  /**
   * Row r is sequences[r]. Equal sequences share a leaf. Throws DataError if a sequence is empty, holds something other
   * than an int32, or is a proper prefix of another (a decoder could not tell whether it is finished).
   */
  constructor(sequences: readonly Sequence[]) {
    sequences.forEach((sequence, row) => {
      if (sequence.length === 0) throw new DataError(`sequence ${row} of the trie is empty`);
      for (let i = 0; i < sequence.length; i++)
        if ((sequence[i] as number) !== ((sequence[i] as number) | 0))
          throw new DataError(
            `sequence ${row} of the trie holds ${String(sequence[i])}, which is not a 32-bit integer`,
          );
    });
    const sorted = sequences
      .map((_, row) => row)
      .sort((a, b) => compare(sequences[a] as Sequence, sequences[b] as Sequence) || a - b);
    this.rows = Int32Array.from(sorted);
    const at = (position: number): Sequence => sequences[sorted[position] as number] as Sequence;

    // Breadth first over ranges of the sorted rows: a node's children are neighbours, so its edges come out contiguous.
    const starts = [0];
    const ends = [sorted.length];
    const depths = [0];
    const edgeStarts: number[] = [];
    const edgeTokens: number[] = [];
    for (let node = 0; node < starts.length; node++) {
      edgeStarts.push(edgeTokens.length);
      const end = ends[node] as number;
      const depth = depths[node] as number;
      let position = starts[node] as number;
      // Sorted, so a sequence that ends here comes first; if one does, all must.
      if (position < end && at(position).length === depth) {
        if (at(end - 1).length > depth)
          throw new DataError(`sequence ${sorted[position]} of the trie is a prefix of sequence ${sorted[end - 1]}`);
        continue;
      }
      while (position < end) {
        const token = at(position)[depth] as number;
        edgeTokens.push(token);
        starts.push(position); // the node this edge leads to
        depths.push(depth + 1);
        while (position < end && at(position)[depth] === token) position++;
        ends.push(position);
      }
    }
    edgeStarts.push(edgeTokens.length);
    this.edgeStarts = Int32Array.from(edgeStarts);
    this.edgeTokens = Int32Array.from(edgeTokens);
    this.rowStarts = Int32Array.from(starts);
    this.rowEnds = Int32Array.from(ends);
  }

  get numNodes(): number {
    return this.rowStarts.length;
  }

  get numSequences(): number {
    return this.rows.length;
  }

  /** Tokens that may follow a prefix, ascending, at least one; undefined if the prefix is complete or leads nowhere. */
  allowed(prefix: Sequence): Int32Array | undefined {
    const node = this.walk(prefix);
    if (node === undefined) return undefined;
    const tokens = this.edgeTokens.subarray(this.edgeStarts[node], this.edgeStarts[node + 1]);
    return tokens.length > 0 ? tokens : undefined;
  }

  /** Whether this is a whole sequence. */
  isComplete(sequence: Sequence): boolean {
    const node = this.walk(sequence);
    return node !== undefined && sequence.length > 0 && this.edgeStarts[node] === this.edgeStarts[node + 1];
  }

  /** Rows of all sequences with this prefix (by sequence, equal ones by row); empty if there are none. */
  rowsUnder(prefix: Sequence): Int32Array {
    const node = this.walk(prefix);
    return node === undefined ? new Int32Array(0) : this.rows.subarray(this.rowStarts[node], this.rowEnds[node]);
  }

  private walk(prefix: Sequence): number | undefined {
    let node: number | undefined = 0;
    for (let i = 0; i < prefix.length && node !== undefined; i++) node = this.child(node, prefix[i] as number);
    return node;
  }

  private child(node: number, token: number): number | undefined {
    let low = this.edgeStarts[node] as number;
    let high = this.edgeStarts[node + 1] as number;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.edgeTokens[middle] as number) < token) low = middle + 1;
      else high = middle;
    }
    return low < (this.edgeStarts[node + 1] as number) && this.edgeTokens[low] === token ? low + 1 : undefined;
  }
}

function compare(a: Sequence, b: Sequence): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
