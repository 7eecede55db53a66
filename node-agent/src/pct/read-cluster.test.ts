import { execFileSync } from "node:child_process";
import { constants, closeSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished, expect, test } from "vitest";
import { readCluster, readConfigFile, readStorages, readTemplateArchives } from "./read-cluster.ts";

/** A cluster file system where opening some files hangs, as it does while pmxcfs is stuck: they are FIFOs. */
function clusterFolder(...stuck: string[]): { readonly pveRoot: string; readonly release: () => void } {
  const pveRoot = mkdtempSync(join(tmpdir(), "stuck-cluster-"));
  const fifos = stuck.map((name) => join(pveRoot, name));
  mkdirSync(join(pveRoot, "nodes/pve1/lxc"), { recursive: true });
  symlinkSync("nodes/pve1", join(pveRoot, "local"));
  writeFileSync(join(pveRoot, ".members"), '{"nodename":"pve1","version":1}');
  writeFileSync(join(pveRoot, ".vmlist"), '{"version":1,"ids":{}}');
  writeFileSync(join(pveRoot, "storage.cfg"), "dir: local\n\tpath /nowhere/at/all\n\tcontent vztmpl\n");
  for (const path of fifos) {
    rmSync(path, { force: true });
    execFileSync("mkfifo", [path]);
  }
  const release = (): void => {
    // A FIFO that is open for writing lets its readers in, and closed again it is an empty file.
    for (const path of fifos.splice(0)) closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
  };
  onTestFinished(() => {
    release();
    rmSync(pveRoot, { recursive: true });
  });
  return { pveRoot, release };
}

test("a stuck cluster file system takes one thread, and answers again when it does", async () => {
  const configs = ["100", "101", "102", "103", "104", "105"].map((vmid) => `nodes/pve1/lxc/${vmid}.conf`);
  const { pveRoot, release } = clusterFolder(".members", "storage.cfg", ...configs);
  const reads = [
    readCluster(pveRoot),
    readStorages(pveRoot, "pve1"),
    ...[100, 101, 102, 103, 104, 105].map((vmid) => readConfigFile(pveRoot, "pve1", vmid)),
  ];
  const outcomes = await Promise.allSettled(reads);
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", ...Array.from({ length: 7 }, () => "rejected")]);
  // Everything else of the agent goes on, name resolution and metering included.
  const startMs = performance.now();
  await Promise.all(Array.from({ length: 20 }, () => readFile("/proc/self/stat", "utf8")));
  expect(await readCluster(pveRoot)).toBeUndefined();
  await expect(readConfigFile(pveRoot, "pve1", 100)).rejects.toThrow("does not answer");
  expect(performance.now() - startMs).toBeLessThan(1_000);
  release();
  for (const name of [".members", "storage.cfg"]) rmSync(join(pveRoot, name));
  writeFileSync(join(pveRoot, ".members"), '{"nodename":"pve1","version":1}');
  await expect.poll(() => readCluster(pveRoot), { timeout: 20_000 }).toMatchObject({ nodeName: "pve1", quorate: true });
}, 30_000);

test("an empty directory where the cluster file system belongs says nothing", async () => {
  const { pveRoot } = clusterFolder();
  rmSync(join(pveRoot, "local"));
  expect(await readCluster(pveRoot)).toBeUndefined();
  mkdirSync(join(pveRoot, "local"));
  expect(await readCluster(pveRoot)).toBeUndefined();
});

test("a storage without a directory of templates has none", async () => {
  const { pveRoot } = clusterFolder();
  expect(await readTemplateArchives(await readStorages(pveRoot, "pve1"))).toEqual([]);
});
