/**
 * Parses a Python literal (dict, list, tuple, str, number, True, False, None) without evaluating anything.
 * Amazon 2014 metadata is written this way. Throws SyntaxError with the column.
 */
export function parsePythonLiteral(text: string): unknown {
  let at = 0;

  const fail = (what: string): never => {
    throw new SyntaxError(`${what} at column ${at + 1}`);
  };
  const space = (): void => {
    while (at < text.length && " \t\r\n".includes(text[at] ?? "")) at++;
  };

  function value(depth: number): unknown {
    if (depth > 50) fail("nested too deeply");
    space();
    const ch = text[at];
    if (ch === "{") return dict(depth);
    if (ch === "[") return list("]", depth);
    if (ch === "(") return list(")", depth);
    if (ch === "'" || ch === '"') return string();
    if ((ch === "u" || ch === "b" || ch === "r") && /['"]/.test(text[at + 1] ?? "")) {
      at++;
      return string();
    }
    const word = /[-+\w.]+/y;
    word.lastIndex = at;
    const token = word.exec(text)?.[0] ?? fail("unexpected character");
    at += token.length;
    if (token === "True") return true;
    if (token === "False") return false;
    if (token === "None" || token === "nan") return null;
    const exact = exactInteger(token);
    if (exact !== undefined) return exact;
    const number = Number(token);
    return Number.isNaN(number) ? fail(`unknown name ${token}`) : number;
  }

  function list(close: string, depth: number): unknown[] {
    const items: unknown[] = [];
    at++;
    for (;;) {
      space();
      if (text[at] === close) {
        at++;
        return items;
      }
      items.push(value(depth + 1));
      space();
      if (text[at] === ",") at++;
      else if (text[at] !== close) fail(`expected , or ${close}`);
    }
  }

  function dict(depth: number): Record<string, unknown> {
    const entries: [string, unknown][] = [];
    at++;
    for (;;) {
      space();
      if (text[at] === "}") {
        at++;
        return Object.fromEntries(entries);
      }
      const key = value(depth + 1);
      space();
      if (text[at] !== ":") fail("expected :");
      at++;
      entries.push([String(key), value(depth + 1)]);
      space();
      if (text[at] === ",") at++;
      else if (text[at] !== "}") fail("expected , or }");
    }
  }

  function string(): string {
    const quote = text[at];
    let out = "";
    for (at++; at < text.length; at++) {
      const ch = text[at];
      if (ch === quote) {
        at++;
        return out;
      }
      out += ch === "\\" ? escaped() : ch;
    }
    return fail("unterminated string");
  }

  function escaped(): string {
    at++;
    const ch = text[at] ?? fail("unterminated string");
    const simple = { n: "\n", t: "\t", r: "\r", "\\": "\\", "'": "'", '"': '"', "0": "\0" }[ch];
    if (simple !== undefined) return simple;
    const digits = ch === "x" ? 2 : ch === "u" ? 4 : ch === "U" ? 8 : 0;
    if (digits === 0) return `\\${ch}`;
    const code = text.slice(at + 1, at + 1 + digits);
    if (!/^[0-9a-fA-F]+$/.test(code) || code.length !== digits) fail("bad escape");
    at += digits;
    return String.fromCodePoint(Number.parseInt(code, 16));
  }

  const result = value(0);
  space();
  if (at < text.length) fail("text after the literal");
  return result;
}

/** The digits of a whole number, such as 9100000000000003.0, that a double cannot hold; undefined for any other. */
export function exactInteger(token: string): string | undefined {
  const digits = /^(-?\d{16,})(\.0+)?$/.exec(token)?.[1];
  return digits === undefined || Number.isSafeInteger(Number(digits)) ? undefined : digits;
}
