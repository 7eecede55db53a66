import { argumentVector, readableCommandLine } from "../pct/command-line.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { ConvergeDoors } from "./doors.ts";
import type { ObservedContainer } from "./observed-container.ts";
import { planContainer } from "./plan-container.ts";
import { planHost } from "./plan-host.ts";

/** Stands for the VMID of a container that only a dry run knows; the highest there is, so that no other number is like it. */
const EXAMPLE_VMID = 999_999_999;

/** The command lines that would fulfil a wish now. VMID 0 stands for a container that does not exist. */
export async function planLines(wish: ContainerWish, doors: ConvergeDoors): Promise<string[]> {
  if (wish.vmid !== 0) return wishLines(wish, await doors.view.observe(wish.vmid), doors);
  const lines = await wishLines({ ...wish, vmid: EXAMPLE_VMID }, { where: "nowhere" }, doors);
  // A number would look like that of somebody's container.
  return lines.map((line) => line.replaceAll(String(EXAMPLE_VMID), "<vmid>"));
}

/**
 * The command lines from a container as given to what is wished of it. `authorizedKeys`: those that it shall hold, where
 * the wish does not say. @throws ContainerFailure
 */
export async function wishLines(
  wish: ContainerWish,
  observed: ObservedContainer,
  doors: ConvergeDoors,
  authorizedKeys = wish.spec?.sshAuthorizedKeys,
): Promise<string[]> {
  const { podId, vmid } = wish;
  const keys =
    authorizedKeys === undefined ? doors.keys.find(vmid, podId) : doors.keys.preview(vmid, podId, authorizedKeys);
  const steps = planContainer(wish, observed, await planHost(wish, keys, false, doors));
  return linesOf(
    steps.flatMap(({ invocations }) => invocations),
    doors.paths,
  );
}

/** Programs as people read them. */
export function linesOf(invocations: readonly Invocation[], paths: HostPaths): string[] {
  return invocations.map((invocation) => readableCommandLine(argumentVector(paths, invocation)));
}
