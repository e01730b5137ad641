/**
 * The try-it page: one self-contained document without external resources. All content is inserted as text, and its
 * policy lets the browser run and load only what is in this file. The token stays in the page's memory.
 */
import { createHash } from "node:crypto";

const style = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
label { display: block; font-weight: 600; }
textarea, input, select { width: 100%; box-sizing: border-box; font: inherit; font-weight: 400; padding: .4rem; }
textarea { height: 11rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: end; margin: 1rem 0; }
.row label { flex: 1 1 8rem; }
button { font: inherit; padding: .45rem 1.4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #8885; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.note { color: #b50; }
#thought { white-space: pre-wrap; border-left: 3px solid #8888; padding-left: .8rem; }
pre { overflow: auto; background: #8882; padding: .7rem; }
`;

const script = `
const $ = (id) => document.getElementById(id);
const lines = (id) => $(id).value.split("\\n").map((l) => l.trim()).filter(Boolean);
const reference = (line) => (line.startsWith("id:") ? { item_id: line.slice(3).trim() } : { text: line });
const body = () => ({
  history: lines("history").map(reference),
  candidates: lines("candidates").map((line, i) => ({ id: String(i + 1), ...reference(line) })),
  mode: $("mode").value,
  deadline_ms: Number($("deadline").value) || 0,
  stream: $("mode").value === "think",
});
const say = (text) => { $("status").textContent = text; };
function show(answer) {
  const given = lines("candidates");
  $("rows").replaceChildren(...answer.ranking.map(({ place, score }, i) => {
    const row = document.createElement("tr");
    for (const [text, number] of [[i + 1, 1], [place + 1, 1], [given[place], 0], [score.toFixed(4), 1]]) {
      const cell = document.createElement("td");
      if (number) cell.className = "n";
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));
  $("fallback").textContent = answer.fallback ? "Your own order was returned: " + answer.fallback : "";
  $("thought").textContent = answer.thought;
  const t = answer.timings_ms;
  say(["total", "queue", "encode", "model"].map((k) => k + " " + t[k].toFixed(1) + " ms").join(" · "));
}
function event(block) {
  const name = /^event: (.*)$/m.exec(block)?.[1];
  const data = JSON.parse(/^data: (.*)$/m.exec(block)?.[1] ?? "null");
  if (name === "thought") $("thought").textContent += data.text;
  if (name === "answer") show(data);
  if (name === "error") say(data.error.message);
}
async function rank() {
  $("thought").textContent = ""; $("fallback").textContent = ""; $("rows").replaceChildren(); say("…");
  const headers = { "content-type": "application/json" };
  if ($("token").value) headers.authorization = "Bearer " + $("token").value;
  const request = body();
  try {
    const response = await fetch("gr2/v1/rerank", { method: "POST", headers, body: JSON.stringify(request) });
    if (!response.ok) return say(response.status + ": " + (await response.json()).error.message);
    if (!request.stream) return show(await response.json());
    let text = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text += part.value;
      const blocks = text.split("\\n\\n");
      text = blocks.pop();
      blocks.forEach(event);
    }
  } catch (e) { say(String(e)); }
}
function curl() {
  const auth = $("token").value ? " -H 'Authorization: Bearer TOKEN'" : "";
  const data = JSON.stringify({ ...body(), stream: false }).replaceAll("'", "'\\\\''");
  $("curl").textContent = "curl -s " + new URL("gr2/v1/rerank", location.href) + auth + " -H 'Content-Type: application/json' -d '" + data + "'";
}
$("rank").addEventListener("click", rank);
document.addEventListener("input", curl);
curl();
`;

export const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>GR2 re-ranker</title>
<style>${style}</style>
</head>
<body>
<h1>GR2 re-ranker</h1>
<p>One item per line: its text, or <code>id:</code> and the id of an item the model knows. <a href="openapi.json">OpenAPI</a></p>
<main>
<label>History, oldest first<textarea id="history" spellcheck="false">Toy Story (1995)
GoldenEye (1995)</textarea></label>
<label>Candidates, in your ranker's order<textarea id="candidates" spellcheck="false">Heat (1995)
Sabrina (1995)
Tomorrow Never Dies (1997)</textarea></label>
</main>
<div class="row">
<label>Mode<select id="mode"><option>direct</option><option>think</option></select></label>
<label>Deadline, ms (0 = default)<input id="deadline" type="number" min="0" value="0"></label>
<label>Token, if one is needed<input id="token" type="password" autocomplete="off"></label>
<button id="rank">Re-rank</button>
</div>
<p id="status" role="status"></p>
<p id="fallback" class="note"></p>
<table><thead><tr><th class="n">position</th><th class="n">was</th><th>candidate</th><th class="n">score</th></tr></thead><tbody id="rows"></tbody></table>
<p id="thought"></p>
<pre id="curl"></pre>
<script>${script}</script>
</body>
</html>
`;

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

export const pagePolicy: Readonly<Record<string, string>> = {
  "content-security-policy": [
    "default-src 'none'",
    `style-src ${hash(style)}`,
    `script-src ${hash(script)}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "referrer-policy": "no-referrer",
};
