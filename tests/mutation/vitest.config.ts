/** The unit tests that mutants of src/reward, src/rl and src/prompts have to survive. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/unit/{reward,rl,prompts,teacher}/**/*.test.ts"],
    // Thousands of random answers a test: minutes a mutant, and other tests kill the same ones.
    exclude: ["tests/unit/reward/hostile.test.ts"],
    testTimeout: 300_000,
    pool: "forks",
    maxWorkers: 1,
  },
});
