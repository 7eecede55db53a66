import { defineConfig } from "vitest/config";
import { compileCache } from "./test/support/compile-cache.ts";
import { keepTemporaryFilesInMemory } from "./test/support/memory-folder.ts";

keepTemporaryFilesInMemory();

/** Read by workers and by every program that they start. */
const env = { NODE_COMPILE_CACHE: compileCache };

/**
 * Half of the time they wait: for leases, retries and hosts. Each file has its own processes, ports and folders. In
 * one group, end to end first, so that nobody waits for the last of a kind.
 */
const together = { maxWorkers: 3, sequence: { groupOrder: 1 } };

/** What starts the whole system. */
const wholeSystem = {
  env,
  globalSetup: ["test/support/postgres.global.ts", "test/support/built-programs.global.ts"],
  testTimeout: 180_000,
  hookTimeout: 120_000,
  ...together,
};

/**
 * Projects by what a test needs: `unit` needs nothing, `integration` a real PostgreSQL or broker or spawned `pct`, `e2e`
 * the whole system, and `chaos`, which `npm run chaos` runs, minutes: it kills and cuts off at every moment that there
 * is. The suffix of the file says which.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["{shared,control-plane,node-agent,test,tools}/**/*.test.ts"],
          exclude: ["**/node_modules/**", "**/*.{integration,chaos}.test.ts"],
          // Importing everything anew for each file was two thirds of the work. No unit test replaces a module.
          isolate: false,
          // Counted in seconds on the clock, which on a busy machine says little about the test.
          testTimeout: 30_000,
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: "integration",
          include: ["{shared,control-plane,node-agent,test,tools}/**/*.integration.test.ts"],
          exclude: ["**/node_modules/**"],
          env,
          globalSetup: ["test/support/postgres.global.ts"],
          // Retention makes and drops months of partitions; a busy machine takes a minute for it.
          testTimeout: 120_000,
          hookTimeout: 60_000,
          // As above.
          isolate: false,
          ...together,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.e2e.ts"],
          exclude: ["**/node_modules/**"],
          ...wholeSystem,
        },
      },
      {
        test: {
          name: "chaos",
          include: ["test/chaos/**/*.chaos.ts", "{control-plane,node-agent}/**/*.chaos.test.ts"],
          exclude: ["**/node_modules/**"],
          ...wholeSystem,
        },
      },
    ],
  },
});
