/**
 * Which item has which semantic ID. Items are rows 0..numItems-1 of the item table; the catalogue never sees item ids
 * or titles. Immutable: new items make a new catalogue.
 */
import { CheckpointError, DataError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import {
  type Codes,
  checkShape,
  formatSid,
  parseSid,
  type SidFormat,
  type SidShape,
  spellCodes,
} from "./semantic-id.ts";

/** [items, levels], row-major: the worker client's IntMatrix. */
export interface CodeMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Int32Array;
}

export interface CatalogueJson {
  readonly version: 1;
  readonly levels: number;
  readonly codes: number;
  readonly format: SidFormat;
  readonly ids: readonly Codes[];
  /** SHA-256 of the other fields. */
  readonly hash: string;
}

export class Catalogue {
  readonly shape: SidShape;
  private readonly ids: readonly Codes[];
  private readonly rowsByKey: ReadonlyMap<string, readonly number[]>;

  private constructor(ids: readonly Codes[], shape: SidShape) {
    checkShape(shape);
    const rowsByKey = new Map<string, number[]>();
    ids.forEach((codes, row) => {
      if (codes.length !== shape.levels || codes.some((c) => !Number.isInteger(c) || c < 0 || c >= shape.codes))
        throw new DataError(
          `item row ${row} has the semantic ID [${codes.join(", ")}]; expected ${shape.levels} codes from 0 to ${shape.codes - 1}`,
        );
      const key = codes.join();
      const rows = rowsByKey.get(key);
      if (rows === undefined) rowsByKey.set(key, [row]);
      else rows.push(row);
    });
    this.ids = ids;
    this.shape = shape;
    this.rowsByKey = rowsByKey;
  }

  /** One ID per item row, in row order. Throws DataError if one does not have the shape. */
  static of(ids: readonly Codes[], shape: SidShape): Catalogue {
    return new Catalogue(
      ids.map((codes) => Object.freeze([...codes])),
      Object.freeze({ levels: shape.levels, codes: shape.codes, format: shape.format }),
    );
  }

  /** From the worker's result; the matrix has one column per level. */
  static fromMatrix(matrix: CodeMatrix, codes: number, format: SidFormat): Catalogue {
    const { rows, cols, data } = matrix;
    if (data.length !== rows * cols)
      throw new DataError(`a code matrix of ${rows} x ${cols} holds ${rows * cols} codes, not ${data.length}`);
    const ids = Array.from({ length: rows }, (_, row) => Array.from(data.subarray(row * cols, (row + 1) * cols)));
    return Catalogue.of(ids, { levels: cols, codes, format });
  }

  get numItems(): number {
    return this.ids.length;
  }

  /** Throws RangeError if there is no such row. */
  codesAt(row: number): Codes {
    const codes = this.ids[row];
    if (codes === undefined) throw new RangeError(`there is no item row ${row}; rows are 0 to ${this.numItems - 1}`);
    return codes;
  }

  /** The ID of a row as text, in the catalogue's format. */
  textAt(row: number): string {
    return formatSid(this.codesAt(row), this.shape.format);
  }

  /** The tokens that spell a row's ID, markers included in the wrapped format. */
  tokensAt(row: number): readonly string[] {
    return spellCodes(this.codesAt(row), this.shape.format);
  }

  /** Rows that have exactly this ID, ascending: none if no item has it, several if items collide. */
  findRows(codes: Codes): readonly number[] {
    return this.rowsByKey.get(codes.join()) ?? [];
  }

  /** The only row with this ID; undefined if no item has it or several share it. */
  findRow(codes: Codes): number | undefined {
    const rows = this.findRows(codes);
    return rows.length === 1 ? rows[0] : undefined;
  }

  /** The only row whose ID this text spells; undefined if it is not an ID, or no item or several have it. */
  rowOfText(text: string): number | undefined {
    const codes = parseSid(text, this.shape);
    return codes === undefined ? undefined : this.findRow(codes);
  }

  /** Groups of rows that share one ID, in the order of their first row. */
  collisions(): readonly (readonly number[])[] {
    return [...this.rowsByKey.values()].filter((rows) => rows.length > 1);
  }

  /** Share of items whose ID no other item has; 1 for an empty catalogue. */
  uniqueness(): number {
    if (this.numItems === 0) return 1;
    let numAlone = 0;
    for (const rows of this.rowsByKey.values()) if (rows.length === 1) numAlone++;
    return numAlone / this.numItems;
  }

  /** All IDs in row order. */
  allCodes(): readonly Codes[] {
    return this.ids;
  }

  /** SHA-256 of shape and IDs: equal if and only if the catalogues are. */
  hash(): string {
    return hashJson(this.content());
  }

  toJSON(): CatalogueJson {
    return { ...this.content(), hash: this.hash() };
  }

  /** Throws CheckpointError if the value is not a catalogue or its hash does not match its content. */
  static fromJSON(value: unknown): Catalogue {
    const bad = (what: string, cause?: unknown) =>
      new CheckpointError(`the stored semantic-ID catalogue ${what}`, { cause, advice: "fit the semantic IDs again" });
    if (typeof value !== "object" || value === null) throw bad("is not an object");
    const json = value as Partial<CatalogueJson>;
    if (json.version !== 1) throw bad(`has version ${String(json.version)}, expected 1`);
    if (json.format !== "wrapped" && json.format !== "bare") throw bad(`has the unknown format ${String(json.format)}`);
    if (!Array.isArray(json.ids) || !json.ids.every(Array.isArray)) throw bad("has no list of IDs");
    let catalogue: Catalogue;
    try {
      catalogue = Catalogue.of(json.ids, {
        levels: Number(json.levels),
        codes: Number(json.codes),
        format: json.format,
      });
    } catch (error) {
      throw bad("is damaged", error);
    }
    if (catalogue.hash() !== json.hash) throw bad("does not match its hash");
    return catalogue;
  }

  private content(): Omit<CatalogueJson, "hash"> {
    return { version: 1, ...this.shape, ids: this.ids };
  }
}
