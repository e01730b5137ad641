/** `gr2 data inspect`: describes the data at a path and proposes a recipe that reads it. */
import { writeFileSync } from "node:fs";
import pc from "picocolors";
import { parse, stringify } from "yaml";
import { type Inspection, inspect } from "../commands/inspect.ts";
import { inspectModule } from "../commands/inspect-module.ts";
import { ConfigError } from "../core/errors.ts";
import { dateText } from "../data/clock.ts";
import { bytes, columns, number, plain } from "./format.ts";

export interface InspectOptions {
  readonly json?: boolean;
  readonly output?: string;
  /** The user's own adapter, its options as YAML, and its version. */
  readonly module?: string;
  readonly options?: string;
  readonly moduleVersion?: string;
}

export async function dataInspect(path: string, options: InspectOptions): Promise<string> {
  if (options.module !== undefined) return inspectOwn(path, options.module, options);
  const found = await inspect(path);
  if (options.output !== undefined && found.recipe) writeFileSync(options.output, recipeFile(found));
  return options.json ? JSON.stringify(forJson(found), null, 2) : renderInspection(found, options.output);
}

/** What the user's own adapter reads. */
async function inspectOwn(path: string, module: string, options: InspectOptions): Promise<string> {
  const given: unknown = parse(options.options ?? "{}");
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new ConfigError(`--options ${options.options}: expected a mapping, for example {from: "2024-01"}`);
  const version = options.moduleVersion ?? "";
  const found = await inspectModule({ path, module, options: { ...given }, version });
  if (options.output !== undefined) writeFileSync(options.output, stringify(found.recipe));
  if (options.json) return JSON.stringify(found, null, 2);
  const show = (rows: readonly Readonly<Record<string, unknown>>[]): string[] =>
    rows.map((r) => `  ${plain(JSON.stringify(r), 110)}`);
  return [
    `${module} read ${found.rowsRead} rows: ${found.interactions} interactions of ` +
      `${found.users} users with ${found.items} ` +
      `items${found.catalogue === undefined ? ", no item table" : `; the item table has ${found.catalogue}`}`,
    found.time
      ? `time: ${dateText(found.time.first)} to ${dateText(found.time.last)}`
      : "time: only the order is known",
    ...show(found.firstInteractions),
    ...(found.firstItems.length > 0 ? ["items", ...show(found.firstItems)] : []),
    ...(found.malformed > 0 ? [`! ${found.malformed} malformed rows; the first is ${found.firstMalformed}`] : []),
    ...(found.unknownItems > 0
      ? [`! ${found.unknownItems} interactions have items that are missing from the item table`]
      : []),
    ...found.notes.map((note) => `! ${note}`),
    "",
    pc.bold(options.output ? `Recipe, written to ${options.output}` : "Recipe, to save as my-data.yaml"),
    "",
    stringify(found.recipe).trimEnd(),
  ].join("\n");
}

/** The recipe, preceded by the reasons for its settings as comments. */
const recipeFile = (o: Inspection): string =>
  [...o.advice.filter((a) => a.why).map((a) => `# ${a.setting}: ${a.why}`), stringify(o.recipe)].join("\n");

/** Drops the sampled records; a few examples per column remain. */
const forJson = ({ view, ...rest }: Inspection) => ({
  folder: view.folder,
  files: view.files.map(({ records: _records, lines: _lines, ...f }) => f),
  ...rest,
});

const percent = (share: number): string => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 2 : 1)} %`;

export function renderInspection(o: Inspection, output?: string): string {
  const parts = [filesTable(o)];
  if (!o.found) return [...parts, "", unknownLayout(o)].join("\n");
  parts.push("", `This looks like ${pc.bold(o.found.layout)}.`, ...columnTables(o));
  if (o.measured) parts.push("", measuredLines(o));
  const remarks = listRemarks(o);
  if (remarks.length > 0) parts.push("", ...remarks.map((r) => `! ${r}`));
  if (o.fault) parts.push("", `Reading it this way failed: ${o.fault}`, "", whatTableNeeds);
  else {
    const file = output ?? "my-data.yaml";
    parts.push(
      "",
      pc.bold("Why these settings"),
      ...o.advice.filter((a) => a.why).map((a) => `  ${a.setting}: ${a.value} - ${a.why}`),
    );
    parts.push(
      "",
      ...costLines(o),
      pc.bold(output ? `Recipe, written to ${output}` : "Recipe, to save as my-data.yaml"),
      "",
      stringify(o.recipe).trimEnd(),
    );
    parts.push("", `Next: gr2 config check ${file} && gr2 pipeline --config ${file} --until data`);
  }
  return parts.join("\n");
}

/** Time per stage, and memory; stages that take less than a tenth of the total are added up. */
function costLines({ cost }: Inspection): string[] {
  if (!cost) return [];
  const minutes = (seconds: number): string =>
    seconds < 90 ? `${Math.ceil(seconds)} s` : `${(seconds / 60).toFixed(0)} min`;
  const total = 60 * cost.minutes;
  const large = cost.stages.filter((s) => s.seconds >= 0.1 * total);
  const rest = total - large.reduce((sum, s) => sum + s.seconds, 0);
  const told = [...large.map((s) => `${s.stage} ${minutes(s.seconds)}`), `other stages ${minutes(rest)}`].join(", ");
  return [
    pc.bold(
      `Estimated cost on this machine, with ${cost.cores} idle cores: ` +
        `about ${minutes(total)} and ${(cost.memoryBytes / 2 ** 30).toFixed(1)} GiB`,
    ),
    `  ${told}${cost.fits ? "" : "; more memory than this machine has"}`,
    "",
  ];
}

function filesTable({ view }: Inspection): string {
  if (view.files.length === 0)
    return (
      `${view.folder} contains no ` +
      `files${view.subfolders.length > 0 ? `; its subfolders are ${view.subfolders.join(", ")}` : ""}`
    );
  return [
    view.folder,
    columns([
      ["  file", "size", "rows", "form"],
      ...view.files.map((f) => [
        `  ${plain(f.name, 50)}`,
        bytes(f.bytes),
        f.rows === undefined ? "" : `~${f.rows}`,
        f.problem ? `${f.format} (${f.problem})` : f.format,
      ]),
    ]),
  ].join("\n");
}

/** Columns of the files in use: kind, gaps, values, guessed role and the reason for it. */
function columnTables({ view, found }: Inspection): string[] {
  const used = view.files.filter((f) => [found?.interactions, found?.items].includes(f.name) && f.columns.length > 0);
  return used.flatMap((f) => {
    const roles = new Map(found?.roles.filter((r) => r.file === f.name).map((r) => [r.column, `${r.role}, ${r.why}`]));
    const rows = f.columns.map((c) => [
      `  ${plain(c.name, 30)}`,
      c.kind,
      c.missing > 0 ? `${percent(c.missing)} missing` : "",
      plain(c.examples.slice(0, 2).join(" · "), 44),
      roles.has(c.name) ? `= ${roles.get(c.name)}` : "",
    ]);
    return ["", `${f.name} (first ${f.records.length} rows)`, leftColumns(rows)];
  });
}

const leftColumns = (rows: readonly (readonly string[])[]): string => {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((r) => (r[c] ?? "").length)));
  return rows
    .map((r) =>
      r
        .map((cell, c) => cell.padEnd(widths[c] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
};

function measuredLines({ measured: m }: Inspection): string {
  if (!m) return "";
  const facts = [
    `${m.interactions} interactions${m.interactions < m.rowsRead ? ` of ${m.rowsRead} rows` : ""}${m.whole ? "" : " in the part read"}; ${m.users} users, ${m.items} items${m.catalogue === undefined ? "" : ` (${m.catalogue} in the item file)`}`,
    `sequences: mean ${number(m.lengthMean)}, median ${number(m.lengthMedian)}, longest ${m.lengthMax}; ` +
      `${percent(m.repeats)} repeats${m.positions ? "" : `, ${percent(m.ties)} of steps have equal times`}`,
    m.time ? `time: ${dateText(m.time.first)} to ${dateText(m.time.last)}` : "time: only the order is known",
    m.ratings ? `ratings: ${m.ratings.low} to ${m.ratings.high}, ${m.ratings.different} different` : "no ratings",
    ...(m.catalogue === undefined
      ? []
      : [`items without a title: ${percent(m.withoutTitle)}, without any text: ${percent(m.withoutText)}`]),
  ];
  return facts.map((f) => `  ${f}`).join("\n");
}

function listRemarks({ found, measured: m }: Inspection): string[] {
  const out = [...(found?.notes ?? [])];
  if (!m) return out;
  if (!m.whole)
    out.push(
      "the files are large and these numbers describe only their first part; " +
        "check the k-core and the split after the data stage",
    );
  if (m.malformed > 0) out.push(`${m.malformed} malformed rows; the first is ${m.firstMalformed}`);
  if (m.unknownItems > 0.02)
    out.push(
      `${percent(m.unknownItems)} of the interactions have items missing from the item file and would be dropped; ` +
        `check data.columns.id`,
    );
  if (m.ratings && m.ratings.different > 1)
    out.push(
      `every rating counts as an interaction; ` +
        `data.minRating: ` +
        `${Math.round(m.ratings.low + 0.75 * (m.ratings.high - m.ratings.low))} would keep only positive ones`,
    );
  return out;
}

const whatTableNeeds = `The table adapter reads any two tables (CSV, TSV, JSONL, each may be .gz, or Parquet):
  interactions: one per row, with a user, an item and, if known, a time (seconds, milliseconds or ISO 8601)
  items:        one per row, with an id, and a title, brand, categories or description
Name their columns under data.columns; docs/data.md has an example for every layout.`;

function unknownLayout({ view }: Inspection): string {
  const first = view.files.flatMap((f) =>
    f.lines[0] === undefined ? [] : [`  ${plain(f.name, 30)}: ${plain(f.lines[0], 90)}`],
  );
  return [
    "GR2 does not recognise this layout.",
    ...(first.length > 0 ? ["First lines:", ...first.slice(0, 8)] : []),
    ...(view.subfolders.length > 0 ? [`The data may be in one of its subfolders: ${view.subfolders.join(", ")}`] : []),
    "",
    whatTableNeeds,
  ].join("\n");
}
