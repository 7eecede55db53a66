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

/** How old the sizes of storages may be: `pvesm` costs a third of a second of a processor. */
const STATUS_AGE_MS = 60_000;
/** How long an inventory waits for `pvesm`, which hangs with the storage that it asks. */
const STATUS_WAIT_MS = 10_000;
const STATUS_DEADLINE_MS = 60_000;

/** Contents that matter to us. */
const CONTENTS = ["rootdir", "vztmpl", "backup"];

/** Sizes of the storages, asked for rarely. */
export interface StorageSizes {
  /** The last known sizes; of storages that did not answer lately there are none. */
  read(): Promise<readonly StorageStatus[]>;
}

/** Asks `pvesm status` at most once a minute and never twice at a time. */
export function createStorageSizes(paths: HostPaths, runner: OperationRunner): StorageSizes {
  let known: { readonly statuses: readonly StorageStatus[]; readonly atMs: number } | undefined;
  let asking: Promise<void> | undefined;
  const ask = async (): Promise<void> => {
    const never = new AbortController().signal;
    const argv = argumentVector(paths, pvesmStatus());
    const output = await look(runner, argv, never, STATUS_DEADLINE_MS).catch(() => undefined);
    known = { statuses: output === undefined ? [] : parseStorageStatus(output.stdout), atMs: performance.now() };
  };
  return {
    read: async () => {
      if (known === undefined || performance.now() - known.atMs > STATUS_AGE_MS) {
        asking ??= ask().finally(() => (asking = undefined));
        await Promise.race([asking, expiry(STATUS_WAIT_MS)]);
      }
      return known?.statuses ?? [];
    },
  };
}

/** Everything on the host. `known` is false as soon as one part of it could not be read. */
export async function takeInventory(
  paths: HostPaths,
  view: HostView,
  sizes: StorageSizes,
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
    const [statuses, templateVolumeIds] = await Promise.all([sizes.read(), readTemplateArchives(useful)]);
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
  };
}

async function expiry(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms).unref());
}
