/** What a module's default export is given, where it is a function. */

export interface PluginSetup {
  /** As the recipe has them. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Of the run: everything random derives from it. */
  readonly seed: number;
}

/** A value, or a function that makes one of the recipe's options. */
export type Plugin<T> = T | ((setup: PluginSetup) => T | Promise<T>);
