/**
 * Answers stored on disk as they arrive, one JSON line each, keyed by the content of the request. So an interrupted
 * stage resumes where it stopped, and nothing is paid for twice. A line cut short by a kill is skipped and written
 * again.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, truncateSync } from "node:fs";
import { dirname } from "node:path";
import { EnvironmentError } from "../core/errors.ts";
import type { Usage } from "./budget.ts";

export interface KeptAnswer extends Usage {
  /** SHA-256 of the request, its server included. */
  readonly key: string;
  readonly text: string;
  /** It was stopped at max_tokens. */
  readonly cut: boolean;
  /** ISO 8601, when it was given. */
  readonly time: string;
}

export class AnswerLog {
  private readonly path: string;
  private readonly byKey = new Map<string, KeptAnswer>();

  /** Reads existing answers. Throws EnvironmentError if the file cannot be read or created. */
  constructor(path: string) {
    this.path = path;
    try {
      mkdirSync(dirname(path), { recursive: true });
      if (existsSync(path)) this.load(readFileSync(path));
    } catch (cause) {
      throw new EnvironmentError(`${path}: cannot be read (${(cause as Error).message})`, { cause });
    }
  }

  private load(bytes: Buffer): void {
    const whole = bytes.lastIndexOf(0x0a) + 1;
    if (whole < bytes.length) truncateSync(this.path, whole);
    for (const line of bytes.toString("utf8", 0, whole).split("\n")) {
      const answer = read(line);
      if (answer) this.byKey.set(answer.key, answer);
    }
  }

  get size(): number {
    return this.byKey.size;
  }

  get(key: string): KeptAnswer | undefined {
    return this.byKey.get(key);
  }

  /** One write of a whole line; throws EnvironmentError when the disk is full. */
  add(answer: KeptAnswer): void {
    this.byKey.set(answer.key, answer);
    try {
      appendFileSync(this.path, `${JSON.stringify(answer)}\n`);
    } catch (cause) {
      throw new EnvironmentError(`${this.path}: cannot be written (${(cause as Error).message})`, { cause });
    }
  }
}

function read(line: string): KeptAnswer | undefined {
  try {
    const value = JSON.parse(line) as Partial<KeptAnswer>;
    return typeof value.key === "string" && typeof value.text === "string"
      ? ({ cut: false, ...value } as KeptAnswer)
      : undefined;
  } catch {
    return undefined;
  }
}
