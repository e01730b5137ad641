/** The name of a user's module in slates, tables and messages. */

/** The name of its file, in letters, digits, - and _: "/home/me/my.lgbm.py:fit" → "my-lgbm". */
export const nameModule = (module: string): string =>
  (/([^/]+?)(?:\.[^./:]+)?(?::\w+)?$/.exec(module)?.[1] ?? "module").replaceAll(/[^A-Za-z0-9_-]/g, "-");
