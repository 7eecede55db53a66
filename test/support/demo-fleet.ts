import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { exitOf, processesAbout, signal } from "./processes.ts";

/** What the fleet's story promises of every run, whatever dies in it. */
const promises = {
  ok: true,
  hosts: 5,
  downtimeP50Ms: expect.any(Number),
  downtimeMaxMs: expect.any(Number),
  samplesLost: 0,
  samplesDuplicated: 0,
  doubleRunSeconds: 0,
  oversell: 0,
  orphans: 0,
  reasons: [],
};

/**
 * Runs `npm run demo:fleet` to its end and gives the figures of its last line, which keep all promises. No process
 * and no folder of it is left.
 */
export async function playFleet(...options: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
  // Its own folder for temporary files tells whose processes are left, and whether a folder is.
  const folder = await mkdtemp(join(tmpdir(), "cloudpods-fleet-test-"));
  try {
    const child = spawn("npm", ["run", "--silent", "demo:fleet", "--", ...options], {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, TMPDIR: folder },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (output += text));
    expect(await exitOf(child), output).toBe(0);
    const report = JSON.parse(output.trim().split("\n").at(-1) ?? "");
    expect(report).toMatchObject(promises);
    expect((await readdir(folder)).filter((name) => name.startsWith("cloudpods-fleet-"))).toEqual([]);
    return report;
  } finally {
    const left = await processesAbout(folder);
    for (const { pid } of left) signal(pid, "SIGKILL");
    await rm(folder, { recursive: true, force: true });
    expect(left).toEqual([]);
  }
}
