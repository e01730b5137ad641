/** HTML templates with escaping. Item titles and model outputs are untrusted; nothing reaches the page unescaped. */

/** Markup that is safe to insert as is; made only by `html`, and by `raw` for markup generated in this folder. */
export interface Html {
  readonly markup: string;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text for element content and quoted attributes. Control and direction-changing characters become visible dots. */
export const escapeHtml = (text: string): string =>
  text
    .replace(/[^\P{Cc}\n\t]|[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffd]/gu, "·")
    .replace(/[&<>"']/g, (c) => entities[c] as string);

export const raw = (markup: string): Html => ({ markup });

type Value = string | number | Html | false | undefined | readonly Value[];

const render = (value: Value): string => {
  if (value === false || value === undefined) return "";
  if (typeof value === "string") return escapeHtml(value);
  if (typeof value === "number") return String(value);
  if (isList(value)) return value.map(render).join("");
  return value.markup;
};

const isList = (value: Value): value is readonly Value[] => Array.isArray(value);

/** A template whose inserted strings are escaped. */
export const html = (parts: TemplateStringsArray, ...values: readonly Value[]): Html =>
  raw(parts.map((part, i) => part + (i < values.length ? render(values[i]) : "")).join(""));
