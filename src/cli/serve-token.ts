/** `gr2 serve token new NAME`: makes a bearer token, prints it once, and stores its hash. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { type Command, InvalidArgumentError } from "commander";
import { ConfigError } from "../core/errors.ts";
import { newToken, parseTokens } from "../serve/security/tokens.ts";

export interface NewTokenOptions {
  /** Token file to append the line to; created if missing. */
  readonly file?: string | undefined;
  /** Requests per second; undefined: the service's limit. */
  readonly rate?: number | undefined;
}

/** Returns the text to print. The token is alone on the first line. */
export function serveTokenNew(name: string, { file, rate }: NewTokenOptions): string {
  const { token, line } = newToken(name, rate);
  if (file === undefined)
    return (
      `${token}\n\nAdd this line to the file named by serve.security.tokens; ` +
      `the token will not be shown again:\n${line}`
    );
  const before = existsSync(file) ? readFileSync(file, "utf8") : "";
  parseTokens(before, file); // refuses to append to another kind of file
  try {
    appendFileSync(file, `${before === "" || before.endsWith("\n") ? "" : "\n"}${line}\n`, { mode: 0o600 });
  } catch (cause) {
    throw new ConfigError(`${file} cannot be written.`, { cause });
  }
  return `${token}\n\nIts hash is in ${file}; the token will not be shown again.`;
}

function requestsPerSecond(value: string): number {
  const n = Number(value);
  if (value.trim() === "" || !Number.isFinite(n) || n < 0)
    throw new InvalidArgumentError("It must be a number from 0.");
  return n;
}

/** Adds `token new` to `gr2 serve`. */
export function addServeToken(serve: Command, print: (text: string) => void): void {
  serve
    .command("token")
    .description("bearer tokens of the service")
    .command("new <name>")
    .description("create a token: printed once, stored as a hash")
    .option("-f, --file <file>", "append the hash to this token file")
    .option("--rate <n>", "requests per second that this client may send (0 = no limit)", requestsPerSecond)
    .action((name: string, options: NewTokenOptions) => print(serveTokenNew(name, options)));
}
