/** What a module's default export receives if it is a function. */

export interface PluginSetup {
  /** As written in the recipe. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The run's seed: all randomness derives from it. */
  readonly seed: number;
}

/** A value, or a function that makes one from the recipe's options. */
export type Plugin<T> = T | ((setup: PluginSetup) => T | Promise<T>);
