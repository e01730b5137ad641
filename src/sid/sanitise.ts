/**
 * Item text (titles, brands, categories, reviews) is written by strangers and ends up in prompts. This defuses it: no
 * part can be read as a semantic ID, a chat marker or any other special token, however disguised.
 *
 * Owns the rewriting of external text; our own prompts never pass through here. Repeats until nothing changes: decode
 * HTML entities, NFKC (full-width `＜` is `<`), drop invisible and control characters, collapse white space; then write
 * `<` `>` as `‹` `›` and `[WORD]` as `(WORD)`, and replace what is left of the given special tokens by a space.
 */

/** Literal strings (blank ones are ignored) or a pattern; case-sensitive unless the pattern says otherwise. */
export type SpecialTokens = RegExp | readonly string[];

/**
 * Text without any special token, entity, control character or doubled white space. Idempotent.
 * No `<` or `>` survives, so joining two neutralised texts cannot create a token written with them either.
 */
export function neutralise(text: string, specialTokens: SpecialTokens): string {
  const pattern = buildPattern(specialTokens);
  let current = text;
  for (;;) {
    const next = defuse(plain(current), pattern);
    // Terminates: every round that changes something removes a visible character or a bracket, or leaves nothing to
    // fold.
    if (next === current) return next;
    current = next;
  }
}

/**
 * Nested entities (`&amp;amp;lt;`) are unwrapped at most this often; then ampersands are dropped, which bounds the cost
 * of hostile text.
 */
const maxUnwraps = 8;

function plain(text: string): string {
  let current = text;
  for (let round = 0; ; round++) {
    const decoded = round < maxUnwraps ? decodeEntities(current) : current.replace(/&/g, " ");
    const next = decoded
      .replace(mixedFraction, "$1 ")
      .normalize("NFKC")
      .replace(lineBreaks, " ")
      .replace(invisible, "")
      .replace(/\s+/g, " ")
      .trim();
    if (next === current) return next;
    current = next;
  }
}

function defuse(text: string, pattern: RegExp | undefined): string {
  const defused = text.replace(/</g, "‹").replace(/>/g, "›").replace(bracketed, "($1)");
  return pattern === undefined ? defused : defused.replace(pattern, (match) => (match === "" ? "" : " "));
}

/** NFKC would write 5½ as 51⁄2. */
const mixedFraction = /(\d)(?=[¼-¾⅐-⅟↉])/g;
/** Control characters that separate words. */
const lineBreaks = /[\t\n\v\f\r\u0085]/g;
/**
 * Controls, format characters (zero-width, bidirectional, tags), variation selectors and fillers, lone surrogates,
 * private use.
 */
const invisible = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Default_Ignorable_Code_Point}]/gu;
/** `[INST]`, `[/INST]`, `[CLS]`, `[TOOL_CALLS]`, `[control_8]`; a title's own `[Discontinued]` loses nothing. */
const bracketed = /\[ ?(\/? ?[A-Za-z_][A-Za-z0-9_]*) ?\]/g;

function buildPattern(specialTokens: SpecialTokens): RegExp | undefined {
  if (specialTokens instanceof RegExp)
    return new RegExp(specialTokens.source, `${specialTokens.flags.replace(/[gy]/g, "")}g`);
  const tokens = specialTokens.filter((token) => token.trim() !== "");
  if (tokens.length === 0) return undefined;
  // Longest first: of two tokens with a common beginning, the longer is removed whole.
  const escaped = [...tokens]
    .sort((a, b) => b.length - a.length)
    .map((t) => t.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
  return new RegExp(escaped.join("|"), "g");
}

const entity = /&(?:#(\d{1,8})|#[xX]([0-9a-fA-F]{1,8})|([A-Za-z][A-Za-z0-9]{1,7}));/g;
/** A run of encoded ampersands, `&amp;amp;#38;`, unwraps at once. */
const ampersands = /&(?:(?:[aA][mM][pP]|#0{0,5}38|#[xX]0{0,5}26);)+/g;

function decodeEntities(text: string): string {
  if (!text.includes("&") && !text.includes("\uff06")) return text;
  return text.replace(ampersands, "&").replace(entity, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name !== undefined) return named.get(name) ?? named.get(name.toLowerCase()) ?? whole;
    const code = decimal !== undefined ? Number.parseInt(decimal, 10) : Number.parseInt(hex as string, 16);
    // Browsers read 128–159 as Windows-1252, which is what their authors meant.
    if (code >= 128 && code < 160) return windows1252.charAt(code - 128);
    return code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? " " : String.fromCodePoint(code);
  });
}

const windows1252 = "€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ";

const named: ReadonlyMap<string, string> = new Map(
  Object.entries({
    amp: "&",
    lt: "<",
    gt: ">",
    quot: '"',
    apos: "'",
    nbsp: " ",
    lbrack: "[",
    lsqb: "[",
    rbrack: "]",
    rsqb: "]",
    vert: "|",
    verbar: "|",
    lowbar: "_",
    num: "#",
    semi: ";",
    colon: ":",
    sol: "/",
    lpar: "(",
    rpar: ")",
    tab: " ",
    newline: " ",
    iexcl: "¡",
    cent: "¢",
    pound: "£",
    yen: "¥",
    sect: "§",
    copy: "©",
    laquo: "«",
    reg: "®",
    deg: "°",
    plusmn: "±",
    sup2: "²",
    sup3: "³",
    acute: "´",
    micro: "µ",
    para: "¶",
    middot: "·",
    sup1: "¹",
    ordm: "º",
    raquo: "»",
    frac14: "¼",
    frac12: "½",
    frac34: "¾",
    iquest: "¿",
    times: "×",
    divide: "÷",
    ndash: "–",
    mdash: "—",
    lsquo: "‘",
    rsquo: "’",
    sbquo: "‚",
    ldquo: "“",
    rdquo: "”",
    bdquo: "„",
    bull: "•",
    hellip: "…",
    prime: "′",
    lsaquo: "‹",
    rsaquo: "›",
    euro: "€",
    trade: "™",
    shy: "",
    zwnj: "",
    zwj: "",
    agrave: "à",
    aacute: "á",
    acirc: "â",
    atilde: "ã",
    auml: "ä",
    aring: "å",
    aelig: "æ",
    ccedil: "ç",
    egrave: "è",
    eacute: "é",
    ecirc: "ê",
    euml: "ë",
    igrave: "ì",
    iacute: "í",
    icirc: "î",
    iuml: "ï",
    ntilde: "ñ",
    ograve: "ò",
    oacute: "ó",
    ocirc: "ô",
    otilde: "õ",
    ouml: "ö",
    oslash: "ø",
    ugrave: "ù",
    uacute: "ú",
    ucirc: "û",
    uuml: "ü",
    yacute: "ý",
    yuml: "ÿ",
    szlig: "ß",
    Agrave: "À",
    Aacute: "Á",
    Acirc: "Â",
    Atilde: "Ã",
    Auml: "Ä",
    Aring: "Å",
    AElig: "Æ",
    Ccedil: "Ç",
    Egrave: "È",
    Eacute: "É",
    Ecirc: "Ê",
    Euml: "Ë",
    Ntilde: "Ñ",
    Oacute: "Ó",
    Ocirc: "Ô",
    Ouml: "Ö",
    Oslash: "Ø",
    Uacute: "Ú",
    Ucirc: "Û",
    Uuml: "Ü",
  }),
);
