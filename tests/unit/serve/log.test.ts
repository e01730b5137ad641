/** The service's log where it cannot be written: lines are lost, nothing else is. */

import { Writable } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, it } from "vitest";
import { lineWriter } from "../../../src/cli/serve.ts";

it("continues when the disk is full", async () => {
  let tried = 0;
  const disk = new Writable({
    autoDestroy: false,
    write(_chunk, _encoding, done) {
      tried++;
      done(Object.assign(new Error("no space left on device"), { code: "ENOSPC" }));
    },
  });
  const write = lineWriter(disk); // without it, "error" without a listener ends the process
  for (const line of ["one", "two"]) {
    write(line);
    await turn();
  }
  expect(tried).toBeGreaterThan(0);
  const throwing = { on: () => throwing, write: () => expect.fail("no space") } as unknown as NodeJS.WritableStream;
  expect(() => lineWriter(throwing)("three")).not.toThrow();
});
