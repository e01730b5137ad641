/**
 * manifest.json: what a run was made from and on which machine. Rewritten at every change, so a killed run has one too.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { arch, cpus, platform, release, totalmem } from "node:os";
import { join } from "node:path";
import { readOwnPackage } from "../core/own-package.ts";
import { repositoryRoot } from "../core/paths.ts";
import { tryReadJson, writePrettyJson } from "./files.ts";

export type StageState = "running" | "finished" | "failed" | "interrupted";

export interface StageEntry {
  state: StageState;
  key: string;
  /** Hash of the code its result depends on; absent in manifests of earlier versions. */
  code?: string;
  inputs: Record<string, string>;
  /** sha256 by file. */
  outputs: Record<string, string>;
  seconds: number;
  peak_bytes: number;
  started: string;
  finished?: string;
  /** True if the last invocation found it finished and did nothing. */
  cached: boolean;
  /**
   * True if its outputs were made with other settings, code or data than the last invocation's, which did not get this
   * far.
   */
  stale?: boolean;
}

export interface PluginEntry {
  module: string;
  /** As the recipe declares it. */
  version: string;
  /** Over its files and the versions of the packages they import; "" if its code is elsewhere. */
  sha256: string;
  files: string[];
  packages: Record<string, string>;
}

export interface Manifest {
  schema: 1;
  run: string;
  state: StageState;
  note?: string;
  created: string;
  updated: string;
  command: string[];
  config_hash: string;
  seed: number;
  code: { revision: string | null; dirty: boolean | null };
  /** Hashes of external data, by name. */
  data: Record<string, string>;
  /** The user's modules, by setting. */
  plugins: Record<string, PluginEntry>;
  versions: Record<string, string>;
  hardware: Record<string, string | number>;
  stages: Record<string, StageEntry>;
}

export class ManifestFile {
  readonly path: string;
  readonly content: Manifest;

  private constructor(path: string, content: Manifest) {
    this.path = path;
    this.content = content;
  }

  /** Continues the manifest of an earlier invocation of the same run, or starts a new one. */
  static open(path: string, about: { run: string; configHash: string; seed: number }): ManifestFile {
    const earlier = tryReadJson(path) as Manifest | undefined;
    const now = new Date().toISOString();
    const manifest = new ManifestFile(path, {
      schema: 1,
      run: about.run,
      state: "running",
      created: earlier?.created ?? now,
      updated: now,
      command: process.argv.slice(2),
      config_hash: about.configHash,
      seed: about.seed,
      code: codeRevision(),
      data: earlier?.data ?? {},
      plugins: {},
      // a rerun that finds everything finished starts no worker: keep what an earlier invocation noted about it
      versions: { ...earlier?.versions, ...versions() },
      hardware: { ...earlier?.hardware, ...hardware() },
      stages: earlier?.stages ?? {},
    });
    manifest.save();
    return manifest;
  }

  /** Changes the content and writes it. */
  update(change: (manifest: Manifest) => void): void {
    change(this.content);
    this.save();
  }

  private save(): void {
    this.content.updated = new Date().toISOString();
    writePrettyJson(this.path, this.content);
  }
}

/** The manifest of a run folder, or undefined if there is none. */
export const readManifest = (folder: string): Manifest | undefined =>
  tryReadJson(join(folder, "manifest.json")) as Manifest | undefined;

/** The checkout this program runs from; nulls without git. @param except a folder whose changes do not count */
export function codeRevision(except?: string): Manifest["code"] {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: repositoryRoot,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: 10_000,
    });
  const status = ["status", "--porcelain", ...(except ? ["--", ".", `:!${except}`] : [])];
  try {
    return { revision: git("rev-parse", "HEAD").trim(), dirty: git(...status).trim() !== "" };
  } catch {
    return { revision: null, dirty: null }; // no git, or an unpacked archive
  }
}

function versions(): Record<string, string> {
  const found: Record<string, string> = { node: process.versions.node };
  const own = readOwnPackage();
  found.gr2 = own.version;
  for (const name of Object.keys(own.dependencies)) {
    try {
      const file = join(repositoryRoot, "node_modules", name, "package.json");
      found[name] = (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    } catch {
      found[name] = "not installed";
    }
  }
  return found;
}

export function hardware(): Manifest["hardware"] {
  const all = cpus();
  return {
    platform: `${platform()} ${release()} ${arch()}`,
    cpu: all[0]?.model.trim() ?? "unknown",
    cores: all.length,
    memory_bytes: totalmem(),
  };
}
