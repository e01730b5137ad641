/**
 * `npm run imports [-- FOLDER...]`: who imports whom within these folders (src/stages and python_worker/gr2_worker by
 * default), folder by folder, including types; `*` marks imports of types only. Exits with 1 if there is a cycle.
 */
import { dirname } from "node:path";
import { repositoryRoot } from "../src/core/paths.ts";
import { findCycles, type Import, listSources, readImports } from "../src/run/imports.ts";

const named = process.argv.slice(2).map((folder) => folder.replace(/\/+$/, ""));
const folders = named.length > 0 ? named : ["src/stages", "python_worker/gr2_worker"];
for (const folder of folders) printFolder(folder);

function printFolder(folder: string): void {
  const files = listSources(folder, repositoryRoot).filter((path) => !path.endsWith("__init__.py"));
  const within = new Set(files);
  const graph = new Map(
    files.map((file): [string, Import[]] => [
      file,
      readImports(file, repositoryRoot).filter(({ path }) => path !== undefined && within.has(path)),
    ]),
  );
  const name = (path: string | undefined): string => (path ?? "").slice(folder.length + 1);
  const room = (path: string): string => dirname(name(path));
  console.log(`${folder}: ${files.length} files, ${[...graph.values()].flat().length} imports among them`);
  for (const place of [...new Set(files.map(room))].sort()) {
    const own = files.filter((file) => room(file) === place);
    console.log(`\n  ${place === "." ? folder : `${folder}/${place}`} (${own.length} files)`);
    for (const file of own) {
      const targets = (graph.get(file) ?? []).map((i) => `${name(i.path)}${i.onlyTypes ? "*" : ""}`).sort();
      console.log(`    ${name(file)}${targets.length > 0 ? ` -> ${targets.join(", ")}` : ""}`);
    }
  }
  const cycles = findCycles(new Map([...graph].map(([file, found]) => [file, found.flatMap((i) => i.path ?? [])])));
  console.log(cycles.length > 0 ? `\n  cycles:\n${cycles.map((c) => `    ${c}`).join("\n")}\n` : "\n  no cycles\n");
  if (cycles.length > 0) process.exitCode = 1;
}
