import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { exitOf, processesAbout, signal } from "../support/processes.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cloudpods-fleet-test-"));
});
afterEach(async () => {
  const left = await processesAbout(folder);
  for (const { pid } of left) signal(pid, "SIGKILL");
  await rm(folder, { recursive: true, force: true });
  expect(left).toEqual([]);
});

test("a host is drained while the agent of a pod's new host is killed: nothing is lost, and nothing runs twice", async () => {
  const argv = ["run", "--silent", "demo:fleet", "--", "--pods", "8", "--speed", "2", "--kill", "agent"];
  const child = spawn("npm", argv, {
    cwd: join(import.meta.dirname, "../.."),
    // Its own folder for temporary files tells whose processes are left, and whether a folder is.
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  expect(await exitOf(child), output).toBe(0);
  const report: unknown = JSON.parse(output.trim().split("\n").at(-1) ?? "");
  expect(report).toMatchObject({
    ok: true,
    hosts: 5,
    pods: 8,
    killedOfflineAfterMs: null,
    downtimeP50Ms: expect.any(Number),
    downtimeMaxMs: expect.any(Number),
    samplesLost: 0,
    samplesDuplicated: 0,
    doubleRunSeconds: 0,
    oversell: 0,
    orphans: 0,
    reasons: [],
  });
  expect(report).not.toMatchObject({ podsMoved: 0 });
  expect((await readdir(folder)).filter((name) => name.startsWith("cloudpods-fleet-"))).toEqual([]);
});
