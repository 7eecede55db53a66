import type { HostPaths } from "../pct/host-paths.ts";
import { readStorages } from "../pct/read-cluster.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { HostView } from "./host-view.ts";
import type { PlanHost, WantedKeys } from "./plan-container.ts";

/** Storage types whose volumes can be cloned by reference; raw images on directories cannot. */
const LINKABLE_TYPES: ReadonlySet<string> = new Set(["lvmthin", "zfspool", "btrfs", "rbd"]);

/** What it takes to plan for a wish on this host. */
export async function planHost(
  wish: ContainerWish,
  keys: WantedKeys | undefined,
  ownHalf: boolean,
  { view, paths }: { readonly view: HostView; readonly paths: HostPaths },
): Promise<PlanHost> {
  const { spec } = wish;
  const source = spec?.source;
  const { nodeName } = await view.cluster();
  const storages = await readStorages(paths.pveRoot, nodeName);
  return {
    template: source?.$case === "clone" ? await view.observe(source.value.templateVmid) : undefined,
    linkableStorages: new Set(storages.filter(({ type }) => LINKABLE_TYPES.has(type)).map(({ id }) => id)),
    keys,
    ownHalf,
    lxcRoot: paths.lxcRoot,
  };
}
