import type { DemoHost } from "../../tools/demo/demo-hosts.ts";

/** The hosts that have a container of this id, each with how it is there: `pve1 running`. */
export async function copiesOf({ vmid }: { readonly vmid: number }, hosts: readonly DemoHost[]): Promise<string[]> {
  const found = await Promise.all(
    hosts.map(async ({ name, simulated }) => {
      const container = (await simulated.containers()).find((each) => each.vmid === vmid);
      return container === undefined ? [] : [`${name} ${container.running ? "running" : "stopped"}`];
    }),
  );
  return found.flat();
}
