/** The shape of src/, as CONTRIBUTING.md draws it: who may import whom, no cycles, no giants, no hidden settings. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../src/core/paths.ts";
import { findCycles, isGenerated, listSources, readImports, typescriptImports } from "../../src/run/imports.ts";

/**
 * What each room may import, besides itself. Top to bottom: a room only ever names rooms above it. A sub-room
 * ("stages/rl") is a room of its own; a room without an entry for its sub-rooms is one room to the bottom.
 * Narrower than "everything above" where that says something: what is pure stays away from workers and files.
 */
const pureRooms = ["plan", "data", "sid", "prompts", "eval", "reward", "rl", "prerank", "evidence", "teacher"];
const modelRooms = [...pureRooms, "core", "config", "worker", "policy", "run", "plugins", "artifacts"];
const stageRooms = [...modelRooms, "endpoint", "models"];
const artifactRooms = [
  ...["core", "config", "data", "sid", "prompts", "eval", "prerank", "evidence", "teacher", "worker", "policy", "run"],
];
const served = [...artifactRooms, "plugins"];
const parts = ["request", "observe", "security", "model", "engine", "batch", "grpc", "http", "processes"];
const rooms: Readonly<Record<string, readonly string[]>> = {
  core: [],
  config: ["core"],
  plan: ["core", "config"],
  data: ["core"],
  sid: ["core"],
  prompts: ["core", "data"],
  eval: ["core", "data", "prompts"],
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
  artifacts: artifactRooms,
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
  "serve/processes": ["core", "serve/request"],
  "serve/batch": ["core", "data", "run", "serve/request", "serve/model", "serve/engine"],
  "serve/grpc": ["client", "core", "config", "serve/request", "serve/observe", "serve/security", "serve/observe"],
  "serve/http": ["core", "config", "serve/request", "serve/observe", "serve/security", "serve/observe"],
  serve: ["core", "config", "worker", "run", ...parts.map((part) => `serve/${part}`)],
  cli: [...stageRooms, "stages", "commands", "report", "serve", ...parts.map((part) => `serve/${part}`)],
};
/** The worker's rooms, likewise; files at its root are named one by one. */
const workerRooms: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  types: ["errors"],
  memory: ["errors"],
  items: ["errors", "types"],
  trees: ["errors"],
  cross_encoder: ["errors"],
  model: ["errors", "types", "memory"],
  scoring: ["errors", "types", "model"],
  generation: ["errors", "types", "model", "scoring"],
  engine: ["errors", "types", "memory", "model", "scoring", "generation"],
  rpc: ["errors", "types", "memory", "items", "trees", "cross_encoder", "generation", "engine"],
  boot: ["rpc", "errors"],
  plugins: ["boot"],
  doctor: [],
  __main__: ["boot", "rpc", "errors"],
};

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

const inSrc = (path: string): string => path.replace(/^src\//, "");

const sources: Source[] = listSources("src", repositoryRoot).map((file) => ({
  path: inSrc(file),
  room: findRoom(inSrc(file)),
  text: readFileSync(join(repositoryRoot, file), "utf8"),
  imports: readImports(file, repositoryRoot).map(({ specifier, path }) => ({
    specifier,
    path: path === undefined ? undefined : inSrc(path),
  })),
}));

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
    expect(typescriptImports(text, "src/deep/x.ts").map(({ path, onlyTypes }) => [path, onlyTypes])).toEqual([
      ["src/deep/a.ts", false],
      ["src/b.ts", true],
      ["src/deep/c.ts", false],
      ["src/deep/d.ts", false],
      ["src/deep/e.ts", false],
    ]);
  });

  it("are read as the TypeScript compiler reads them", () => {
    const differing = sources.filter(({ text, imports }) => {
      const theirs = ts.preProcessFile(text, true, true).importedFiles.map((f) => f.fileName);
      return JSON.stringify(theirs.sort()) !== JSON.stringify(imports.map((i) => i.specifier).sort());
    });
    expect(differing.map((s) => s.path)).toEqual([]);
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
    expect(findCycles(graph)).toEqual([]);
    expect(
      findCycles(
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
  const base = "python_worker/gr2_worker";
  const inWorker = (path: string): string => path.replace(`${base}/`, "").replace(/\.py$/, "");
  const isModule = (path: string): boolean => !path.endsWith("__init__.py");
  const modules = listSources(base, repositoryRoot).filter(isModule).map(inWorker);
  const readModules = (path: string): string[] =>
    readImports(`${base}/${path}.py`, repositoryRoot).flatMap((i) =>
      i.path !== undefined && isModule(i.path) && !isGenerated(i.path) ? [inWorker(i.path)] : [],
    );

  it("import only from rooms above them, relative imports unknown", () => {
    expect([...new Set(modules.map((m) => m.split("/")[0] as string))].filter((r) => !(r in workerRooms))).toEqual([]);
    const order = Object.keys(workerRooms);
    for (const [room, allowed] of Object.entries(workerRooms))
      for (const other of allowed)
        expect(order.indexOf(other), `${room} names ${other}`).toBeLessThan(order.indexOf(room));
    const offences = modules.flatMap((path) => {
      const room = path.split("/")[0] as string;
      const text = readFileSync(join(repositoryRoot, base, `${path}.py`), "utf8");
      const relativeImports = [...text.matchAll(/^\s*from \.+\w* import/gm)].map(([line]) => `${path}: ${line.trim()}`);
      const wrong = readModules(path)
        .filter(
          (target) => target.split("/")[0] !== room && !workerRooms[room]?.includes(target.split("/")[0] as string),
        )
        .map((target) => `${path} imports ${target}`);
      return [...relativeImports, ...wrong];
    });
    expect(offences).toEqual([]);
  });

  it("have no import cycles, types included", () => {
    expect(findCycles(new Map(modules.map((path) => [path, readModules(path)])))).toEqual([]);
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
