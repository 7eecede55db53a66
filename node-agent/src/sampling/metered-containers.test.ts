import { mkdirSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatMarker } from "../containers/marker.ts";
import { createMeteredContainers, meteredContainer } from "./metered-containers.ts";

const POD = "2b8c6f9e-0000-7000-8000-000000000001";
let root: string;
let pveRoot: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "metered-"));
  pveRoot = join(root, "pve");
  mkdirSync(join(pveRoot, "lxc"), { recursive: true });
  writeFileSync(join(root, "stat"), "cpu  1 1\ncpu0 1 1\ncpu1 1 1\ncpu2 1 1\n");
});

afterEach(() => rmSync(root, { recursive: true }));

function config(podId: string, generation = 1n, cores = 2): string {
  const marker = formatMarker({ podId, fleetEpoch: 1n, generation, stage: "ready", keys: "none" });
  const line = `#${marker.replaceAll(":", "%3A")}\n`;
  return `${line}cores: ${cores}\nmemory: 768\nrootfs: local:1/vm-1-disk-0.raw,size=10G\n`;
}

function write(vmid: number, text: string, ageMs = 60_000): void {
  const path = join(pveRoot, "lxc", `${vmid}.conf`);
  writeFileSync(path, text);
  const time = new Date(Date.now() - ageMs);
  utimesSync(path, time, time);
}

test("only containers with our marker count, with the allocation of their file", () => {
  write(100_001, config(POD));
  write(200, "hostname: somebody-else\nrootfs: local:2/x.raw,size=1G\n");
  const containers = createMeteredContainers({ pveRoot, procRoot: root }).refresh();
  expect([...(containers?.values() ?? [])]).toEqual([
    {
      vmid: 100_001,
      podId: POD,
      generation: 1n,
      storage: "local",
      allocation: { cores: 2, memoryMb: 768, diskGb: 10 },
    },
  ]);
});

test("what a file does not say is Proxmox's default", () => {
  const text = config(POD).replace(/^(cores|memory): .*\n/gmu, "");
  expect(meteredContainer(100_001, text, 3)?.allocation).toEqual({ cores: 3, memoryMb: 512, diskGb: 10 });
});

test("a changed file is read again, also one of the same size changed within the same second", () => {
  const metered = createMeteredContainers({ pveRoot, procRoot: root });
  write(100_001, config(POD, 1n, 2), 0);
  const cores = (): number | undefined => metered.refresh()?.get(100_001)?.allocation.cores;
  expect(cores()).toBe(2);
  write(100_001, config(POD, 1n, 4), 0);
  expect(cores()).toBe(4);
  rmSync(join(pveRoot, "lxc", "100001.conf"));
  expect(metered.refresh()?.size).toBe(0);
});

test("an unmounted cluster file system is not taken for an empty one", () => {
  const metered = createMeteredContainers({ pveRoot, procRoot: root });
  renameSync(pveRoot, `${pveRoot}.gone`);
  mkdirSync(pveRoot);
  expect(metered.refresh()).toBeUndefined();
  rmSync(pveRoot, { recursive: true });
  renameSync(`${pveRoot}.gone`, pveRoot);
  write(100_001, config(POD));
  expect(metered.refresh()?.size).toBe(1);
  rmSync(pveRoot, { recursive: true });
  mkdirSync(pveRoot);
  expect(metered.refresh()?.size).toBe(1);
});

test("a copy made by hand is not billed to the pod of its original", () => {
  const metered = createMeteredContainers({ pveRoot, procRoot: root });
  write(100_001, config(POD, 2n));
  write(101, config(POD, 2n));
  write(999_999, config(POD, 1n));
  expect([...(metered.refresh()?.keys() ?? [])]).toEqual([100_001]);
});
