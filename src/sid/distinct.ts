/** The semantic IDs of a catalogue without repetition, and the items that share each. */
import type { Catalogue } from "./catalogue.ts";

/** The IDs of a catalogue without repetition. */
export interface DistinctIds {
  /** Per ID the item rows that have it, ascending. */
  readonly items: readonly (readonly number[])[];
  /** Per item row the index of its ID. */
  readonly idByRow: Int32Array;
}

export function distinctIds(catalogue: Catalogue): DistinctIds {
  const items: (readonly number[])[] = [];
  const idByRow = new Int32Array(catalogue.numItems);
  for (let row = 0; row < catalogue.numItems; row++) {
    const sharing = catalogue.findRows(catalogue.codesAt(row));
    if (sharing[0] === row) {
      for (const other of sharing) idByRow[other] = items.length;
      items.push(sharing);
    }
  }
  return { items, idByRow };
}

/** IDs with nothing left to recommend: every item that has one is in the history. */
export function seenIds(ids: DistinctIds, seen: ReadonlySet<number>): Int32Array {
  const touched = new Set([...seen].map((row) => ids.idByRow[row] as number));
  return Int32Array.from([...touched].filter((id) => ids.items[id]?.every((row) => seen.has(row))));
}
