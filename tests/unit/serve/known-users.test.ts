/** Whose history a request has: nothing of a user may be in what judges that user. */
import { describe, expect, it } from "vitest";
import { indexUsers } from "../../../src/serve/model/known-users.ts";
import { makeDataset } from "../synthetic.ts";

const dataset = makeDataset(
  [
    [1, 2, 3, 4],
    [1, 2, 5],
    [1, 2, 3, 9],
    [7, 8],
  ],
  10,
);
const find = indexUsers(dataset);
const timeAt = (user: number, position: number): number => dataset.sequences[user]?.times[position] as number;

describe("a history belongs to", () => {
  it.each([
    [[1, 2, 5], 1, 2],
    [[1, 2, 3, 9], 2, 3],
    [[7], 3, 0],
    [[1, 2, 3], 0, 2], // of users 0 and 2, who have both, the first
  ])("%j: user %i, whose last item was chosen at its own time", (history, user, position) => {
    expect(find(history)).toEqual({ user, time: timeAt(user, position) });
  });

  it("a user who has gone on since, at no known time; of several the one with more in common", () => {
    expect(find([7, 8, 1])).toEqual({ user: 3, time: undefined });
    expect(find([1, 2, 5, 3])).toEqual({ user: 1, time: undefined });
  });

  it.each([[[]], [[2, 3, 4]], [[1, 3]], [[9]]])("%j: nobody", (history) => {
    expect(find(history)).toBeUndefined();
  });
});
