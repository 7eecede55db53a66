import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeBoot } from "./build-host.ts";
import { ownVmids, readConfig, tellMembers } from "./cluster-files.ts";
import { readIfPresent } from "./files.ts";
import { powerCutFile } from "./layout.ts";
import type { Host } from "./layout.ts";
import { bringUp } from "./pct/power.ts";
import { publishHost } from "./publish.ts";
import { allRunning } from "./running-record.ts";
import { endLife, unmountRootfs } from "./running.ts";
import { readTasks, sweepTasks } from "./task-log.ts";

/** Cuts the power: all tools die and all containers stop. What is written on its disks stays as it is. */
export async function cutPower(host: Host): Promise<void> {
  const { layout } = host;
  // First of all: from here on nothing starts any more.
  writeFileSync(powerCutFile(layout), "");
  killTools(host);
  for (const { vmid } of allRunning(layout)) {
    await endLife(host, vmid);
    unmountRootfs(layout, vmid);
  }
  tellMembers(host);
}

/** Boots a host whose power was cut. */
export async function bootHost(host: Host): Promise<void> {
  const { layout } = host;
  rmSync(powerCutFile(layout), { force: true });
  writeBoot(layout);
  tellMembers(host);
  await sweepTasks(host);
  await publishHost(host);
  for (const vmid of ownVmids(host)) {
    const config = readConfig(host, vmid);
    const { onboot, template, lock } = config.keys;
    if (onboot !== "1" || template === "1" || lock !== undefined) continue;
    const quiet = { say: () => {}, warn: () => {}, reach: async () => {} };
    await bringUp({ host, payload: {}, effects: [], ...quiet }, vmid, config);
  }
}

/** Cuts the power and boots again. */
export async function rebootHost(host: Host): Promise<void> {
  await cutPower(host);
  await bootHost(host);
}

/** Ends the tools that run on a host whose power is cut: they are known by the root they were given. */
function killTools(host: Host): void {
  const text = readIfPresent(join(host.layout.stateRoot, "invocations.jsonl")) ?? "";
  const fronts = [...text.matchAll(/"id":"(\d+)-\d+"/gu)].map((match) => Number(match[1]));
  const workers = readTasks(host)
    .filter(({ status }) => status === undefined)
    .map(({ upid }) => Number.parseInt(upid.split(":")[2] ?? "0", 16));
  for (const pid of new Set([...fronts, ...workers])) {
    if (!commandLine(pid).includes(host.layout.root)) continue;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself in this moment.
    }
  }
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}
