/**
 * A user's Python functions, in the worker's environment: they run in pythonia's Python process, as the worker does
 * (python_worker/gr2_worker/plugins.py is the other end). Items are sent once; after that, slates name them by row.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import type { Item } from "../data/types.ts";
import { checkPython, defaultPythonBin, type PythonProcess, sharePython } from "../worker/python.ts";

const host = "gr2_worker.plugins";

type Reply = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string };

/** A Python function raised: what, and where. */
export class PythonRaised extends Error {}

export interface PythonHost {
  /** Imports a function and returns the versions of the packages its files use. Throws PythonRaised. */
  load(file: string, name: string, files: readonly string[]): Promise<Readonly<Record<string, string>>>;
  /** Calls what was loaded; throws PythonRaised for what it raises. */
  call(request: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Calls another function of the host; throws PythonRaised. */
  ask(fn: "fit" | "rank" | "read", request: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Registers items; returns the key by which requests refer to them. */
  know(items: readonly Item[]): Promise<number>;
}

let open: { readonly process: Promise<PythonProcess>; readonly known: Map<readonly Item[], number> } | undefined;
let folder: string | undefined;

/** @param logPath receives what Python prints, unless Python is already running; default: a temporary file */
export async function pythonHost(config: Config, logPath?: string): Promise<PythonHost> {
  const bin = config.runtime.python || defaultPythonBin();
  folder ??= mkdtempSync(join(tmpdir(), "gr2-plugins-"));
  if (open === undefined || (await open.process).ended() !== undefined) {
    checkPython(bin, {});
    open = { process: sharePython({ bin, logPath: logPath ?? join(folder, "python.log") }), known: new Map() };
    open.process.catch(() => {
      open = undefined;
    });
  }
  const { process: starting, known } = open;
  const python = await starting;
  const ask = async (fn: string, request: Readonly<Record<string, unknown>>): Promise<unknown> => {
    const reply = (await python.call(host, fn, request)) as Reply;
    if (!reply.ok) throw new PythonRaised(reply.error);
    return reply.value;
  };
  return {
    load: async (file, name, files) =>
      (await ask("load", { file, name, files, parent: process.pid })) as Readonly<Record<string, string>>,
    call: (request) => ask("answer", request),
    ask,
    know: async (items) => {
      const earlier = known.get(items);
      if (earlier !== undefined) return earlier;
      const number = known.size;
      const path = join(folder as string, `items-${number}.json`);
      writeFileSync(path, JSON.stringify(items));
      await ask("know", { number, path });
      rmSync(path);
      known.set(items, number);
      return number;
    },
  };
}

/** Releases Python if a user's module was using it. Never throws. */
export async function closePlugins(): Promise<void> {
  const held = open;
  open = undefined;
  if (held !== undefined) await (await held.process.catch(() => undefined))?.exit();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  folder = undefined;
}
