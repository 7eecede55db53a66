import { Command, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, beforeAll, expect, it } from "vitest";
import { FIRST, createCluster, deedOptions } from "../../../test/support/cluster-fixture.ts";
import type { ClusterFixture } from "../../../test/support/cluster-fixture.ts";
import { VMID, bounds, cloneSpec, runningWish, wishFor } from "../../../test/support/container-fixture.ts";

let cluster: ClusterFixture;
beforeAll(async () => {
  cluster = await createCluster();
});
afterAll(() => cluster.dispose());

const told = (op: NonNullable<Command["op"]>): Command => Command.fromPartial({ ...FIRST, generation: 2n, op });
const power = (wanted: Power): Command =>
  told({ $case: "ensurePower", value: { power: wanted, shutdownTimeoutSeconds: 60 } });
/** Programs and their first words, without the paths of the simulation. */
const short = (lines: readonly string[]): string[] =>
  lines.map((line) =>
    line
      .replace(/^\S*\//u, "")
      .split(" ")
      .slice(0, 2)
      .join(" "),
  );

it("a move's commands are planned one after the other, as they would be carried out, and nothing is done", async () => {
  const { one, two } = cluster;
  const spec = { ...cloneSpec(one.host, { storage: "local-lvm" }), source: undefined };
  await one.containers.converge(runningWish(cloneSpec(one.host, { storage: "shared" })), bounds());
  const volumeId = `shared:backup/vzdump-lxc-${VMID}-2000_01_01-00_00_00.tar.zst`;
  const backup = { backupId: "0193a5b0-3333-7abc-8def-000000000001", storage: "shared", mode: "shut-down" };
  const plans = await one.containers.planCommands([
    told({ $case: "backup", value: backup }),
    power(Power.POWER_STOPPED),
    told({ $case: "ensureAbsent", value: { volumes: [] } }),
    told({ $case: "migrate", value: { target: "nowhere", targetStorage: "", shutdownTimeoutSeconds: 0 } }),
    Command.fromPartial(FIRST),
  ]);
  expect(plans.map(({ commandLines }) => short(commandLines))).toEqual([
    [`pct shutdown`, `vzdump ${VMID}`],
    // The place is newer: its mark is written with the first wish under it.
    ["pct set"],
    ["pct destroy"],
    [],
    [],
  ]);
  expect(plans.map(({ error }) => error?.code)).toEqual([
    undefined,
    undefined,
    undefined,
    "CONTAINER_MISSING",
    "INVALID_ARGUMENT",
  ]);
  const there = await two.containers.planCommands([
    told({ $case: "verifyBackup", value: { volumeId, atOnce: true } }),
    told({ $case: "restore", value: { volumeId, spec, overwrite: true, takeOverFrom: "" } }),
    power(Power.POWER_RUNNING),
    told({ $case: "deleteBackup", value: { volumeId } }),
  ]);
  expect(there.map(({ commandLines, error }) => error?.code ?? short(commandLines))).toEqual([
    ["zstd --test"],
    [`pct restore`],
    // The keys that the archive held are replaced at the first start.
    ["pct start", "pct exec", "pct exec", "pct push", "pct exec", "pct set"],
    ["pvesm free"],
  ]);
  expect(await one.containers.observe(VMID)).toMatchObject({ power: Power.POWER_RUNNING, generation: 1n });

  // The words of the plan are those that are run.
  const migrate = { target: "pve2", targetStorage: "", shutdownTimeoutSeconds: 60 };
  const [planned] = await one.containers.planCommands([told({ $case: "migrate", value: migrate })]);
  const { commandLines } = await one.containers.migrate({ ...FIRST, generation: 2n, ...migrate }, deedOptions());
  expect(planned).toEqual({ commandLines, error: undefined });
  await two.containers.converge(wishFor({ present: false, generation: 3n }), bounds());
});
