/**
 * How good a catalogue of semantic IDs is: does every item have its own, are codes used evenly, do shared prefixes mean
 * something. Pure: it neither reads the item table nor prints.
 */
import type { Catalogue } from "./catalogue.ts";
import type { Near } from "./nearest.ts";
import type { Codes } from "./semantic-id.ts";

export interface SidReportInput {
  readonly catalogue: Catalogue;
  /** One per item row. */
  readonly titles: readonly string[];
  /** One category per item row, "" = unknown (left out); for the purity of prefixes. */
  readonly labels?: readonly string[];
  /** Per item row, the rows of related items (embedding neighbours, or bought by the same users). */
  readonly neighbours?: readonly (readonly number[])[];
  /** Nearest items of a few items, to read. */
  readonly examples?: readonly { readonly row: number; readonly nearest: readonly Near[] }[];
  /** Numbers of the fit (FitResult.metrics in worker.proto): reconstruction, uniqueness of the nearest codes, ... */
  readonly fit?: Readonly<Record<string, number>>;
  /** Most collisions to list with titles, largest first; default 20. All are counted. */
  readonly maxCollisions?: number;
}

export interface LevelUsage {
  readonly level: number;
  readonly numUsed: number;
  /** numUsed / codes. */
  readonly usage: number;
  /** exp(entropy) of the level's codes over items: 1 = one code takes all, codes = uniform. */
  readonly perplexity: number;
  readonly mostUsed: { readonly code: number; readonly numItems: number };
  /** Items per code, most used first. */
  readonly itemsPerCode: readonly number[];
}

export interface Collision {
  readonly codes: Codes;
  readonly rows: readonly number[];
  readonly titles: readonly string[];
}

export interface PrefixPurity {
  /** Levels in the prefix. */
  readonly depth: number;
  readonly numPrefixes: number;
  /** Labelled items that share the prefix with another labelled item: the base of all shares below. */
  readonly numShared: number;
  /** Share of them with their prefix's most frequent label. Rises as prefixes get small, so look at agreement too. */
  readonly purity: number;
  /** Probability that two different items under one prefix have the same label. */
  readonly agreement: number;
  /** The same for two items of the whole catalogue: what meaningless IDs would score. */
  readonly chance: number;
}

export interface NeighbourSharing {
  readonly depth: number;
  /** Share of (item, neighbour) pairs whose IDs share the first `depth` codes. */
  readonly shared: number;
  /** The same for two items of the whole catalogue. */
  readonly chance: number;
}

/** An item and its nearest items in embedding space. */
export interface NeighbourExample {
  readonly row: number;
  readonly title: string;
  readonly codes: Codes;
  readonly nearest: readonly (Near & { readonly title: string; readonly codes: Codes; readonly sharedCodes: number })[];
}

export interface SidReport {
  readonly numItems: number;
  readonly levels: number;
  readonly codes: number;
  /** codes ** levels. */
  readonly capacity: number;
  readonly uniqueness: number;
  readonly numCollidingItems: number;
  readonly numCollisions: number;
  readonly collisions: readonly Collision[];
  readonly perLevel: readonly LevelUsage[];
  /** The most items under one prefix of all levels but the last. */
  readonly largestBucket: { readonly prefix: Codes; readonly numItems: number };
  /** Depth 1 to levels - 1; empty without labels. */
  readonly prefixPurity: readonly PrefixPurity[];
  /** Depth 1 to levels; empty without neighbours. */
  readonly neighbourSharing: readonly NeighbourSharing[];
  readonly examples: readonly NeighbourExample[];
  readonly fit: Readonly<Record<string, number>>;
}

/** Throws RangeError if titles, labels or neighbours do not have one entry per item, or a neighbour is not a row. */
export function sidReport(input: SidReportInput): SidReport {
  const { catalogue, titles, labels, neighbours, examples = [], fit = {}, maxCollisions = 20 } = input;
  const { numItems } = catalogue;
  for (const [name, list] of Object.entries({ titles, labels, neighbours }))
    if (list !== undefined && list.length !== numItems)
      throw new RangeError(`${name} has ${list.length} entries for ${numItems} items`);
  const { levels, codes } = catalogue.shape;
  const collisions = [...catalogue.collisions()].sort((a, b) => b.length - a.length || (a[0] ?? 0) - (b[0] ?? 0));
  const depths = Array.from({ length: levels }, (_, i) => i + 1);

  return {
    numItems,
    levels,
    codes,
    capacity: codes ** levels,
    uniqueness: catalogue.uniqueness(),
    numCollidingItems: collisions.reduce((sum, rows) => sum + rows.length, 0),
    numCollisions: collisions.length,
    collisions: collisions.slice(0, maxCollisions).map((rows) => ({
      codes: catalogue.codesAt(rows[0] as number),
      rows,
      titles: rows.map((row) => titles[row] as string),
    })),
    perLevel: depths.map((depth) => levelUsage(catalogue, depth - 1)),
    largestBucket: largestBucket(catalogue),
    prefixPurity:
      labels === undefined ? [] : depths.slice(0, -1).map((depth) => prefixPurity(catalogue, labels, depth)),
    neighbourSharing:
      neighbours === undefined ? [] : depths.map((depth) => neighbourSharing(catalogue, neighbours, depth)),
    examples: examples.map(({ row, nearest }) => {
      const codes = catalogue.codesAt(row);
      return {
        row,
        title: titles[row] as string,
        codes,
        nearest: nearest.map((near) => {
          const theirs = catalogue.codesAt(near.row);
          return { ...near, title: titles[near.row] as string, codes: theirs, sharedCodes: shared(codes, theirs) };
        }),
      };
    }),
    fit,
  };
}

function levelUsage(catalogue: Catalogue, level: number): LevelUsage {
  const counts = new Array<number>(catalogue.shape.codes).fill(0);
  for (const codes of catalogue.allCodes()) counts[codes[level] as number] = (counts[codes[level] as number] ?? 0) + 1;
  const numUsed = counts.filter((count) => count > 0).length;
  const entropy = counts.reduce((sum, count) => {
    const share = count / catalogue.numItems;
    return count > 0 ? sum - share * Math.log(share) : sum;
  }, 0);
  const most = counts.reduce((best, count) => Math.max(best, count), 0);
  return {
    level,
    numUsed,
    usage: numUsed / counts.length,
    perplexity: Math.exp(entropy),
    mostUsed: { code: counts.indexOf(most), numItems: most },
    itemsPerCode: [...counts].sort((a, b) => b - a),
  };
}

function largestBucket(catalogue: Catalogue): SidReport["largestBucket"] {
  let largest: { prefix: Codes; numItems: number } = { prefix: [], numItems: 0 };
  for (const rows of rowsByPrefix(catalogue, catalogue.shape.levels - 1).values())
    if (rows.length > largest.numItems)
      largest = { prefix: catalogue.codesAt(rows[0] as number).slice(0, -1), numItems: rows.length };
  return largest;
}

function prefixPurity(catalogue: Catalogue, labels: readonly string[], depth: number): PrefixPurity {
  let [numPrefixes, numShared, numMajority, numPairs, numAgreeing] = [0, 0, 0, 0, 0];
  for (const rows of rowsByPrefix(catalogue, depth).values()) {
    numPrefixes++;
    const counts = countLabels(rows.map((row) => labels[row] as string));
    const size = sum(counts);
    if (size < 2) continue;
    numShared += size;
    numMajority += counts.reduce((best, count) => Math.max(best, count), 0);
    numPairs += size * (size - 1);
    numAgreeing += sum(counts.map((count) => count * (count - 1)));
  }
  const all = countLabels(labels);
  const numLabelled = sum(all);
  return {
    depth,
    numPrefixes,
    numShared,
    purity: ratio(numMajority, numShared),
    agreement: ratio(numAgreeing, numPairs),
    chance: ratio(sum(all.map((count) => count * (count - 1))), numLabelled * (numLabelled - 1)),
  };
}

function neighbourSharing(
  catalogue: Catalogue,
  neighbours: readonly (readonly number[])[],
  depth: number,
): NeighbourSharing {
  let [numPairs, numShared] = [0, 0];
  neighbours.forEach((list, row) => {
    const mine = catalogue.codesAt(row);
    for (const other of list) {
      const theirs = catalogue.codesAt(other);
      numPairs++;
      if (shared(mine, theirs) >= depth) numShared++;
    }
  });
  const sizes = [...rowsByPrefix(catalogue, depth).values()].map((rows) => rows.length);
  const { numItems } = catalogue;
  return {
    depth,
    shared: ratio(numShared, numPairs),
    chance: ratio(sum(sizes.map((size) => size * (size - 1))), numItems * (numItems - 1)),
  };
}

function rowsByPrefix(catalogue: Catalogue, depth: number): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  catalogue.allCodes().forEach((codes, row) => {
    const key = codes.slice(0, depth).join();
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [row]);
    else group.push(row);
  });
  return groups;
}

/** Number of leading codes that two IDs share. */
function shared(a: Codes, b: Codes): number {
  const first = a.findIndex((code, level) => code !== b[level]);
  return first < 0 ? a.length : first;
}

/** Count of each label; "" is not a label. */
function countLabels(labels: readonly string[]): number[] {
  const counts = new Map<string, number>();
  for (const label of labels) if (label !== "") counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts.values()];
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

/** 0 where there is nothing to count: reports are stored as JSON, which has no NaN. */
const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
