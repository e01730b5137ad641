/** The report in a real browser: it renders, and asks nobody for anything. */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { writeReport } from "../../src/report/report.ts";
import { fixtureRun } from "../unit/report/fixture.ts";

const run = promisify(execFile);

/** CHROMIUM, or the first of the usual names on PATH. */
function findChromium(): string | undefined {
  const names = [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  return names.find((name) => name !== undefined && spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0);
}

const chromium = findChromium();
if (!chromium) console.warn("no chromium: the report is not looked at in a browser (install one, or set CHROMIUM)");

const flags = (profile: string) => [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--disable-default-apps",
  "--hide-scrollbars",
  `--user-data-dir=${profile}`,
];

describe.runIf(chromium)("report.html in headless Chromium", () => {
  const profile = () => mkdtempSync(join(tmpdir(), "gr2-chromium-"));

  it("renders to a picture of some substance, without a script error", async () => {
    const page = await writeReport(fixtureRun());
    const png = join(profile(), "page.png");
    const args = [
      ...flags(profile()),
      "--window-size=1200,3000",
      "--enable-logging=stderr",
      `--screenshot=${png}`,
      `file://${page}`,
    ];
    const { stderr } = await run(chromium as string, args, { timeout: 60_000 });
    expect(stderr).not.toMatch(/CONSOLE.*(error|refused)/i);
    expect(existsSync(png)).toBe(true);
    expect(readFileSync(png).subarray(1, 4).toString()).toBe("PNG");
    expect(statSync(png).size).toBeGreaterThan(100_000);
  });

  it("loads with nothing but the page itself, and shows what it says", async () => {
    const page = readFileSync(await writeReport(fixtureRun()));
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? "");
      response.setHeader("content-type", "text/html; charset=utf-8").end(page);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/report.html`;
      const args = [...flags(profile()), "--dump-dom", url];
      const { stdout } = await run(chromium as string, args, { timeout: 60_000, maxBuffer: 2 ** 26 });
      expect(asked.filter((path) => path !== "/favicon.ico")).toEqual(["/report.html"]);
      expect(stdout).toContain("over your ranker");
      expect(stdout.match(/<svg/g)?.length).toBe(page.toString().match(/<svg/g)?.length);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it.each([400, 1280])("cuts nothing off at %i pixels, and N@5 with its difference is in view", async (width) => {
    const page = readFileSync(await writeReport(fixtureRun()));
    const server = createServer((request, response) => {
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.end(request.url === "/report.html" ? page : measuring(width));
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      const args = [...flags(profile()), "--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom", url];
      const { stdout } = await run(chromium as string, args, { timeout: 60_000, maxBuffer: 2 ** 26 });
      const found = JSON.parse(/<pre id="found">(.*?)<\/pre>/s.exec(stdout)?.[1] ?? "{}");
      expect(found).toEqual({ overflow: 0, cut: [], outOfView: [] });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

/** A page that frames the report and says what in it is wider than the frame, or than the picture it belongs to. */
const measuring = (width: number): string => `<!doctype html><pre id="found"></pre>
<iframe src="/report.html" style="border:0;width:${width}px;height:1000px"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument;
  const cut = [...page.querySelectorAll("svg")].flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")]
      .filter((t) => {
        const r = t.getBoundingClientRect();
        return t.textContent.includes("…") || r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1;
      })
      .map((t) => svg.getAttribute("aria-label") + ": " + t.textContent);
  });
  const outOfView = [...page.querySelectorAll("table.results tbody tr")]
    .flatMap((row) => [...row.children].slice(0, 3))
    .filter((cell) => cell.getBoundingClientRect().right > ${width})
    .map((cell) => cell.textContent);
  const overflow = Math.max(0, page.documentElement.scrollWidth - ${width});
  document.getElementById("found").textContent = JSON.stringify({ overflow, cut, outOfView });
};
</script>`;
