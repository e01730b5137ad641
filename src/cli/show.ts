/** `gr2 run show` and `gr2 rollout show`: the contents of a run folder as text. */
import { join } from "node:path";
import pc from "picocolors";
import { tryReadJson } from "../run/files.ts";
import { readManifest } from "../run/manifest.ts";
import { readRecords } from "../run/record-log.ts";
import type { RolloutRecord } from "../run/run.ts";
import { listRuns, RunFolder } from "../run/run-folder.ts";
import { bytes, columns, duration, number } from "./format.ts";
import { type ResultsFile, resultsTable } from "./results.ts";

interface ShowOptions {
  readonly root: string;
  readonly json?: boolean;
}

/** Manifest, stages and, if they exist, results. */
export function showRun(name: string, { root, json }: ShowOptions): string {
  const folder = RunFolder.view(root, name);
  const manifest = readManifest(folder.path);
  if (json)
    return JSON.stringify({
      manifest: manifest ?? null,
      metrics: tryReadJson(join(folder.path, "metrics.json")) ?? null,
    });
  const parts: string[] = [];
  if (manifest) {
    const holder = folder.holder();
    const state = manifest.state === "running" && !holder ? "killed (a rerun resumes)" : manifest.state;
    const code = manifest.code.revision
      ? `${manifest.code.revision.slice(0, 12)}${manifest.code.dirty ? " + changes" : ""}`
      : "no git";
    const doing = holder ? ` by process ${holder.pid}` : "";
    parts.push(`${pc.bold(manifest.run)}  ${state}${doing}${manifest.note ? `: ${manifest.note}` : ""}`);
    parts.push(
      `config ${manifest.config_hash.slice(0, 16)}   seed ${manifest.seed}   code ${code}   ${manifest.updated}`,
    );
    const stages = Object.entries(manifest.stages).map(([stage, s]) => [
      stage,
      s.stale ? "stale" : s.state === "running" && !holder ? "killed" : s.state,
      s.finished ? duration(s.seconds) : "",
      s.peak_bytes ? bytes(s.peak_bytes) : "",
      s.key.slice(0, 12),
    ]);
    parts.push("", columns([["stage", "state", "time", "peak memory", "key"], ...stages]));
    if (Object.values(manifest.stages).some((s) => s.stale))
      parts.push(
        pc.yellow(
          `stale: settings, code or data have changed since. To rerun these stages: ` +
            `gr2 pipeline --run ${name} with its recipe.`,
        ),
      );
  } else parts.push(`${name}: no manifest yet`);
  const results = tryReadJson(join(folder.path, "metrics.json")) as ResultsFile | undefined;
  if (results) {
    if (manifest?.stages.evaluate?.stale) parts.push("", pc.yellow("The results below are from the earlier settings."));
    parts.push("", resultsTable(results));
    const health = Object.entries(results.health ?? {}).map(([k, v]) => `${k} ${number(v)}`);
    if (health.length > 0) parts.push("", pc.dim(health.join("   ")));
  }
  return parts.join("\n");
}

/** All runs, newest first. */
export function showRuns({ root, json }: ShowOptions): string {
  const runs = listRuns(root).map((name) => {
    const m = readManifest(join(root, name));
    return { run: name, state: m?.state ?? "?", updated: m?.updated ?? "" };
  });
  if (json) return JSON.stringify(runs);
  const rows = runs.map((r) => Object.values(r));
  return rows.length > 0 ? columns([["run", "state", "updated"], ...rows]) : `no runs under ${root}`;
}

/** The last `n` rollouts, oldest first: text, parse, reward with its parts. */
export function showRollouts(name: string, { root, n, json }: ShowOptions & { readonly n: number }): string {
  const folder = RunFolder.view(root, name);
  const last: RolloutRecord[] = [];
  for (const r of readRecords<RolloutRecord>(folder.file("rollouts.jsonl"))) {
    last.push(r);
    if (last.length > n) last.shift();
  }
  if (json) return JSON.stringify(last);
  if (last.length === 0) return `${name} has no rollouts yet`;
  return last.map(showRollout).join("\n\n");
}

function showRollout(r: RolloutRecord): string {
  const { seq, stage, step, text, reward, ...rest } = r;
  const head = `${pc.bold(`#${seq}`)} ${stage} step ${step}${typeof reward === "number" ? `   reward ${pc.bold(number(reward))}` : ""}`;
  const detail = Object.entries(rest).map(([k, v]) => pc.dim(`${k}: ${typeof v === "string" ? v : JSON.stringify(v)}`));
  const clean = typeof text === "string" ? text.replace(/[^\P{Cc}\n\t]/gu, "�") : "";
  return [head, clean, ...detail].filter(Boolean).join("\n");
}
