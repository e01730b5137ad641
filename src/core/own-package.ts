/** What this package's own package.json says. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "./paths.ts";

export interface OwnPackage {
  readonly version: string;
  readonly engines: Readonly<Record<string, string>>;
  /** Pinned versions by name. */
  readonly dependencies: Readonly<Record<string, string>>;
}

export const readOwnPackage = (): OwnPackage =>
  JSON.parse(readFileSync(join(repositoryRoot, "package.json"), "utf8")) as OwnPackage;
