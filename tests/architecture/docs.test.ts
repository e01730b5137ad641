/** The documents a reader opens: prose lines no longer than 120 characters, relative links that lead somewhere. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../src/core/paths.ts";

const longest = 120;
const documents = ["README.md", "CONTRIBUTING.md", "bench/README.md", ...list("docs")];

describe.each(documents)("%s", (name) => {
  const text = readFileSync(join(repositoryRoot, name), "utf8");

  it(`has no prose line over ${longest} characters (tables, code and addresses excepted)`, () => {
    expect(longLines(text)).toEqual([]);
  });

  it("links to files and headings that exist", () => {
    expect(brokenLinks(name, text)).toEqual([]);
  });
});

describe("CONTRIBUTING.md", () => {
  it("routes to files that exist", () => {
    const text = readFileSync(join(repositoryRoot, "CONTRIBUTING.md"), "utf8");
    expect(missingFiles(text)).toEqual([]);
  });
});

describe("the checks themselves", () => {
  const long = "x".repeat(longest + 1);

  it("find a long line, and leave out tables, code and addresses", () => {
    expect(longLines(`a\n${long}`)).toEqual([`2: ${long}`]);
    expect(longLines(`- ${"y".repeat(longest - 1)}`)).toHaveLength(1);
    expect(
      longLines(`${"y".repeat(longest)}\n| ${long} |\n\`\`\`sh\n${long}\n\`\`\`\n[here](https://${long})`),
    ).toEqual([]);
    expect(longLines(`\`\`\`\ncode\n\`\`\`\n${long}`)).toHaveLength(1);
  });

  it("find a missing file that a table row names", () => {
    expect(missingFiles("| x | `src/data/prepare.ts`; `split.ts`, `nowhere.ts` in `src/rl/` |\n`neither.ts`")).toEqual([
      "src/data/nowhere.ts",
    ]);
    expect(missingFiles("| x | `src/reword/` |")).toEqual(["src/reword/"]);
  });

  it("find a missing file and a missing heading", () => {
    expect(brokenLinks("README.md", "[a](docs/nowhere.md) [b](docs/data.md#nothing) [c](docs/data.md#splits)")).toEqual(
      ["docs/nowhere.md", "docs/data.md#nothing"],
    );
    expect(brokenLinks("README.md", "[a](https://example.org/nowhere) [b](docs/data.md)")).toEqual([]);
  });
});

function list(folder: string): string[] {
  const files = readdirSync(join(repositoryRoot, folder), { recursive: true, encoding: "utf8" });
  return files
    .filter((file) => file.endsWith(".md"))
    .map((file) => `${folder}/${file}`)
    .sort();
}

/** The lines of a document that are not code, with their numbers from 1. */
function proseLines(text: string): { readonly number: number; readonly line: string }[] {
  let code = false;
  return text.split("\n").flatMap((line, i) => {
    const fence = /^\s*(```|~~~)/.test(line);
    if (fence) code = !code;
    return fence || code ? [] : [{ number: i + 1, line }];
  });
}

function longLines(text: string): string[] {
  return proseLines(text)
    .filter(({ line }) => !line.trimStart().startsWith("|") && line.replace(/\]\([^)]*\)/g, "]").length > longest)
    .map(({ number, line }) => `${number}: ${line}`);
}

/** In the rows of tables: a name without a folder is in the folder named before it. */
function missingFiles(text: string): string[] {
  return proseLines(text)
    .filter(({ line }) => line.startsWith("|"))
    .flatMap(({ line }) => {
      let folder = "";
      return [...line.matchAll(/`((?:[\w.-]+\/)+[\w.-]*|[\w.-]+\.(?:ts|py|md))`/g)].flatMap((m) => {
        const name = m[1] ?? "";
        const path = name.includes("/") ? name : join(folder, name);
        if (name.includes("/")) folder = dirname(`${name}.`);
        return existsSync(join(repositoryRoot, path)) ? [] : [path];
      });
    });
}

/** As GitHub makes anchors: lower case, spaces to dashes, everything else but letters, digits, `-` and `_` gone. */
const toAnchor = (heading: string): string =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .replace(/\s/g, "-");

function brokenLinks(name: string, text: string): string[] {
  const links = proseLines(text).flatMap(({ line }) => [...line.matchAll(/\]\(([^)\s]+)\)/g)].map((m) => m[1] ?? ""));
  return links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [path = "", anchor] = link.split("#");
    const file = path === "" ? join(repositoryRoot, name) : resolve(repositoryRoot, dirname(name), path);
    if (!existsSync(file)) return true;
    if (anchor === undefined) return false;
    const headings = proseLines(readFileSync(file, "utf8")).flatMap(({ line }) => line.match(/^#+\s(.*)$/)?.[1] ?? []);
    return !headings.map(toAnchor).includes(anchor);
  });
}
