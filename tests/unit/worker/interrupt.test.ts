import { expect, it, vi } from "vitest";
import { handleInterrupts } from "../../../src/worker/interrupt.ts";

it("aborts on the first signal, ignores its echo, and exits at once on the second", () => {
  const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
  const now = vi.spyOn(performance, "now").mockReturnValue(1000);
  const told: string[] = [];
  const { signal, dispose } = handleInterrupts((s) => told.push(s));
  try {
    expect(signal.aborted).toBe(false);
    process.emit("SIGINT", "SIGINT");
    expect(signal.aborted).toBe(true);
    now.mockReturnValue(1030); // passed on by a parent
    process.emit("SIGINT", "SIGINT");
    expect(exit).not.toHaveBeenCalled();
    now.mockReturnValue(2000);
    process.emit("SIGTERM", "SIGTERM");
    expect(exit).toHaveBeenCalledWith(130);
    expect(told).toEqual(["SIGINT"]);
  } finally {
    dispose();
    exit.mockRestore();
    now.mockRestore();
  }
});
