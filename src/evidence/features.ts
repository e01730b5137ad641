/**
 * Feature rows of a slate: the columns of the enabled families for which there is data. Raw values, NaN where unknown;
 * trees use them unchanged, the listwise regression standardises them.
 *
 * Shapes: N candidates, F features; features_NF row-major.
 */
import { collaborative } from "./families/collaborative.ts";
import type { Family, FamilyName, FeatureInput } from "./families/family.ts";
import { metadata } from "./families/metadata.ts";
import { embedding, lexical } from "./families/text.ts";
import { time } from "./families/time.ts";
import type { ItemTable } from "./items.ts";
import type { Statistics } from "./statistics.ts";

export class Features {
  readonly names: readonly string[];
  /** Family of each column. */
  readonly families: readonly FamilyName[];
  private readonly parts: readonly Family[];

  /** @param experts names of the pre-rankers whose scores the slates carry */
  constructor(items: ItemTable, statistics: Statistics, on: readonly FamilyName[], experts: readonly string[] = []) {
    const make: Readonly<Record<FamilyName, () => Family | undefined>> = {
      collaborative: () => collaborative(statistics, experts),
      metadata: () => metadata(items),
      lexical: () => lexical(items),
      embedding: () => embedding(items),
      time: () => time(statistics),
    };
    this.parts = on.flatMap((name) => make[name]() ?? []);
    this.names = this.parts.flatMap((part) => part.columns);
    this.families = this.parts.flatMap((part) => part.columns.map(() => part.name));
  }

  get count(): number {
    return this.names.length;
  }

  /** Writes the rows of all candidates, starting at out[at]. */
  write(input: FeatureInput, out: Float32Array, at = 0): void {
    let column = at;
    for (const part of this.parts) {
      part.write(input, out, column, this.names.length);
      column += part.columns.length;
    }
  }

  /** features_NF of a slate. */
  of(input: FeatureInput): Float32Array {
    const out_NF = new Float32Array(input.candidates.length * this.names.length);
    this.write(input, out_NF);
    return out_NF;
  }
}
