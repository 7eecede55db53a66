import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { lxcStop } from "../pct/pct-arguments.ts";
import { readConfigFile } from "../pct/read-cluster.ts";
import { readRunningVmids } from "../pct/read-kernel.ts";
import type { ConvergeDoors } from "./doors.ts";
import type { Strays } from "./containers.ts";
import { beginExecution } from "./execution.ts";
import { requireQuorum } from "./host-view.ts";
import { parseMarker } from "./marker.ts";

/** The list of running containers and that of the cluster are read one after the other, and may disagree. */
const LOOKS = 2;
const LOOK_PAUSE_MS = 1_000;
const STOP_MS = 60_000;

/**
 * Ends containers of ours that run here while another member of the cluster has their configuration: a member
 * that was cut off and whose containers were taken over learns so when it is back. `pct` does not know them here
 * any more, so lxc itself ends them.
 * @throws ContainerFailure NO_QUORUM or HOST_UNKNOWN while nothing can be concluded
 */
export async function stopStrays(doors: ConvergeDoors): Promise<Strays> {
  let strays = await findStrays(doors);
  for (let look = 1; look < LOOKS && strays.length > 0; look += 1) {
    await pause(LOOK_PAUSE_MS, undefined, { ref: false });
    const again = new Set(await findStrays(doors));
    strays = strays.filter((vmid) => again.has(vmid));
  }
  for (const vmid of strays) {
    const bounds = { commandId: randomUUID(), signal: new AbortController().signal, deadlineMs: STOP_MS };
    const execution = beginExecution(doors.paths, doors.runner, bounds);
    try {
      await execution.run(vmid, lxcStop(vmid));
      await doors.runner.forgetEnded(vmid);
    } finally {
      execution.close();
    }
  }
  const running = await readRunningVmids(doors.paths);
  return {
    stopped: strays.filter((vmid) => !running.has(vmid)),
    running: strays.filter((vmid) => running.has(vmid)),
  };
}

async function findStrays({ paths, view }: ConvergeDoors): Promise<number[]> {
  const running = await readRunningVmids(paths);
  await requireQuorum(view);
  const { nodeName, owners } = await view.cluster();
  const strays: number[] = [];
  for (const vmid of running) {
    const owner = owners.get(vmid);
    if (owner === undefined || owner.node === nodeName || owner.type !== "lxc") continue;
    const file = await readConfigFile(paths.pveRoot, owner.node, vmid);
    const isHere = (await readConfigFile(paths.pveRoot, nodeName, vmid)) !== undefined;
    if (!isHere && file !== undefined && parseMarker(file.config.description) !== undefined) strays.push(vmid);
  }
  return strays;
}
