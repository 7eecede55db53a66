import { pino } from "pino";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { comeBack, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench } from "../../../test/support/move-workbench.ts";
import { clearLeftCopies } from "../moves/left-copies.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
const drains = drainsOf(bench);

test.each(["while its host is given up", "after it was lost with its host"])(
  "a pod that is destroyed %s holds its room there until the host has removed it",
  async (when) => {
    const isLost = when.startsWith("after");
    const [dead] = await bench.nodes(1);
    if (dead === undefined) throw new Error("one host");
    const pod = await bench.podOn(dead);
    await vanish(bench, dead);
    if (!isLost) await bench.destroy(pod);
    const order = { reason: "the host burnt", confirmFenced: true, onNoBackup: "mark-lost" };
    expect((await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order)).status).toBe(202);
    await drains.driveToEnd(dead);
    if (isLost) await bench.destroy(await bench.podNow(pod.id));
    await expect
      .poll(async () => (await bench.podNow(pod.id)).status, { timeout: 60_000, interval: 20 })
      .toBe("deleted");
    const places = async () => {
      const { claims, stays } = await bench.books(pod.id);
      return { claims: claims.map(({ nodeId }) => nodeId), open: stays.filter(({ open }) => open).length };
    };
    expect(await places()).toEqual({ claims: [dead.id], open: 0 });
    expect(await clearLeftCopies(doors())).toMatchObject({ asked: [] });

    // It was only cut off.
    await comeBack(bench, dead);
    expect(bench.hosts.copies(pod.vmid).here).toEqual([dead.id]);
    const cleared = async () => {
      await clearLeftCopies(doors());
      return (await places()).claims;
    };
    await expect.poll(cleared, { timeout: 60_000, interval: 20 }).toEqual([]);
    expect(bench.hosts.copies(pod.vmid).here).toEqual([]);
  },
);
