/** Branded identifiers: a user id can never be passed where an item id belongs. */
declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]: B };

/** The caller's own item id, as in the data. Never shown to a model. */
export type ItemId = Brand<string, "ItemId">;
/** The caller's own user id, as in the data. Never shown to a model. */
export type UserId = Brand<string, "UserId">;

export const itemId = (s: string): ItemId => s as ItemId;
export const userId = (s: string): UserId => s as UserId;
