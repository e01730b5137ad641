/** `gr2 init`: a new project from templates/project, with a package.json that names this installation's version. */
import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { ConfigError } from "../core/errors.ts";
import { readOwnPackage } from "../core/own-package.ts";
import { repositoryRoot } from "../core/paths.ts";

const template = join(repositoryRoot, "templates", "project");

/** Writes the project; returns a summary and the next steps. Throws ConfigError if the folder is not empty. */
export function initProject(name: string): string {
  const folder = resolve(name);
  if (existsSync(folder) && readdirSync(folder).length > 0)
    throw new ConfigError(`${name} already exists and is not empty`, { advice: "Choose another name." });
  mkdirSync(folder, { recursive: true });
  cpSync(template, folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(describePackage(basename(folder)), null, 2)}\n`);
  writeFileSync(join(folder, ".gitignore"), "node_modules\n.venv\n/runs/\n/data/\n");
  const files = readdirSync(folder).sort().join(", ");
  return (
    `${name} contains ${files}.\n\n` +
    `Next: cd ${name} && npm install && npm test && npx gr2 pipeline -c recipe.yaml --run first`
  );
}

function describePackage(name: string): Record<string, unknown> {
  const { version, engines, dependencies } = readOwnPackage();
  return {
    name: name.toLowerCase().replaceAll(/[^a-z0-9._-]/g, "-"),
    private: true,
    type: "module",
    engines,
    scripts: { test: "node --import tsx --test reward.test.ts pre-ranker.test.ts" },
    // The package this was created with: a folder; a tarball from `npm pack` works too.
    dependencies: { gr2: `file:${repositoryRoot}`, tsx: dependencies.tsx },
    description: `A GR2 ${version} project.`,
  };
}
