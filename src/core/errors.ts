/**
 * The family of errors for faults of the environment: configuration, data, worker, files.
 * A bad model answer is never an error; it is data (see prompts/).
 * Every message is one or two plain sentences: what is wrong, where, and what to do.
 */

export type ErrorCode = "CONFIG" | "DATA" | "WORKER" | "CHECKPOINT" | "RUN" | "ENVIRONMENT" | "INTERRUPTED";

/** Process exit codes by error code; 1 is left for bugs. */
export const exitCodes: Readonly<Record<ErrorCode, number>> = {
  CONFIG: 2,
  DATA: 3,
  WORKER: 4,
  CHECKPOINT: 5,
  RUN: 6,
  ENVIRONMENT: 7,
  INTERRUPTED: 130,
};

export class Gr2Error extends Error {
  readonly code: ErrorCode;
  /** What the reader should do next, if the message does not already say it. */
  readonly advice: string | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; advice?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.advice = options.advice;
  }
}

type Options = { cause?: unknown; advice?: string };

/** A setting is unknown, mistyped or impossible. The message names the path and the value. */
export class ConfigError extends Gr2Error {
  constructor(message: string, options?: Options) {
    super("CONFIG", message, options);
  }
}

/** Input data is missing, corrupt or malformed. The message names the file and, where there is one, the line. */
export class DataError extends Gr2Error {
  constructor(message: string, options?: Options) {
    super("DATA", message, options);
  }
}

/** The Python worker refused, failed or died. */
export class WorkerError extends Gr2Error {
  /** True when the same request may succeed on a healthy worker. */
  readonly retryable: boolean;
  constructor(message: string, options: Options & { retryable: boolean }) {
    super("WORKER", message, options);
    this.retryable = options.retryable;
  }
}

/** A saved artifact is missing, damaged or belongs to other settings. */
export class CheckpointError extends Gr2Error {
  constructor(message: string, options?: Options) {
    super("CHECKPOINT", message, options);
  }
}

/** The run folder is in use, unwritable or inconsistent; or a gate (uniqueness, leakage) stopped the run. */
export class RunError extends Gr2Error {
  constructor(message: string, options?: Options) {
    super("RUN", message, options);
  }
}

/** The machine lacks something: Python, a package, disk space, a port. */
export class EnvironmentError extends Gr2Error {
  constructor(message: string, options?: Options) {
    super("ENVIRONMENT", message, options);
  }
}

/** The user asked to stop (SIGINT, SIGTERM). */
export class InterruptedError extends Gr2Error {
  constructor(message = "interrupted") {
    super("INTERRUPTED", message);
  }
}
