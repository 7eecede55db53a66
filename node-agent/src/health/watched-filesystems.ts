import { readNodeName, readStorages } from "../pct/read-cluster.ts";
import type { WatchedFilesystem } from "./host-health.ts";

/**
 * What a heartbeat looks at: the root, the agent's own directory, and every storage that keeps its files in
 * a directory. Where Proxmox does not say which those are, the first two remain.
 */
export async function watchedFilesystems(pveRoot: string, stateDir: string): Promise<WatchedFilesystem[]> {
  const own = [
    { name: "root", path: "/" },
    { name: "state", path: stateDir },
  ];
  try {
    const storages = await readStorages(pveRoot, await readNodeName(pveRoot));
    return [...own, ...storages.flatMap(({ id, path }) => (path === undefined ? [] : [{ name: id, path }]))];
  } catch {
    // No hypervisor; or the inventory reports that /etc/pve cannot be read, and the heartbeat goes on without it.
    return own;
  }
}
