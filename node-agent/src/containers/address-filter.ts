import { mkdir, readFile, rename, unlink, writeFile } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { type AddressFilter, withAddressFilter } from "../pct/firewall-file.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { CLUSTER_GROUP, type PoolCall, poolGuard } from "../pool-guard.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import { requireQuorum } from "./host-view.ts";
import type { HostView } from "./host-view.ts";
import type { ObservedContainer } from "./observed-container.ts";

/** How long the cluster file system may take for each call, ms. */
const CALL_DEADLINE_MS = 5_000;

/**
 * Makes a container's firewall file hold what the wish says of forged addresses, before the container
 * starts and whenever its wish is fulfilled; of a container that is gone it takes our section away.
 * Without a specification it changes nothing. @throws ContainerFailure
 */
export async function ensureAddressFilter(
  wish: ContainerWish,
  observed: ObservedContainer,
  { paths, view }: { readonly paths: Pick<HostPaths, "pveRoot">; readonly view: HostView },
): Promise<void> {
  const network = wish.spec?.network;
  const isGone = observed.where === "nowhere" && !wish.present;
  if (!isGone && (observed.where !== "here" || network === undefined)) return;
  const path = join(paths.pveRoot, "firewall", `${wish.vmid}.fw`);
  const before = await read(path);
  const after = withAddressFilter(before, isGone || network?.ipFilter !== true ? undefined : filterOf(network.ip));
  if (after.trimEnd() === before.trimEnd()) return;
  await requireQuorum(view);
  if (after === "") await inTime<void>(path, (done) => unlink(path, (error) => done(error, undefined)));
  else await replace(path, after);
}

function filterOf(ip: string): AddressFilter {
  return { address: ip.includes("/") ? ip.split("/")[0] : undefined };
}

async function read(path: string): Promise<string> {
  try {
    return await inTime<string>(path, (done) => readFile(path, "utf8", done));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "";
    throw error;
  }
}

/** Proxmox writes these files the same way: whoever reads one sees the old or the new whole. */
async function replace(path: string, text: string): Promise<void> {
  const [folder, next] = [dirname(path), `${path}.tmp.${process.pid}`];
  await inTime<void>(folder, (done) => mkdir(folder, { recursive: true }, (error) => done(error, undefined)));
  await inTime<void>(next, (done) => writeFile(next, text, { mode: 0o640 }, (error) => done(error, undefined)));
  await inTime<void>(path, (done) => rename(next, path, (error) => done(error, undefined)));
}

async function inTime<T>(path: string, call: PoolCall<T>): Promise<T> {
  const asked = await poolGuard.ask(CLUSTER_GROUP, path, CALL_DEADLINE_MS, call);
  if (asked.kind === "answered") return asked.value;
  if (asked.kind === "failed") throw asked.error;
  throw new ContainerFailure("HOST_UNKNOWN", "the cluster file system does not answer", { retryable: true });
}
