/**
 * Random tables with a known truth, for property tests (tests/unit/data/fuzz.test.ts, bench/fuzz-data.ts): users and items with
 * ids of any kind, interactions with distinct times, written in any format, separator, quoting, encoding, compression, unit of
 * time and number of files, with some rows that are none. Whoever reads a table right finds the truth, and so many bad rows.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { adapterOptions } from "../src/artifacts/dataset.ts";
import { compileConfig } from "../src/config/load.ts";
import { buildDataset } from "../src/data/dataset.ts";
import {
  type BadKind,
  badKinds,
  type Cell,
  clocks,
  extension,
  type Form,
  formats,
  isDelimited,
  writeTable,
  writeTime,
} from "./table-forms.ts";

interface Row {
  readonly user: string;
  readonly item: string;
  /** Seconds. */
  readonly time: number;
}
interface Item {
  readonly id: string;
  readonly title: string;
  readonly categories: readonly string[];
}
export interface RandomTable {
  readonly rows: readonly Row[];
  readonly items: readonly Item[];
  readonly form: Form;
  readonly itemForm: Form;
  /** Where bad rows are put, and which. */
  readonly bad: readonly { readonly at: number; readonly kind: BadKind }[];
}

const letters = "abcXYZ09_-.:/ éñü商品ß%#@'\",;|\t";
const word = (from: string, max: number) =>
  fc.string({ unit: fc.constantFrom(...from), minLength: 1, maxLength: max }).map((s) => s.trim().replace(/\s+/g, " "));
const nothing = /^(nan|null|none|nat|\\n|<na>)$/i;
const isPlain = (s: string): boolean => s !== "" && !nothing.test(s);

const anId = fc.oneof(
  { weight: 4, arbitrary: fc.nat(99_999).map(String) },
  { weight: 2, arbitrary: fc.bigInt({ min: 9_007_199_254_740_993n, max: 99_999_999_999_999_999_999n }).map(String) },
  { weight: 1, arbitrary: fc.nat(9999).map((n) => `00${n}`) },
  { weight: 1, arbitrary: fc.uuid() },
  {
    weight: 3,
    // 9.0 among whole numbers is 9
    arbitrary: word(letters, 12).filter((s) => isPlain(s) && s.normalize("NFC") === s && !/^[[({]|^\d+\.0+$/.test(s)),
  },
);
/** Text of an item: what means nothing or looks like a list is another thing, and tested elsewhere. */
const aTitle = word(`${letters}ABC &()!?…“”🛋`, 30).filter((s) => isPlain(s) && !/^[[({]/.test(s));
const aCategory = word("abcXYZ09 éü商'&-", 12).filter((s) => isPlain(s) && !/^[[({]/.test(s));

const aForm: fc.Arbitrary<Form> = fc.record({
  format: fc.constantFrom(...formats),
  clock: fc.constantFrom(...clocks),
  order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
  note: fc.array(fc.oneof(word(`${letters}\n`, 20), fc.constantFrom("", "NULL", '"', "a\nb", "x,y;z\tw", '5" disk')), {
    minLength: 3,
    maxLength: 3,
  }),
  quoting: fc.constantFrom("needed", "all"),
  end: fc.constantFrom("\n", "\r\n", "\r", "mixed"),
  lastEnd: fc.boolean(),
  blankLines: fc.boolean(),
  encoding: fc.constantFrom("utf-8", "utf-8", "mark", "utf-16le", "utf-16be", "latin1"),
  compression: fc.constantFrom("none", "none", "gzip", "members", "zstd"),
  parts: fc.integer({ min: 1, max: 3 }),
  numbers: fc.boolean(),
  decomposed: fc.boolean(),
  list: fc.constantFrom("json", "python", "bars"),
  headerless: fc.boolean(),
});

export const aTable: fc.Arbitrary<RandomTable> = fc
  .record({
    users: fc.uniqueArray(anId, { minLength: 1, maxLength: 6 }),
    items: fc.uniqueArray(anId, { minLength: 2, maxLength: 8 }),
    titles: fc.array(aTitle, { minLength: 8, maxLength: 8 }),
    categories: fc.array(fc.uniqueArray(aCategory, { maxLength: 3 }), { minLength: 8, maxLength: 8 }),
    picks: fc.array(fc.tuple(fc.nat(5), fc.nat(7), fc.integer({ min: 1, max: 90_000 })), {
      minLength: 4,
      maxLength: 40,
    }),
    start: fc.integer({ min: 800_000_000, max: 1_900_000_000 }),
    form: aForm,
    itemForm: aForm,
    bad: fc.array(fc.record({ at: fc.nat(40), kind: fc.constantFrom(...badKinds) }), { maxLength: 2 }),
  })
  .map(({ users, items, titles, categories, picks, start, form, itemForm, bad }) => {
    let time = start;
    const rows = picks.map(([u, i, step]): Row => {
      time += step;
      return { user: users[u % users.length] as string, item: items[i % items.length] as string, time };
    });
    const made = items.map((id, k) => ({ id, title: titles[k] as string, categories: categories[k] as string[] }));
    // The file is in no order.
    const shuffled = rows
      .map((r, k) => ({ r, key: (k * 7919) % 101 }))
      .sort((a, b) => a.key - b.key)
      .map(({ r }) => r);
    return { rows: shuffled, items: made, form, itemForm: { ...itemForm, headerless: false, parts: 1 }, bad };
  });

/** What can be written together; the rest gives way. */
function feasible(t: RandomTable): RandomTable {
  const text = JSON.stringify([t.rows, t.items, t.form.note]);
  const fix = (form: Form): Form => {
    const isText = form.format !== "parquet";
    const wide = [...text].some((c) => (c.codePointAt(0) ?? 0) > 255) || form.decomposed;
    return { ...form, encoding: isText && form.encoding === "latin1" && wide ? "utf-8" : form.encoding };
  };
  const cells =
    [...t.form.note, ...t.rows.flatMap((r) => [r.user, r.item])].join("") + (t.form.clock === "rfc" ? "," : "");
  // Without a header, rows alone tell a separator that is not the name's: commas in their texts may tell another one.
  const isClear = t.form.format !== "semicolon" || !cells.includes(",");
  const [form, itemForm] = [fix({ ...t.form, headerless: t.form.headerless && isClear }), fix(t.itemForm)];
  // One setting holds for both files.
  const same = form.encoding === "latin1" || itemForm.encoding === "latin1";
  const asUtf8 = (f: Form): Form => (f.encoding === "latin1" ? { ...f, encoding: "utf-8" } : f);
  const both =
    same && form.encoding !== itemForm.encoding
      ? ([asUtf8(form), asUtf8(itemForm)] as const)
      : ([form, itemForm] as const);
  const [own, theirs] = both;
  const hasQuotes =
    own.quoting === "all" ||
    own.note.some((n) => /["\n\r]/.test(n)) ||
    t.rows.some((r) => /["',;|\t]/.test(r.user + r.item)) ||
    own.note.some((n) => /[,;\t]/.test(n)) ||
    own.clock === "rfc";
  const bad = t.bad.filter(({ kind }) => {
    if (own.format === "json" || own.format === "pretty" || own.format === "parquet") return false;
    if (!isDelimited(own.format)) return kind === "short" || kind === "no user";
    if (kind === "header") return !own.headerless;
    if (kind === "not UTF-8") return own.encoding === "utf-8" || own.encoding === "mark";
    return kind !== "open quote" || !hasQuotes; // next to other quotes its meaning is open
  });
  return { ...t, form: own, itemForm: theirs, bad };
}

export interface Comparison {
  /** What differs from the truth; "" if nothing does. */
  readonly difference: string;
  /** Whether the run stopped with a reason. */
  readonly refused: boolean;
}

/** Writes a table into `folder`, builds the data set as stage data does, and compares. */
export async function compareTable(given: RandomTable, folder: string): Promise<Comparison> {
  const t = feasible(given);
  const data = join(folder, "data");
  mkdirSync(data, { recursive: true });
  const { form, itemForm } = t;
  const spell = (f: Form, id: string): string => (f.decomposed ? id.normalize("NFD") : id);
  const names = ["user", "item", "time", "note"];
  const per = Math.ceil(t.rows.length / form.parts);
  let malformed = 0;
  for (let part = 0; part * per < t.rows.length; part++) {
    const rows = t.rows.slice(part * per, part * per + per);
    const file = join(data, `part-${part}.${extension(form)}`);
    const cells = rows.map((r, n) => [
      spell(form, r.user),
      spell(form, r.item),
      writeTime(r.time, form.clock, n),
      form.note[n % 3] as string,
    ]);
    const broken = new Map<number, BadKind[]>();
    for (const { at, kind } of part === 0 ? t.bad : []) {
      const n = at % rows.length;
      broken.set(n, [...(broken.get(n) ?? []), kind]);
      malformed++;
    }
    const spoiled = new Map([...broken].map(([n, kinds]) => [n, kinds] as const));
    await writeTable(
      file,
      form.order.map((k) => names[k] as string),
      cells.map((c) => form.order.map((k) => c[k] as string)),
      form,
      spoiled,
      { user: form.order.indexOf(0), time: form.order.indexOf(2) },
    );
  }
  const itemCells = t.items.map((i) => [spell(itemForm, i.id), i.title, i.categories] as const);
  const itemNames = ["id", "title", "categories"];
  const order = itemForm.order.filter((k) => k < 3);
  await writeTable(
    join(data, `goods.${extension(itemForm)}`),
    order.map((k) => itemNames[k] as string),
    itemCells.map((c) => order.map((k) => c[k] as Cell)),
    itemForm,
    new Map(),
    { user: 0, time: 0 },
  );
  const at = (k: number): string | number =>
    form.headerless && isDelimited(form.format) ? form.order.indexOf(k) : (names[k] as string);
  const config = compileConfig(
    {
      data: {
        ...{ adapter: "table", path: data, minInteractions: 0, repeats: "keep", maxBadShare: 0.99, catalogue: "all" },
        files: { interactions: "part-*", items: `goods.${extension(itemForm)}` },
        columns: { user: at(0), item: at(1), time: at(2), id: "id", title: "title", categories: "categories" },
        ...(form.encoding === "latin1" && itemForm.encoding === "latin1" ? { encoding: "latin1" } : {}),
      },
    },
    "fuzz",
  );
  try {
    const dataset = await buildDataset({
      ...{ name: "fuzz", source: adapterOptions(config.data), catalogue: "all", maxBadShare: 0.99 },
      prepare: { minUserInteractions: 0, minItemInteractions: 0, repeats: "keep" },
      ...{ neutralise: (s: string) => s, neutraliseId: "none", duck: { threads: 1 } },
    });
    const found = {
      sequences: Object.fromEntries(
        dataset.sequences
          .map((s) => [s.user, Array.from(s.items, (i, k) => `${dataset.items[i]?.id}@${s.times[k]}`)])
          .sort(),
      ),
      items: dataset.items.map((i) => [i.id, i.title, ...i.categories]).sort(),
      malformed: dataset.stats.dropped.malformed ?? 0,
      other: Object.keys(dataset.stats.dropped).filter((k) => k !== "malformed"),
    };
    const sequences: Record<string, string[]> = {};
    for (const { user, item, time } of [...t.rows].sort((a, b) => a.time - b.time)) {
      const own = sequences[user] ?? [];
      sequences[user] = own;
      own.push(`${item}@${time}`);
    }
    const truth = {
      sequences: Object.fromEntries(Object.entries(sequences).sort()),
      items: t.items.map((i) => [i.id, i.title, ...i.categories]).sort(),
      malformed,
      other: [],
    };
    const [a, b] = [JSON.stringify(truth), JSON.stringify(found)];
    return { difference: a === b ? "" : `right: ${a}\nfound: ${b}`, refused: false };
  } catch (e) {
    if (!(e instanceof Error) || !("code" in e)) throw e;
    return { difference: e.message, refused: true };
  }
}
