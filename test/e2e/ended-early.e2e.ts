import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compileCache } from "../support/compile-cache.ts";
import { freePort } from "../support/free-port.ts";
import { exitOf, processesAbout, signal } from "../support/processes.ts";
import { until } from "../support/until.ts";

const project = join(import.meta.dirname, "../..");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cloudpods-early-"));
  await chmod(folder, 0o711);
});
afterEach(async () => {
  for (const { pid } of await processesAbout(folder)) signal(pid, "SIGKILL");
  await rm(folder, { recursive: true, force: true });
});

async function startDemo(): Promise<ChildProcess> {
  const options = ["--keep", join(folder, "demo"), "--hosts", "1", "--port", String(await freePort())];
  return spawn(process.execPath, [join(project, "tools/demo/main.ts"), ...options], { stdio: "ignore" });
}

async function startServer(): Promise<ChildProcess> {
  const [http, gateway, broker] = await Promise.all([freePort(), freePort(), freePort()]);
  return spawn(process.execPath, [join(project, "control-plane/bin/cloudpods.mjs"), "serve"], {
    stdio: "ignore",
    env: {
      PATH: process.env["PATH"],
      NODE_COMPILE_CACHE: compileCache,
      CLOUDPODS_DATA_DIR: join(folder, "data"),
      CLOUDPODS_HTTP_PORT: String(http),
      CLOUDPODS_GATEWAY_PORT: String(gateway),
      CLOUDPODS_BROKER_PORT: String(broker),
    },
  });
}

// What has been started when the program is told to end; only the program itself is told.
test.each([
  ["the demo", startDemo, ["/postgres", "/cloudpods-agent"]],
  ["the control plane", startServer, ["/initdb"]],
] as const)("%s that is ended while it starts leaves nothing behind", async (_, start, early) => {
  for (const moment of early) {
    const child = await start();
    await until(
      `a process of ${moment}`,
      async () =>
        (await processesAbout(folder)).some(({ commandLine }) => commandLine.some((word) => word.endsWith(moment))),
      60_000,
    );
    child.kill("SIGTERM");
    expect(await exitOf(child), moment).toBe(0);
    expect(await processesAbout(folder), moment).toEqual([]);
    await rm(folder, { recursive: true, force: true });
  }
});
