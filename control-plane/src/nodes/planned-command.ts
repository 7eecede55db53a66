import { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** What a command is given only when it is really sent, and by what name it is shown instead. */
export const made = {
  id: "00000000-0000-0000-0000-000000000000",
  pod: "00000000-0000-0000-0000-000000000001",
  /** The highest that Proxmox knows. */
  vmid: 999_999_999,
  /** Of nobody: ours begin as those that Proxmox gives out. */
  mac: "02:00:00:00:00:00",
  stamp: "2000_01_01-00_00_00",
} as const;

/** One command that a host would be told. */
export interface PlannedCommand {
  readonly nodeId: string;
  readonly node: string;
  readonly command: Command;
  /** False: what it would run is only known once the commands before it were carried out on another host. */
  readonly canBeAsked: boolean;
}

/** A command about a pod that a host would be told. */
export function commandTo(
  { nodeId, node }: Pick<PlannedCommand, "nodeId" | "node">,
  { id: podId, vmid, generation }: { readonly id: string; readonly vmid: number; readonly generation: bigint },
  op: NonNullable<Command["op"]>,
  canBeAsked = true,
): PlannedCommand {
  const command = Command.fromPartial({ commandId: made.id, podId, vmid, generation, op });
  return { nodeId, node, command, canBeAsked };
}

/** A command line without what only seems to be known. */
export function withoutMadeUp(line: string): string {
  return line
    .replaceAll(made.id, "<id>")
    .replaceAll(made.pod, "<pod>")
    .replaceAll(String(made.vmid), "<vmid>")
    .replaceAll(made.mac, "<mac>")
    .replaceAll(made.stamp, "<time>");
}
