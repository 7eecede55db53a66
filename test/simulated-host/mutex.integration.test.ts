import { spawn } from "node:child_process";
import { join } from "node:path";
import { setImmediate as yieldToEvents } from "node:timers/promises";
import { expect, test } from "vitest";
import { acquireMutex, withMutex } from "./mutex.ts";
import { testFolder } from "./test-host.ts";

async function countTogether(guard: (work: () => Promise<void>) => Promise<void>): Promise<number> {
  let count = 0;
  const add = async (): Promise<void> => {
    const before = count;
    await yieldToEvents();
    count = before + 1;
  };
  await Promise.all(Array.from({ length: 10 }, () => guard(add)));
  return count;
}

test("work under a mutex is never interleaved; without it updates are lost", async () => {
  const scope = testFolder();
  expect(await countTogether((work) => withMutex(scope, "count", work))).toBe(10);
  expect(await countTogether((work) => work())).toBeLessThan(10);
});

test("a mutex ends with the process that holds it", async () => {
  const scope = testFolder();
  const code = `
    const { acquireMutex } = await import(${JSON.stringify(join(import.meta.dirname, "mutex.ts"))});
    await acquireMutex(${JSON.stringify(scope)}, "held", 0);
    console.log("held");
    setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ["--input-type=module", "-e", code]);
  await new Promise((resolve) => holder.stdout.once("data", resolve));
  let waits = 0;
  expect(await acquireMutex(scope, "held", 20, () => (waits += 1))).toBeUndefined();
  expect(waits).toBe(1);
  expect(await acquireMutex(scope, "other", 0)).toBeDefined();
  holder.kill("SIGKILL");
  const release = await acquireMutex(scope, "held", 60_000);
  expect(release).toBeDefined();
  await release?.();
});
