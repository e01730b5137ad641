/** The shape of src/, as CONTRIBUTING.md draws it: who may import whom, no cycles, no giants, no hidden settings. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../src/core/paths.ts";

/**
 * What each room may import, besides itself. Top to bottom: a room only ever names rooms above it. A sub-room
 * ("stages/rl") is a room of its own; a room without an entry for its sub-rooms is one room to the bottom.
 * Narrower than "everything above" where that says something: what is pure stays away from workers and files.
 */
const pureRooms = ["plan", "data", "sid", "prompts", "eval", "reward", "rl", "prerank", "evidence", "teacher"];
const modelRooms = [...pureRooms, "core", "config", "worker", "policy", "run", "plugins", "artifacts"];
const stageRooms = [...modelRooms, "endpoint", "models"];
const served = [
  "core",
  "config",
  "data",
  "sid",
  "prompts",
  "eval",
  "prerank",
  "evidence",
  "teacher",
  "worker",
  "policy",
  "run",
];
const parts = ["request", "observe", "security", "model", "engine", "grpc", "http"];
const rooms: Readonly<Record<string, readonly string[]>> = {
  core: [],
  config: ["core"],
  plan: ["core", "config"],
  data: ["core"],
  sid: ["core"],
  prompts: ["core", "data"],
  eval: ["core", "prompts"],
  reward: ["core", "data", "prompts", "eval"],
  rl: ["core", "prompts", "eval", "reward"],
  prerank: ["core", "data", "eval"],
  evidence: ["core", "config", "data", "eval", "prerank"],
  teacher: ["core", "data", "prompts", "eval", "prerank", "evidence"],
  endpoint: ["core"],
  worker: ["core", "config"],
  policy: ["core", "eval", "prompts", "worker"],
  run: ["core", "config", "worker"],
  plugins: ["core", "config", ...pureRooms, "endpoint", "worker", "run"],
  artifacts: [
    "core",
    "config",
    "data",
    "sid",
    "prompts",
    "eval",
    "prerank",
    "evidence",
    "teacher",
    "worker",
    "policy",
    "run",
  ],
  models: modelRooms,
  "stages/prerankers": stageRooms,
  "stages/rl": stageRooms,
  "stages/teachers": [...stageRooms, "stages/rl"],
  "stages/evaluation": stageRooms,
  stages: [...stageRooms, "stages/evaluation", "stages/prerankers", "stages/rl", "stages/teachers"],
  commands: [...stageRooms, "stages"],
  report: ["core", "data", "eval", "rl", "run"],
  client: [],
  "serve/request": ["core", "sid", "prompts"],
  "serve/observe": ["serve/request"],
  "serve/security": ["core", "config", "serve/request"],
  "serve/model": [...served, "artifacts", "models", "serve/request"],
  "serve/engine": [...served, "models", "serve/request", "serve/model"],
  "serve/grpc": ["client", "core", "config", "serve/request", "serve/observe", "serve/security", "serve/observe"],
  "serve/http": ["core", "config", "serve/request", "serve/observe", "serve/security", "serve/observe"],
  serve: ["core", "config", "worker", "run", ...parts.map((part) => `serve/${part}`)],
  cli: [...stageRooms, "stages", "commands", "report", "serve", "serve/security", "serve/observe"],
};
/** The worker's rooms, likewise; files at its root are named one by one. */
const workerRooms: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  types: ["errors"],
  memory: ["errors"],
  items: ["errors", "types"],
  trees: ["errors"],
  model: ["errors", "types", "memory"],
  scoring: ["errors", "types", "model"],
  generation: ["errors", "types", "model", "scoring"],
  engine: ["errors", "types", "memory", "model", "scoring", "generation"],
  rpc: ["errors", "types", "memory", "items", "trees", "generation", "engine"],
  boot: ["rpc", "errors"],
  plugins: ["boot"],
  doctor: [],
  __main__: ["boot", "rpc", "errors"],
};

const src = join(repositoryRoot, "src");
const maxLines = 450;
/** The command line's debug switch, the environment handed to a Python process, and a key that must stand nowhere else. */
const mayReadEnvironment = new Set(["cli/program.ts", "worker/python.ts", "endpoint/secret.ts"]);

interface Source {
  /** Relative to src/, with forward slashes. */
  readonly path: string;
  readonly room: string;
  readonly text: string;
  readonly imports: readonly { readonly specifier: string; readonly path: string | undefined }[];
}

const posix = (path: string): string => path.split(sep).join("/");

/** Static imports, re-exports and import(...), of values and of types. */
function findSpecifiers(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  return [
    ...code.matchAll(/^\s*(?:import|export)\b[^;'"]*?\bfrom\s*["']([^"']+)["']/gm),
    ...code.matchAll(/^\s*import\s*["']([^"']+)["']/gm),
    ...code.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g),
  ].map((m) => m[1] as string);
}

const sources: Source[] = readdirSync(src, { recursive: true, withFileTypes: true })
  .filter((e) => e.isFile() && e.name.endsWith(".ts"))
  .map((e) => join(e.parentPath, e.name))
  .filter((file) => !posix(file).includes("/generated/"))
  .sort()
  .map((file) => {
    const path = posix(relative(src, file));
    const text = readFileSync(file, "utf8");
    const imports = findSpecifiers(text).map((specifier) => ({
      specifier,
      path: specifier.startsWith(".") ? posix(relative(src, resolve(dirname(file), specifier))) : undefined,
    }));
    return { path, room: findRoom(path), text, imports };
  });

/** "stages/rl" for a file of a sub-room that has rules of its own, "stages" otherwise. */
function findRoom(path: string): string {
  const [room, sub] = path.split("/") as [string, string];
  return `${room}/${sub}` in rooms ? `${room}/${sub}` : room;
}

describe("rooms", () => {
  it("are all known, and each names only rooms above it", () => {
    expect([...new Set(sources.map((s) => s.room))].filter((r) => !(r in rooms))).toEqual([]);
    const order = Object.keys(rooms);
    for (const [room, allowed] of Object.entries(rooms))
      for (const other of allowed)
        expect(order.indexOf(other), `${room} names ${other}`).toBeLessThan(order.indexOf(room));
  });

  it("are read with every kind of import", () => {
    const text = `import a from "./a.ts";\nimport {\n  type B,\n} from "../b.ts";\nexport * from "./c.ts"; // from "./no.ts"\n
      import "./d.ts";\n/* import x from "./no.ts" */\nconst e = await import("./e.ts");\n  // import y from "./no.ts"`;
    expect(findSpecifiers(text).sort()).toEqual(["../b.ts", "./a.ts", "./c.ts", "./d.ts", "./e.ts"]);
  });

  it("import only what they may", () => {
    const offences = sources.flatMap((s) =>
      s.imports.flatMap(({ path }) => {
        if (path === undefined) return [];
        const target = findRoom(path);
        return target === s.room || rooms[s.room]?.includes(target) ? [] : [`${s.path} imports ${path}`];
      }),
    );
    expect(offences).toEqual([]);
  });

  it("have no import cycles, types included", () => {
    const graph = new Map(sources.map((s) => [s.path, s.imports.flatMap((i) => i.path ?? [])]));
    expect(cyclesIn(graph)).toEqual([]);
    expect(
      cyclesIn(
        new Map([
          ["a", ["b"]],
          ["b", ["c"]],
          ["c", ["b"]],
        ]),
      ),
    ).toEqual(["b -> c -> b"]); // the check can fail
  });

  it("leave generated code, gRPC, pythonia and zeromq to the worker room, and the service's own to serve/grpc and client", () => {
    const offences = sources
      .filter((s) => !["worker", "client"].includes(s.room) && !s.path.startsWith("serve/grpc/"))
      .flatMap((s) => s.imports.map(({ specifier }) => ({ path: s.path, specifier })))
      .filter(({ specifier }) => /\/generated\/|^@grpc\/|^@bufbuild\/|^zeromq$/.test(specifier))
      .map(({ path, specifier }) => `${path} imports ${specifier}`);
    expect(offences).toEqual([]);
    const pythonia = sources
      .filter((s) => s.imports.some((i) => i.specifier === "pythonia"))
      .map((s) => findRoom(s.path));
    expect(new Set(pythonia)).toEqual(new Set(["worker"]));
  });

  it("keep what is pure pure: no files, no processes, no network", () => {
    const pure = new Set(["plan", "sid", "prompts", "reward", "rl", "eval", "prerank", "teacher", "policy"]);
    const offences = sources
      .filter((s) => pure.has(s.room))
      .flatMap((s) => s.imports.map(({ specifier }) => `${s.path} imports ${specifier}`))
      .filter((line) => /imports node:(?!crypto$)/.test(line));
    expect(offences).toEqual([]);
  });
});

describe("the worker's rooms", () => {
  const base = join(repositoryRoot, "python_worker/gr2_worker");
  const modules = readdirSync(base, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile() && e.name.endsWith(".py"))
    .map((e) => posix(relative(base, join(e.parentPath, e.name))).replace(/\.py$/, ""))
    .filter((path) => !path.startsWith("generated/") && !path.endsWith("__init__"))
    .sort();
  const readImports = (path: string): string[] =>
    pythonImports(readFileSync(join(base, `${path}.py`), "utf8"), modules);

  it("import only from rooms above them, relative imports unknown", () => {
    expect([...new Set(modules.map((m) => m.split("/")[0] as string))].filter((r) => !(r in workerRooms))).toEqual([]);
    const order = Object.keys(workerRooms);
    for (const [room, allowed] of Object.entries(workerRooms))
      for (const other of allowed)
        expect(order.indexOf(other), `${room} names ${other}`).toBeLessThan(order.indexOf(room));
    const offences = modules.flatMap((path) => {
      const room = path.split("/")[0] as string;
      const text = readFileSync(join(base, `${path}.py`), "utf8");
      const relativeImports = [...text.matchAll(/^\s*from \.+\w* import/gm)].map(([line]) => `${path}: ${line.trim()}`);
      const wrong = readImports(path)
        .filter(
          (target) => target.split("/")[0] !== room && !workerRooms[room]?.includes(target.split("/")[0] as string),
        )
        .map((target) => `${path} imports ${target}`);
      return [...relativeImports, ...wrong];
    });
    expect(offences).toEqual([]);
  });

  it("have no import cycles, types included", () => {
    expect(cyclesIn(new Map(modules.map((path) => [path, readImports(path)])))).toEqual([]);
  });
});

describe("files", () => {
  it(`have at most ${maxLines} lines`, () => {
    const long = sources
      .map((s) => ({ path: s.path, lines: s.text.split("\n").length - 1 }))
      .filter(({ lines }) => lines > maxLines);
    expect(long).toEqual([]);
  });

  it("say at their head what they own", () => {
    expect(sources.filter((s) => !s.text.startsWith("/**")).map((s) => s.path)).toEqual([]);
  });

  it("take settings from the config, never from the environment", () => {
    const readers = sources.filter((s) => /\bprocess\.env\b/.test(s.text)).map((s) => s.path);
    expect(readers.filter((path) => !mayReadEnvironment.has(path))).toEqual([]);
  });

  it("do not grow catch-all names", () => {
    const names = sources.filter((s) => /(^|[/-])(utils?|helpers?|manager|common|misc|v2)([/.-])/.test(s.path));
    expect(names.map((s) => s.path)).toEqual([]);
  });
});

/** Modules a Python text imports, also for types; `from gr2_worker.model import lm` names a module or a name in one. */
function pythonImports(text: string, modules: readonly string[]): string[] {
  const named = [
    ...text.matchAll(/^[ \t]*(?:from (gr2_worker[\w.]*) import (?:\(([^)]*)\)|([^\n]*))|import (gr2_worker[\w.]*))/gm),
  ];
  const found = named.flatMap(([, from, inBraces = "", inLine = "", whole]) =>
    whole !== undefined
      ? [whole]
      : [from as string, ...`${inBraces},${inLine}`.split(",").map((name) => `${from}.${name.trim().split(" ")[0]}`)],
  );
  const paths = found.map((name) => name.replace(/^gr2_worker\.?/, "").replaceAll(".", "/"));
  return [...new Set(paths.filter((path) => modules.includes(path)))];
}

/** One line a cycle found by depth-first search. */
function cyclesIn(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (node: string, path: readonly string[]): void => {
    const at = path.indexOf(node);
    if (at >= 0) {
      found.push([...path.slice(at), node].join(" -> "));
      return;
    }
    if (done.has(node)) return;
    for (const next of graph.get(node) ?? []) visit(next, [...path, node]);
    done.add(node);
  };
  for (const node of graph.keys()) visit(node, []);
  return found;
}
