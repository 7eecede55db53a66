import type {
  ContainerObservation,
  Inventory,
  StorageObservation,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { argumentVector } from "../pct/command-line.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import type { StorageConfig } from "../pct/parse-pct-cluster.ts";
import { parseStorageStatus } from "../pct/parse-pct-output.ts";
import type { StorageStatus } from "../pct/parse-pct-output.ts";
import { pvesmStatus } from "../pct/pct-arguments.ts";
import { readContainerIds, readStorages, readTemplateArchives } from "../pct/read-cluster.ts";
import type { HostView } from "./host-view.ts";
import { look } from "./look.ts";

const STATUS_DEADLINE_MS = 60_000;

/** Contents that matter to us. */
const CONTENTS = ["rootdir", "vztmpl", "backup"];

/** What `pvesm status` says; undefined when it failed. */
export async function askStorageStatus(
  paths: HostPaths,
  runner: OperationRunner,
): Promise<readonly StorageStatus[] | undefined> {
  const never = new AbortController().signal;
  const output = await look(runner, argumentVector(paths, pvesmStatus()), never, STATUS_DEADLINE_MS);
  return output === undefined ? undefined : parseStorageStatus(output.stdout);
}

/** Everything on the host. `known` is false as soon as one part of it could not be read. */
export async function takeInventory(
  paths: HostPaths,
  view: HostView,
  sizes: (storages: readonly StorageConfig[]) => Promise<readonly StorageStatus[]>,
  observedAtMs: bigint,
): Promise<Inventory> {
  const nothing: Inventory = {
    known: false,
    observedAtMs,
    containers: [],
    storages: [],
    templateVolumeIds: [],
    quorate: false,
    foreignVmids: [],
    sessionEpoch: 0n,
  };
  try {
    const { nodeName, quorate, owners } = await view.cluster();
    const [containers, configured] = await Promise.all([
      describeAll(paths, view, nodeName),
      readStorages(paths.pveRoot, nodeName),
    ]);
    const useful = configured.filter(({ content }) => CONTENTS.some((kind) => content.includes(kind)));
    const [statuses, templateVolumeIds] = await Promise.all([sizes(useful), readTemplateArchives(useful)]);
    const foreignVmids = [...owners]
      .filter(([, { node, type }]) => node !== nodeName || type !== "lxc")
      .map(([vmid]) => vmid);
    // The cluster file system may have gone while it was read, and would then look empty.
    await view.cluster();
    const storages = useful.map((storage) => describeStorage(storage, statuses));
    return { ...nothing, known: true, quorate, containers, storages, templateVolumeIds, foreignVmids };
  } catch {
    return nothing;
  }
}

async function describeAll(paths: HostPaths, view: HostView, node: string): Promise<ContainerObservation[]> {
  const containers: ContainerObservation[] = [];
  for (const vmid of await readContainerIds(paths.pveRoot, node)) {
    const container = view.describe(vmid, await view.observe(vmid));
    if (container !== undefined) containers.push(container);
  }
  return containers;
}

function describeStorage(storage: StorageConfig, statuses: readonly StorageStatus[]): StorageObservation {
  const status = statuses.find((candidate) => candidate.storage === storage.id);
  const gib = (kib: bigint): number => Number(kib / (1n << 20n));
  return {
    storage: storage.id,
    type: storage.type,
    shared: storage.shared,
    totalGb: gib(status?.totalKib ?? 0n),
    usedGb: gib(status?.usedKib ?? 0n),
    content: storage.content.filter((kind) => CONTENTS.includes(kind)),
    available: status?.available ?? false,
    backend: storage.backend,
  };
}
