/**
 * Every layout that GR2 reads, as tiny folders in the form the originals have, oddities included;
 * and the data stage alone.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { compileConfig } from "../../../src/config/load.ts";
import { loadDataset } from "../../../src/data/cache.ts";
import { openDuck } from "../../../src/data/duck.ts";
import type { Dataset } from "../../../src/data/types.ts";
import type { StageContext } from "../../../src/run/stage.ts";
import { data } from "../../../src/stages/data.ts";

export interface Layout {
  readonly name: string;
  readonly files: Readonly<Record<string, string | Uint8Array>>;
  /** Settings under `data` beside path. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** user -> item ids in order, of users a and b. */
  readonly sequences: Readonly<Record<string, readonly string[]>>;
  /** Item id -> some of its fields. */
  readonly items: Readonly<Record<string, object>>;
  /** Rows left out, by reason; default none. */
  readonly dropped?: Readonly<Record<string, number>>;
}

const jsonLines = (...records: object[]): string => records.map((r) => `${JSON.stringify(r)}\n`).join("");
const day = 86_400;
const start = 1_400_000_000;

const review2014 = (reviewerID: string, asin: string, d: number) => ({
  reviewerID,
  asin,
  reviewerName: 'J. "Jo" O\'Neil',
  helpful: [2, 3],
  reviewText: "It's <b>fine</b>,\nreally",
  overall: 5.0,
  summary: "fine",
  unixReviewTime: start + d * day,
  reviewTime: "05 14, 2014",
});
const review2018 = (reviewerID: string, asin: string, d: number) => ({
  overall: 4.0,
  verified: true,
  reviewTime: "05 14, 2014",
  reviewerID,
  asin,
  style: { "Size:": " 8 oz" },
  image: ["https://images.example/x.jpg"],
  vote: "1,204",
  unixReviewTime: start + d * day,
});
const review2023 = (user_id: string, parent_asin: string, d: number) => ({
  rating: 5.0,
  title: "five stars",
  text: "ok<br />good",
  images: [],
  asin: `${parent_asin}-BLUE`,
  parent_asin,
  user_id,
  timestamp: 1000 * (start + d * day) + 7,
  helpful_vote: 0,
  verified_purchase: true,
});

const genreFlags = (on: readonly number[]) =>
  Array.from({ length: 19 }, (_, k) => (on.includes(k) ? "1" : "0")).join("|");
const latin1 = (text: string): Uint8Array => Buffer.from(text, "latin1");
/** Users a and b of MovieLens are 1 and 2. */
const movieSequences = { 1: ["11", "10"], 2: ["11"] };
const miserables = { title: "Misérables, Les (1995)", categories: ["Drama", "Musical"] };

export const layouts: readonly Layout[] = [
  {
    name: "Amazon Reviews 2014",
    files: {
      "reviews_Soap_5.json.gz": gzipSync(
        jsonLines(review2014("A2X", "B01", 9), review2014("A2X", "B02", 3), review2014("A3Y", "B03", 1)),
      ),
      "meta_Soap.json.gz": gzipSync(
        [
          `{'asin': 'B01', 'related': {'also_bought': ['B02', 'B03'], 'buy_after_viewing': []}, 'title': "Dr. Bronner\\'s &amp; Co \\"Pure\\" Soap", 'price': 9.99, 'salesRank': {'Beauty': 211}, 'imUrl': 'http://x/y._SY300_.jpg', 'brand': 'Bronner&#39;s', 'categories': [['Beauty', 'Soap'], ['Beauty', 'Gifts & Sets']]}`,
          `{'asin': 'B02', 'description': 'No title,\\nno brand: caf\\xe9 \\u2014 &lt;b&gt;', 'price': None, 'categories': [['Beauty']], 'ok': True}`,
          `{'asin': 'B03', 'imUrl': 'http://x/z.jpg'}`,
          `{'asin': 'B99', 'title': 'never bought', 'categories': []}`,
        ].join("\r\n"),
      ),
    },
    settings: { adapter: "amazon2014" },
    sequences: { A2X: ["B02", "B01"], A3Y: ["B03"] },
    items: {
      B01: {
        title: `Dr. Bronner's & Co "Pure" Soap`,
        brand: "Bronner's",
        categories: ["Beauty", "Soap", "Gifts & Sets"],
      },
      B02: { title: "", description: "No title, no brand: café — ‹b›", categories: ["Beauty"] },
      B03: { title: "", brand: "", categories: [], description: "" },
    },
  },
  {
    name: "Amazon Reviews 2018",
    files: {
      "Industrial_5.json.gz": gzipSync(
        jsonLines(review2018("A2X", "B01", 9), review2018("A2X", "B02", 3), review2018("A3Y", "B03", 1)),
      ),
      "meta_Industrial.json.gz": gzipSync(
        jsonLines(
          {
            category: ["Industrial &amp; Scientific", "Tapes"],
            tech1: "",
            description: ["Strong tape.", "", "Sticks &quot;well&quot;."],
            fit: "",
            title: "Tape, 2&quot; x 60 yd",
            also_buy: ["B02"],
            image: ["https://images.example/a.jpg", "https://images.example/b.jpg"],
            tech2: "",
            brand: "3M",
            feature: ["Thickness: 5 mil"],
            rank: [">#1,204 in Tapes"],
            also_view: [],
            main_cat: "Industrial & Scientific",
            similar_item: "",
            date: "",
            price: "$8.99",
            asin: "B01",
          },
          { category: [], description: [], title: "", brand: "", asin: "B02" },
          { category: ["Tapes"], description: [], title: "Second", brand: "\n  ACME", asin: "B03" },
          { category: ["Tapes"], description: [], title: "Second again", brand: "ACME", asin: "B03" },
        ),
      ),
    },
    settings: { adapter: "amazon2018" },
    sequences: { A2X: ["B02", "B01"], A3Y: ["B03"] },
    items: {
      B01: {
        title: 'Tape, 2" x 60 yd',
        brand: "3M",
        categories: ["Industrial & Scientific", "Tapes"],
        description: 'Strong tape. Sticks "well".',
      },
      B02: { title: "", categories: [] },
      B03: { title: "Second", brand: "ACME" },
    },
  },
  {
    name: "Amazon Reviews 2023",
    files: {
      "All_Beauty.jsonl.gz": gzipSync(
        jsonLines(review2023("AGK", "B01", 9), review2023("AGK", "B02", 3), review2023("AHZ", "B03", 1)),
      ),
      "meta_All_Beauty.jsonl.gz": gzipSync(
        jsonLines(
          {
            main_category: "All Beauty",
            title: "Howard LC0008 Leather Conditioner",
            average_rating: 4.8,
            features: [],
            description: ["One.", "Two."],
            price: null,
            images: [{ thumb: "x" }],
            store: "Howard Products",
            categories: [],
            details: { "Package Dimensions": "7 x 2 inches" },
            parent_asin: "B01",
            bought_together: null,
          },
          { title: null, store: null, categories: ["Beauty", "Tools"], description: [], parent_asin: "B02" },
          { title: "Third", store: "S", categories: [], description: [], parent_asin: "B03" },
        ),
      ),
    },
    settings: { adapter: "amazon2023" },
    sequences: { AGK: ["B02", "B01"], AHZ: ["B03"] },
    items: {
      B01: { title: "Howard LC0008 Leather Conditioner", brand: "Howard Products", description: "One. Two." },
      B02: { title: "", brand: "", categories: ["Beauty", "Tools"] },
    },
  },
  {
    name: "Amazon Reviews 2023, ratings as CSV",
    files: {
      "All_Beauty.csv": `user_id,parent_asin,rating,timestamp\r\nAGK,B01,5.0,${start + 9 * day}000\r\nAGK,B02,4.0,${start}000\r\n`,
    },
    settings: { adapter: "amazon2023" },
    sequences: { AGK: ["B02", "B01"] },
    items: { B01: { title: "" } },
  },
  {
    name: "MovieLens 100K",
    files: {
      "u.data": `1\t10\t5\t${start + 5}\n1\t11\t3\t${start}\n2\t11\t3\t${start + 2}\n`,
      "u.item": latin1(
        `10|Misérables, Les (1995)|01-Jan-1995||http://x|${genreFlags([8, 12])}\n11|Heat (1995)|01-Jan-1995||http://y|${genreFlags([1])}\n`,
      ),
      "u.user": "1|24|M|technician|85711\n",
      README: "SUMMARY & USAGE LICENSE\n",
    },
    settings: { adapter: "movielens" },
    sequences: movieSequences,
    items: { 10: miserables, 11: { title: "Heat (1995)", categories: ["Action"] } },
  },
  {
    name: "MovieLens 1M",
    files: {
      "ratings.dat": `1::10::5::${start + 5}\r\n1::11::3::${start}\r\n2::11::3::${start + 2}\r\n`,
      "movies.dat": latin1("10::Misérables, Les (1995)::Drama|Musical\r\n11::Heat (1995)::Action\r\n"),
      "users.dat": "1::F::1::10::48067\r\n",
    },
    settings: { adapter: "movielens" },
    sequences: movieSequences,
    items: { 10: miserables, 11: { categories: ["Action"] } },
  },
  {
    name: "MovieLens 20M and latest",
    files: {
      "ratings.csv": `userId,movieId,rating,timestamp\r\n1,10,5.0,${start + 5}\r\n1,11,3.5,${start}\r\n2,11,0.5,${start + 2}\r\n`,
      "movies.csv":
        'movieId,title,genres\r\n10,"Misérables, Les (1995)",Drama|Musical\r\n11,"""Heat"", again (1995)",(no genres listed)\r\n',
      "tags.csv": "userId,movieId,tag,timestamp\r\n1,10,sad,1\r\n",
      "links.csv": "movieId,imdbId,tmdbId\r\n10,1,2\r\n",
    },
    settings: { adapter: "movielens" },
    sequences: movieSequences,
    items: { 10: miserables, 11: { title: '"Heat", again (1995)', categories: [] } },
  },
  {
    name: "sequential_data.txt with items.jsonl",
    files: {
      "sequential_data.txt": "1 7 5 6\n2 5\n",
      "items.jsonl": jsonLines(
        { item_id: "5", title: "Five &amp; co", brand: "", categories: ["X"] },
        { item_id: "6", title: "", brand: "", categories: [] },
        { item_id: "7", title: "Seven", categories: ["X", "Y"] },
      ),
    },
    settings: { adapter: "sequences" },
    sequences: { 1: ["7", "5", "6"], 2: ["5"] },
    items: { 5: { title: "Five & co" }, 6: { title: "", categories: [] }, 7: { categories: ["X", "Y"] } },
  },
  {
    name: "OneRec-Think's files",
    files: {
      "sequential_data_processed.txt": "1 7 5\r\n2 5\r\n",
      "Beauty.pretrain.json": JSON.stringify({
        5: {
          title: "Five",
          description: "d",
          categories: "Beauty > Hair Care",
          sid: "<|sid_begin|><s_a_1><|sid_end|>",
        },
        7: { title: "Say <s_a_1>", description: "", categories: "Beauty" },
      }),
    },
    settings: { adapter: "sequences" },
    sequences: { 1: ["7", "5"], 2: ["5"] },
    items: { 5: { categories: ["Beauty", "Hair Care"] }, 7: { title: "Say ‹s_a_1›" } },
  },
  {
    name: "S3-Rec's files",
    files: { "Beauty.txt": "1 7 5\n2 5\n", "Beauty_item2attributes.json": '{"5": [3, 4], "7": [4]}' },
    settings: { adapter: "sequences" },
    sequences: { 1: ["7", "5"], 2: ["5"] },
    items: { 5: { title: "", categories: ["3", "4"] }, 7: { categories: ["4"] } },
  },
  {
    name: "IDGenRec's files",
    files: {
      "user_sequence.txt": "A2X B07 B05\nA3Y B05\n",
      "item_plain_text.txt": "B05 title: Five; brand: X\nB07 title: Seven\n",
    },
    settings: { adapter: "sequences" },
    sequences: { A2X: ["B07", "B05"], A3Y: ["B05"] },
    items: { B05: { title: "title: Five; brand: X" } },
  },
  {
    name: "RecBole",
    files: {
      "x.inter": `user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ta\t5\t${start + 9}\n1\tb\t3\t${start}\n2\ta\t1\t${start + 1}\n`,
      "x.item":
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\na\tToy Story\t1995\tComedy Drama\nb\t\t1990\t\n",
    },
    settings: { adapter: "recbole" },
    sequences: { 1: ["b", "a"], 2: ["a"] },
    items: { a: { title: "Toy Story (1995)", categories: ["Comedy", "Drama"] }, b: { title: "" } },
  },
  {
    name: "a shop's CSV orders with JSONL products",
    files: {
      "orders.csv":
        'order_no,customer_id,sku,ordered_at,amount\n1,"Smith, J.",p-1,2024-03-02T10:00:00Z,9.5\n2,"Smith, J.",p-2,2024-03-01T10:00:00Z,19.5\n3,c7,p-1,2024-03-05T10:00:00Z,3\n',
      "products.jsonl": jsonLines(
        { sku: "p-1", name: "Lamp &amp; shade", brand: "Lux", category: "Home>Light", description: "bright" },
        { sku: "p-2", name: "Desk", brand: null, category: "Home" },
      ),
    },
    settings: {
      adapter: "table",
      files: { interactions: "orders.csv", items: "products.jsonl" },
      columns: { user: "customer_id", item: "sku", time: "ordered_at", title: "name", categories: "category" },
      categorySeparator: ">",
    },
    sequences: { "Smith, J.": ["p-2", "p-1"], c7: ["p-1"] },
    items: {
      "p-1": { title: "Lamp & shade", brand: "Lux", categories: ["Home", "Light"], description: "bright" },
      "p-2": { title: "Desk", brand: "" },
    },
  },
  {
    name: "tab-separated listens without a clock",
    files: {
      "interactions.tsv": "user_id\titem_id\tposition\nx\ti9\t0\nx\ti3\t1\ny\ti3\t0\n",
      "items.csv": 'item_id,title,genres\r\ni9,"Nine, the ""song""",rock|pop\r\ni3,Three,\r\n',
    },
    settings: { adapter: "table", columns: { time: "position", categories: "genres" }, clock: false },
    sequences: { x: ["i9", "i3"], y: ["i3"] },
    items: { i9: { title: 'Nine, the "song"', categories: ["rock", "pop"] }, i3: { categories: [] } },
  },
];

/** Writes a layout's files into a new folder under `root`. */
export function writeLayout(root: string, layout: Pick<Layout, "files">): string {
  const folder = mkdtempSync(join(root, "layout-"));
  for (const [name, content] of Object.entries(layout.files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** A shop's interactions and items as Parquet: interactions.parquet, items.parquet with a list of categories. */
export async function writeParquetLayout(root: string): Promise<string> {
  const folder = mkdtempSync(join(root, "parquet-"));
  const duck = await openDuck();
  await duck.run(`COPY (SELECT * FROM (VALUES ('x', 'p1', TIMESTAMP '2024-03-02 10:00:00', 4),
      ('x', 'p2', TIMESTAMP '2024-03-01 10:00:00', 2), ('y', 'p1', TIMESTAMP '2024-04-01 10:00:00', 5)) t(user_id, item_id, ts, stars))
      TO '${folder}/interactions.parquet' (FORMAT parquet);
    COPY (SELECT * FROM (VALUES ('p1', 'One', ['A', 'B']), ('p2', 'Two', ['A'])) t(item_id, title, categories))
      TO '${folder}/items.parquet' (FORMAT parquet)`);
  duck.close();
  return folder;
}

/** Everything in one segment: so few rows do not fill four. */
export const unsplit = { kind: "position", midtrain: 1, rerank: 0, validation: 0, test: 0 };

/** Runs the data stage alone, as the pipeline would with these settings under `data`; unsplit unless they say how. */
export async function runDataStage(
  root: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<{ dataset: Dataset; dir: string; logs: string[] }> {
  const config = compileConfig({ data: { minInteractions: 0, split: unsplit, ...settings } }, "test");
  const dir = mkdtempSync(join(root, "stage-"));
  const logs: string[] = [];
  const context = { config, dir, log: (line: string) => logs.push(line), signal: new AbortController().signal };
  await data.run(context as unknown as StageContext);
  return { dataset: await loadDataset(dir), dir, logs };
}

/** user -> item ids in order. */
export const readSequences = (d: Dataset): Record<string, string[]> =>
  Object.fromEntries(d.sequences.map((s) => [s.user, Array.from(s.items, (i) => String(d.items[i]?.id))]));
