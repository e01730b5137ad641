/** Checks the result of each input of bench/cases.ts, by number: undefined if it is right, else what is wrong. */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openDuck, sqlText } from "../src/data/duck.ts";
import { startService } from "../tests/serve-fixture.ts";

export interface Given {
  readonly folder: string;
  /** An empty folder. */
  readonly temp: string;
  /** Run all stages, for the input that once failed in a later one. */
  readonly whole: boolean;
}
export type Truth = (given: Given) => Promise<string | undefined>;

const gr2 = fileURLToPath(new URL("../bin/gr2.mjs", import.meta.url));

interface Said {
  readonly code: number;
  readonly text: string;
}
/** Runs `gr2` as a user would, from another directory. */
function run(given: Given, ...args: string[]): Said {
  const child = spawnSync(process.execPath, [gr2, ...args], {
    cwd: given.temp,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
    maxBuffer: 2 ** 28,
  });
  return { code: child.status ?? -1, text: `${child.stdout}${child.stderr}` };
}
const recipe = (given: Given, until: string | undefined, ...set: string[]): Said =>
  run(
    given,
    ...["pipeline", "--config", join(given.folder, "recipe.yaml"), "--root", given.temp, "--run", "x"],
    ...(until === undefined ? [] : ["--until", until]),
    ...["runtime.threads=1", ...set].flatMap((s) => ["--set", s]),
  );

interface Item {
  readonly id: string;
  readonly title: string;
  readonly categories: readonly string[];
  readonly description: string;
}
interface Made {
  readonly users: number;
  readonly interactions: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly items: readonly Item[];
  /** user -> items in order */
  readonly sequences: Readonly<Record<string, readonly string[]>>;
  readonly first: number;
  readonly last: number;
}

/** The output of stage data. */
async function readMade(given: Given): Promise<Made> {
  const dir = join(given.temp, "x", "stages", "data");
  const stats = JSON.parse(readFileSync(join(dir, "stats.json"), "utf8")) as Made;
  const duck = await openDuck();
  try {
    const file = (name: string): string => `read_parquet(${sqlText(join(dir, name))})`;
    const items = await duck.rows(`SELECT id, title, to_json(categories)::VARCHAR AS categories, description
      FROM ${file("items.parquet")} ORDER BY id`);
    const rows = await duck.rows(`SELECT u.id AS user, list(i.id ORDER BY x.n)::VARCHAR[]::JSON::VARCHAR AS items,
        min(x.time) AS first, max(x.time) AS last
      FROM (SELECT *, row_number() OVER () AS n FROM ${file("interactions.parquet")}) x
      JOIN ${file("items.parquet")} i ON i.row = x.item JOIN ${file("users.parquet")} u ON u.row = x."user" GROUP BY u.id`);
    return {
      users: stats.users,
      interactions: stats.interactions,
      dropped: stats.dropped,
      items: items.map((i) => ({
        id: String(i.id),
        title: String(i.title),
        categories: JSON.parse(String(i.categories)) as string[],
        description: String(i.description),
      })),
      sequences: Object.fromEntries(rows.map((r) => [String(r.user), JSON.parse(String(r.items)) as string[]])),
      first: Math.min(...rows.map((r) => Number(r.first))),
      last: Math.max(...rows.map((r) => Number(r.last))),
    };
  } finally {
    duck.close();
  }
}

/** The truth of a plain CSV of user_id, item_id, rating, timestamp. @param seconds of a time as it is written */
function computeTruth(given: Given, seconds: (time: string) => number): Made["sequences"] {
  const rows = readFileSync(join(given.folder, "data", "interactions.csv"), "utf8")
    .trim()
    .split("\n")
    .slice(1);
  const parsed = rows
    .map((r) => r.split(","))
    .map(([user = "", item = "", , time = ""]) => ({ user, item, t: seconds(time) }));
  const out: Record<string, string[]> = {};
  for (const { user, item } of parsed.sort((a, b) => a.t - b.t)) {
    const own = out[user] ?? [];
    out[user] = own;
    own.push(item);
  }
  return out;
}

const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
/** The first condition that fails. */
const failing = (checks: Readonly<Record<string, boolean>>): string | undefined =>
  Object.entries(checks).find(([, holds]) => !holds)?.[0];
function sameSequences(made: Made, truth: Made["sequences"]): boolean {
  const users = Object.keys(truth);
  return users.length === Object.keys(made.sequences).length && users.every((u) => equal(made.sequences[u], truth[u]));
}

/** Checks the sizes of the data set that stage data made. */
async function makes(given: Given, users: number, interactions: number, dropped: object = {}, set: string[] = []) {
  const said = recipe(given, "data", ...set);
  if (said.code !== 0) return { said, wrong: said.text.trim().split("\n").slice(-3).join(" ") };
  const made = await readMade(given);
  const wrong = failing({
    [`${made.users} users, not ${users}`]: made.users === users,
    [`${made.interactions} interactions, not ${interactions}`]: made.interactions === interactions,
    [`left out ${JSON.stringify(made.dropped)}, not ${JSON.stringify(dropped)}`]: equal(made.dropped, dropped),
  });
  return { said, made, wrong };
}
const refuses = (said: Said, why: RegExp): string | undefined =>
  said.code === 3 && why.test(said.text) ? undefined : `code ${said.code}: ${said.text.trim().slice(-300)}`;
const plain =
  (
    users: number,
    interactions: number,
    dropped: object,
    more: (made: Made, said: Said, given: Given) => string | undefined = () => undefined,
  ): Truth =>
  async (given) => {
    const { said, made, wrong } = await makes(given, users, interactions, dropped);
    return wrong ?? (made ? more(made, said, given) : "nothing was made");
  };
const in2023 = (m: Made): boolean => m.first > 1.7e9 && m.last < 1.71e9;

interface Proposal {
  readonly fault?: string;
  readonly found?: { readonly notes: readonly string[] };
  readonly recipe?: { readonly data: { readonly columns?: Record<string, unknown>; readonly keep?: unknown } };
}
const inspect = (given: Given): Proposal =>
  JSON.parse(run(given, "data", "inspect", join(given.folder, "data"), "--json").text) as Proposal;

/** Each item's title in the item file, read without any parser: `"item_id": ID, "title": "..."`. */
const written = (given: Given): ReadonlyMap<string, string> =>
  new Map(
    Array.from(
      readFileSync(join(given.folder, "data", "items.jsonl"), "utf8").matchAll(
        /"item_id": "?(\w+)"?, "title": "([^"]*)"/g,
      ),
      ([, id = "", title = ""]) => [id, title] as const,
    ),
  );
const ownTitles = (made: Made, given: Given): boolean => made.items.every((i) => i.title === written(given).get(i.id));

export const truths: Readonly<Record<string, Truth>> = {
  "01": plain(40, 479, { malformed: 1 }),
  "02": plain(40, 480, {}, (m, said, given) =>
    failing({
      "sequences out of order": sameSequences(
        m,
        computeTruth(given, (t) => Number(t) / (t.length > 11 ? 1000 : 1)),
      ),
      "units are not said": /several units/.test(said.text),
      "times are not of 2023": in2023(m),
    }),
  ),
  "03": async (given) => {
    const { made, wrong } = await makes(given, 80, 1920);
    if (wrong !== undefined || made === undefined) return wrong;
    const looked = run(given, "data", "inspect", join(given.folder, "data"));
    const shown = run(given, "data", "show", "x", "--root", given.temp);
    const whole = given.whole ? recipe(given, undefined) : undefined;
    return failing({
      "times are not of 2023": in2023(made),
      "inspect has another date": looked.code === 0 && looked.text.includes("time: 2023-11-15"),
      "data show has another date": shown.code === 0 && shown.text.includes("2023-11"),
      [`the whole run fails: ${whole?.text.slice(-300)}`]:
        whole === undefined || (whole.code === 0 && existsSync(join(given.temp, "x", "report.html"))),
    });
  },
  "04": plain(40, 480, {}, (m, _, given) =>
    failing({
      "times are not of 1997": m.first > 8.8e8 && m.last < 8.9e8,
      "sequences out of order": sameSequences(
        m,
        computeTruth(given, (t) => Number(t) / 1000),
      ),
    }),
  ),
  "05": async (given) => {
    const reviews = await makes(given, 40, 480);
    if (reviews.wrong !== undefined || reviews.made === undefined) return reviews.wrong;
    const second = await makes(given, 40, 479, { malformed: 1 }, ["data.files.interactions=nullfirst.parquet"]);
    return (
      second.wrong ??
      failing({
        "ms taken for seconds": in2023(reviews.made),
        "ms taken for seconds, Parquet": second.made !== undefined && in2023(second.made),
      })
    );
  },
  "06": plain(40, 480, {}, (m, _, given) =>
    failing({ "not 30 items": m.items.length === 30, "an item has the title of another": ownTitles(m, given) }),
  ),
  "07": async (given) => {
    const said = recipe(given, "slates");
    if (said.code === 3) return refuses(said, /day/);
    if (said.code !== 0) return said.text.slice(-300);
    const dir = join(given.temp, "x", "stages");
    const duck = await openDuck();
    const own = new Map<number, number[]>();
    for (const { user, item } of await duck.rows(
      `SELECT "user", item FROM ${sqlText(join(dir, "data", "interactions.parquet"))}`,
    ))
      own.set(Number(user), [...(own.get(Number(user)) ?? []), Number(item)]);
    duck.close();
    const slates = ["rerank", "validation", "test"].flatMap((s) =>
      readFileSync(join(dir, "slates", `${s}.jsonl`), "utf8")
        .trim()
        .split("\n")
        .map((l) => JSON.parse(l) as { user: number; position: number; target: number }),
    );
    const seen = slates.filter((s) => own.get(s.user)?.slice(0, s.position).includes(s.target)).length;
    return failing({
      "no slates": slates.length > 0,
      [`${seen} of ${slates.length} slates show their answer`]: seen === 0,
      "clocks are not spoken of": /timed to the day, slates to the second/.test(said.text),
    });
  },
  "08": async (given) => {
    const said = recipe(given, "sid");
    if (said.code !== 0) return said.text.slice(-300);
    const encode = (file: string): { sid: string; nearest: { similarity: number }[] }[] => {
      const out = join(given.temp, `${file}.out`);
      const done = run(
        given,
        "sid",
        "encode",
        "x",
        "--root",
        given.temp,
        "--items",
        join(given.folder, file),
        "--out",
        out,
      );
      if (done.code !== 0) throw new Error(done.text.slice(-300));
      return readFileSync(out, "utf8")
        .trim()
        .split("\n")
        .map((l) => JSON.parse(l) as { sid: string; nearest: { similarity: number }[] });
    };
    const [csv, jsonl] = [encode("new.csv"), encode("new.jsonl")];
    const exact = (all: typeof csv): number => all.filter((e) => (e.nearest[0]?.similarity ?? 0) > 0.9999).length;
    return failing({
      [`similarity 1 for ${exact(csv)} of 30 from CSV`]: exact(csv) === 30,
      [`similarity 1 for ${exact(jsonl)} of 30 from JSON`]: exact(jsonl) === 30,
      "other IDs from CSV than from JSON": equal(
        csv.map((e) => e.sid),
        jsonl.map((e) => e.sid),
      ),
    });
  },
  "09": async (given) => {
    const stopped = recipe(given, "data");
    const strict = stopped.code === 0 ? undefined : refuses(stopped, /rating is not a number/);
    const { wrong } = await makes(given, 40, 129, { malformed: 160, "below minimum rating": 191 }, [
      "data.maxBadShare=0.5",
    ]);
    return strict ?? wrong;
  },
  "10": async (given) => {
    const { recipe: proposed, found } = inspect(given);
    const { columns, keep } = proposed?.data ?? {};
    return failing({
      [`time: ${String(columns?.time)}`]: columns?.time === "time_ms",
      [`title: ${String(columns?.title)}`]: columns?.title === "caption",
      [`keep: ${JSON.stringify(keep)}`]: equal(keep, { is_click: ["1"] }),
      "nothing is said of is_click": found?.notes.some((n) => n.includes("is_click")) === true,
    });
  },
  "11": plain(40, 480, {}, (m) =>
    failing({ "not two categories": m.items.every((i) => i.categories.length === 2 && i.categories[0] === "Home") }),
  ),
  "12": plain(40, 480, {}, (m) =>
    failing({
      [`categories ${JSON.stringify(m.items[0]?.categories)}`]: m.items.every(
        (i) => i.categories.length === 2 && i.categories.every((c) => /^\d+$/.test(c)),
      ),
    }),
  ),
  "13": async (given) => {
    const refused = refuses(recipe(given, "data"), /items\.csv:\d+: not UTF-8/);
    const { made, wrong } = await makes(given, 40, 480, {}, ["data.encoding=latin1"]);
    return (
      refused ??
      wrong ??
      failing({
        "titles are not read": made?.items.every((i) => i.title.includes("é") || i.title.includes("ü")) === true,
      })
    );
  },
  "14": plain(40, 480, {}, (m) =>
    failing({ "not 30 items": m.items.length === 30 && m.items.every((i) => i.description !== "") }),
  ),
  "15": async (given) => {
    const refused = refuses(recipe(given, "data"), /120 of 480 rows are malformed.*no user id/);
    return refused ?? (await makes(given, 40, 360, { malformed: 120 }, ["data.maxBadShare=0.5"])).wrong;
  },
  "16": plain(40, 480, {}, (m, _, given) => failing({ "an item has the title of another": ownTitles(m, given) })),
  "17": plain(40, 480, {}),
  "18": plain(40, 480, {}, (m) => failing({ "items without a title": m.items.every((i) => i.title !== "") })),
  "19": async (given) => {
    const { recipe: proposed, fault } = inspect(given);
    const set = [
      "data.name=x",
      "data.adapter=recbole",
      `data.path=${join(given.folder, "data")}`,
      "data.minInteractions=0",
    ];
    const own = run(
      given,
      "pipeline",
      ...[...set, "data.columns.user=session_id", "data.split.kind=leave-one-out", "runtime.threads=1"].flatMap((s) => [
        "--set",
        s,
      ]),
      ...["--until", "data", "--root", given.temp, "--run", "x"],
    );
    return failing({
      [`fault: ${fault}`]: fault === undefined,
      "session_id is not proposed": proposed?.data.columns?.user === "session_id",
      [`data.columns is not followed: ${own.text.slice(-200)}`]: own.code === 0,
    });
  },
  "20": async () => {
    const service = await startService();
    try {
      const documents = [
        { name: "Heat", year: 1995 },
        { name: "Heat", year: 1932 },
        { name: "Sabrina", year: 1995 },
      ];
      const ask = (rank_fields: string[]) =>
        service.post("/v1/rerank", { query: "Star Wars (1977)", documents, rank_fields });
      const [fine, typo] = [(await ask(["name", "year"])).status, (await ask(["name", "yaer"])).status];
      const texts = service.reranker.last.candidates.map((c) => ("text" in c ? c.text : ""));
      return failing({
        "not 200": fine === 200,
        "a typing error is not 400": typo === 400,
        "two documents have one text": new Set(texts).size === 3 && texts[1] === "Heat\n1932",
      });
    } finally {
      await service.server.close();
    }
  },
  "21": plain(40, 480, {}, (m) =>
    failing({
      "descriptions are cut": m.items.length === 30 && m.items.every((i) => i.description.includes("line 59")),
    }),
  ),
  "22": async (given) => refuses(recipe(given, "slates"), /All 1920 interactions have the same time/),
  "23": async (given) => {
    cpSync(given.folder, join(given.temp, "copy"), { recursive: true });
    const here = { ...given, folder: join(given.temp, "copy") };
    const said = recipe(here, "embed");
    return said.code === 0 ? undefined : said.text.slice(-300);
  },
};
