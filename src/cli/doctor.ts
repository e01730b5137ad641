/**
 * `gr2 doctor`: checks whether this machine can run GR2 and says what to do if not. The Python side is checked through
 * pythonia, which tests the bridge too. Changes nothing.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { createServer } from "node:net";
import { freemem, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import pc from "picocolors";
import { Gr2Error } from "../core/errors.ts";
import { repositoryRoot } from "../core/paths.ts";
import { checkPython, defaultPythonBin, startPython } from "../worker/python.ts";
import { bytes } from "./format.ts";

/** "problem" blocks a run; "warning" does not. */
export interface Check {
  readonly name: string;
  readonly state: "ok" | "warning" | "problem";
  readonly found: string;
  readonly advice?: string;
}

export interface DoctorOptions {
  readonly python?: string;
  readonly dataDir?: string;
  readonly runsDir?: string;
}

/** The result of gr2_worker.doctor.report. */
interface PythonReport {
  readonly ok: boolean;
  readonly error?: string;
  readonly python?: string;
  readonly packages?: Readonly<Record<string, string | null>>;
  readonly torch?: string;
  readonly torch_error?: string;
  readonly lightgbm_error?: string;
  readonly threads?: number;
  readonly devices?: readonly { name: string; memory: number }[];
  readonly cuda_build?: string | null;
}

const gib = 2 ** 30;

/** Runs every check, in table order. Takes a few seconds, because torch is imported. */
export async function examine(options: DoctorOptions = {}): Promise<Check[]> {
  const python = resolve(options.python ?? defaultPythonBin());
  return [
    checkNode(process.versions.node),
    checkGenerated(),
    ...(await checkPythonSide(python)),
    checkMemory(totalmem(), freemem()),
    checkDisk(options.runsDir ?? "."),
    await checkSocket(),
    checkData(options.dataDir ?? "data"),
  ];
}

export function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const ok = major > 20 || (major === 20 && minor >= 19);
  return ok
    ? { name: "Node", state: "ok", found: version }
    : { name: "Node", state: "problem", found: version, advice: "Install Node 20.19 or newer." };
}

function checkGenerated(): Check {
  const sides = {
    TypeScript: "src/worker/generated/gr2/v1/worker.ts",
    Python: "python_worker/gr2_worker/generated/gr2/v1/worker_pb2.py",
  };
  const missing = Object.entries(sides).filter(([, path]) => !existsSync(join(repositoryRoot, path)));
  return missing.length === 0
    ? { name: "generated code", state: "ok", found: "TypeScript and Python" }
    : {
        name: "generated code",
        state: "problem",
        found: `${missing.map(([side]) => side).join(" and ")} missing`,
        advice: "Run `make proto`.",
      };
}

async function checkPythonSide(bin: string): Promise<Check[]> {
  try {
    checkPython(bin, {});
  } catch (e) {
    return [failed("Python", e)];
  }
  const log = mkdtempSync(join(tmpdir(), "gr2-doctor-"));
  try {
    const python = await startPython({ bin, logPath: join(log, "python.log") });
    try {
      const wanted = pinnedRequirements(
        readFileSync(join(repositoryRoot, "python_worker", "requirements.txt"), "utf8"),
      );
      const request = { packages: Object.keys(wanted) };
      const report = (await python.call("gr2_worker.doctor", "report", request)) as PythonReport;
      return judgePython(report, wanted, bin);
    } finally {
      await python.exit();
    }
  } catch (e) {
    return [failed("Python", e)];
  } finally {
    rmSync(log, { recursive: true, force: true });
  }
}

/** Versions by name, from lines `name==version`. */
export function pinnedRequirements(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/^([A-Za-z0-9_.-]+)==([^\s;#]+)/gm)].map((m) => [m[1] ?? "", m[2] ?? ""]),
  );
}

/** Packages that the worker imports itself; the other requirements are their dependencies, or for tests. */
const essential: ReadonlySet<string> = new Set([
  "torch",
  "transformers",
  "tokenizers",
  "safetensors",
  "sentence-transformers",
  "peft",
  "numpy",
  "scikit-learn",
  "lightgbm",
  "grpcio",
  "grpcio-health-checking",
  "protobuf",
  "psutil",
]);

export function judgePython(report: PythonReport, wanted: Readonly<Record<string, string>>, bin: string): Check[] {
  if (!report.ok) {
    return [{ name: "Python", state: "problem", found: report.error ?? "no answer", advice: "Run `make setup`." }];
  }
  const checks: Check[] = [{ name: "Python", state: "ok", found: `${report.python} (${bin})` }];
  const packages = report.packages ?? {};
  const missing = Object.keys(wanted).filter((name) => essential.has(name) && !packages[name]);
  const other = Object.entries(wanted).filter(([name, version]) => {
    const found = packages[name]?.split("+")[0]; // 2.13.0+cpu is 2.13.0
    return essential.has(name) && found !== undefined && found !== version;
  });
  if (missing.length > 0) {
    checks.push({
      name: "packages",
      state: "problem",
      found: `missing: ${missing.join(", ")}`,
      advice: "Run `make setup`.",
    });
  } else if (other.length > 0) {
    const list = other.map(([name, version]) => `${name} ${packages[name]} (pinned ${version})`).join(", ");
    const advice = "Results may differ slightly; `make setup` installs the pinned versions.";
    checks.push({ name: "packages", state: "warning", found: list, advice });
  } else checks.push({ name: "packages", state: "ok", found: `${essential.size} as pinned in requirements.txt` });
  if (report.torch_error) {
    const advice = "Run `make setup`; if that does not help, remove .venv first.";
    return [...checks, { name: "torch", state: "problem", found: `cannot be imported: ${report.torch_error}`, advice }];
  }
  if (report.lightgbm_error) {
    const advice =
      "Install the system package libgomp1 (OpenMP), or run `make setup` if LightGBM is missing; " +
      "evidence.model: listwise works without it.";
    checks.push({ name: "LightGBM", state: "problem", found: `cannot be imported: ${report.lightgbm_error}`, advice });
  }
  const devices = (report.devices ?? []).map((d) => `${d.name} ${bytes(d.memory)}`);
  checks.push({ name: "torch", state: "ok", found: `${report.torch}, ${report.threads} threads` });
  if (devices.length > 0) checks.push({ name: "device", state: "ok", found: devices.join(", ") });
  else if (report.cuda_build) {
    const advice = "torch is built for CUDA but sees no GPU: check the driver with nvidia-smi. The CPU will be used.";
    checks.push({ name: "device", state: "warning", found: "cpu", advice });
  } else checks.push({ name: "device", state: "ok", found: "cpu" });
  return checks;
}

export function checkMemory(total: number, free: number): Check {
  const found = `${bytes(total)}, ${bytes(free)} free`;
  if (total < 4 * gib) {
    const advice = "The default recipe needs up to 4 GB; lower runtime.microBatchTokens and runtime.sampleBatchTokens.";
    return { name: "memory", state: "warning", found, advice };
  }
  return { name: "memory", state: "ok", found };
}

function checkDisk(folder: string): Check {
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = resolve(existing, "..");
  const { bavail, bsize } = statfsSync(existing);
  const free = bavail * bsize;
  const found = `${bytes(free)} free at ${existing}`;
  if (free < 0.5 * gib) {
    return {
      name: "disk",
      state: "problem",
      found,
      advice: "Free some space, or store runs elsewhere with --root PATH.",
    };
  }
  if (free < 2 * gib)
    return { name: "disk", state: "warning", found, advice: "A run of the default recipe needs about 1 GB." };
  return { name: "disk", state: "ok", found };
}

/** Checks that this process can listen on loopback and on a unix socket in TMPDIR, as telemetry and the worker do. */
async function checkSocket(): Promise<Check> {
  const folder = mkdtempSync(join(tmpdir(), "gr2-doctor-"));
  const listen = (where: { port: number; host: string } | { path: string }) =>
    new Promise<void>((done, fail) => {
      const server = createServer();
      server.once("error", fail);
      server.listen(where, () => server.close(() => done()));
    });
  try {
    await listen({ path: join(folder, "s") });
    await listen({ port: 0, host: "127.0.0.1" });
    return { name: "sockets", state: "ok", found: "unix and loopback" };
  } catch (e) {
    const found = e instanceof Error ? e.message : String(e);
    return {
      name: "sockets",
      state: "problem",
      found,
      advice: "Allow this user to listen on 127.0.0.1 and in TMPDIR.",
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function checkData(folder: string): Check {
  const entries = existsSync(folder) ? readdirSync(folder) : [];
  if (entries.length > 0)
    return { name: "data", state: "ok", found: `${resolve(folder)}: ${entries.sort().join(", ")}` };
  const advice =
    "The first run downloads MovieLens-100K and MiniLM from the package registry; if offline, set data.path.";
  return { name: "data", state: "warning", found: `nothing cached in ${resolve(folder)}`, advice };
}

function failed(name: string, e: unknown): Check {
  const found = e instanceof Error && e.message ? e.message : String(e);
  return {
    name,
    state: "problem",
    found,
    advice: (e instanceof Gr2Error ? e.advice : undefined) ?? "Run `make setup`.",
  };
}

/** The checks as lines of text. */
export function renderChecks(checks: readonly Check[]): string {
  const mark = { ok: pc.green("✓"), warning: pc.yellow("!"), problem: pc.red("✗") };
  const width = Math.max(...checks.map((c) => c.name.length));
  const lines = checks.flatMap((c) => [
    `${mark[c.state]} ${c.name.padEnd(width)}  ${c.found}`,
    ...(c.advice ? [`  ${" ".repeat(width)}  ${pc.dim(`→ ${c.advice}`)}`] : []),
  ]);
  const problems = checks.filter((c) => c.state === "problem").length;
  lines.push(
    "",
    problems === 0 ? "This machine can run GR2." : `${problems} problem${problems > 1 ? "s" : ""} must be fixed first.`,
  );
  return lines.join("\n");
}
