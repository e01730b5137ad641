/**
 * The endpoint's key: read from the environment variable that the configuration names, held in memory, sent in one
 * header, and redacted from everything that could be shown or stored.
 */
import { EnvironmentError } from "../core/errors.ts";

export class Secret {
  private readonly value: string;

  private constructor(value: string) {
    this.value = value;
  }

  /** @param name of the variable; "" = the endpoint needs no key. Throws EnvironmentError if it is not set. */
  static fromEnvironment(name: string, environment: NodeJS.ProcessEnv = process.env): Secret {
    if (name === "") return new Secret("");
    const value = environment[name]?.trim() ?? "";
    if (value === "")
      throw new EnvironmentError(`the environment variable ${name}, which should hold the endpoint's key, is not set`, {
        advice: `Export ${name}, or clear teacher.endpoint.apiKeyEnv if the server needs no key.`,
      });
    return new Secret(value);
  }

  headers(): Readonly<Record<string, string>> {
    return this.value === "" ? {} : { authorization: `Bearer ${this.value}` };
  }

  /** The text without the key and without any bearer token that a server echoes. */
  redact(text: string): string {
    const hidden = this.value === "" ? text : text.replaceAll(this.value, "[key]");
    return hidden.replace(/Bearer\s+[^\s"',}]+/gi, "Bearer [key]");
  }

  toJSON(): string {
    return "[key]";
  }
}
