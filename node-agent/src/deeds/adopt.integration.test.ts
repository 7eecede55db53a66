import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { FIRST, deedOptions } from "../../../test/support/cluster-fixture.ts";
import { POD_ID, configOf, createFixture } from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import { runTool } from "../../../test/simulated-host/run-tool.ts";
import type { AdoptOrder } from "../containers/containers.ts";
import { parseMarker } from "../containers/marker.ts";

let fixture: Fixture;
let vmid = 200;

const pct = async (...argv: string[]): Promise<void> => {
  const { exitCode, stderr } = await runTool(fixture.paths.pctPath, ...argv);
  if (exitCode !== 0) throw new Error(stderr);
};
const sha256 = (): string =>
  createHash("sha256")
    .update(readFileSync(join(fixture.paths.pveRoot, "lxc", `${vmid}.conf`)))
    .digest("hex");
const order = (change: Partial<AdoptOrder> = {}): AdoptOrder => ({
  ...FIRST,
  vmid,
  expectedConfigSha256: sha256(),
  replacesPodId: "",
  ...change,
});

beforeAll(async () => {
  fixture = await createFixture();
});
beforeEach(async () => {
  fixture.host.clearFaults();
  vmid += 1;
  await pct("clone", "9000", String(vmid), "--hostname", "theirs", "--description", "owner: Ann\ncall first");
  await pct("set", String(vmid), "--tags", "web", "--onboot", "1", "--cores", "3", "--memory", "768");
  await pct(
    "set",
    String(vmid),
    "--net0",
    "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:AA:BB:CC,ip=10.0.0.7/24,gw=10.0.0.1",
  );
});
afterAll(() => fixture.dispose());

it("a container of somebody becomes the pod's: marked, described as it is, its owner's words kept", async () => {
  await pct("start", String(vmid));
  const before = configOf(fixture, vmid)?.options;
  const { observation } = await fixture.containers.adopt(order(), deedOptions());
  expect(observation).toMatchObject({
    podId: POD_ID,
    generation: 1n,
    power: Power.POWER_RUNNING,
    cores: 3,
    memoryMb: 768,
    diskGb: 2,
    hostname: "theirs",
    ip: "10.0.0.7",
    mac: "BC:24:11:AA:BB:CC",
    storage: "local-lvm",
    network: { bridge: "vmbr0", ip: "10.0.0.7/24", gateway: "10.0.0.1", vlanTag: 0 },
  });
  const config = configOf(fixture, vmid);
  expect(config?.description.split("\n").slice(1)).toEqual(["owner: Ann", "call first"]);
  expect([config?.options.get("tags"), config?.options.get("onboot") ?? "0"]).toEqual(["cloudpods;web", "0"]);
  for (const key of ["net0", "memory", "rootfs", "hostname"]) expect(config?.options.get(key)).toBe(before?.get(key));
  // Asked again, with what was agreed then, it is the pod's; another pod does not get it.
  const lines = (await fixture.containers.adopt(order({ expectedConfigSha256: "" }), deedOptions())).commandLines;
  expect(lines).toEqual([]);
  const other = POD_ID.replace(/1$/u, "2");
  await expect(fixture.containers.adopt(order({ podId: other }), deedOptions())).rejects.toMatchObject({
    code: "VMID_CONFLICT",
  });
  // Unless the control plane says that the first has never become one.
  const again = await fixture.containers.adopt(order({ podId: other, replacesPodId: POD_ID }), deedOptions());
  expect(again.observation).toMatchObject({ podId: other, power: Power.POWER_RUNNING });
  expect(configOf(fixture, vmid)?.description.split("\n").slice(1)).toEqual(["owner: Ann", "call first"]);
});

it("one that changed since it was looked at, before or while it is marked, is left alone", async () => {
  const agreed = order();
  await pct("set", String(vmid), "--memory", "1024");
  await expect(fixture.containers.adopt(agreed, deedOptions())).rejects.toMatchObject({ code: "CONFIG_CHANGED" });
  const changed = "detected modified configuration - file changed by other user? Try again.\n";
  fixture.host.setFaults([{ match: { command: "set" }, effect: { kind: "exit", code: 255, stderr: changed } }]);
  await expect(fixture.containers.adopt(order(), deedOptions())).rejects.toMatchObject({
    code: "CONFIG_CHANGED",
    retryable: false,
  });
  const description = configOf(fixture, vmid)?.description ?? "";
  expect(parseMarker(description)).toBeUndefined();
});

it("templates, locked, missing and half-marked containers are refused", async () => {
  const refusal = async (change: Partial<AdoptOrder> = {}) => {
    const error: unknown = await fixture.containers
      .adopt(order(change), deedOptions())
      .catch((caught: unknown) => caught);
    return (error as { code?: string }).code;
  };
  expect(await refusal({ vmid: 9000 })).toBe("IS_TEMPLATE");
  expect(await refusal({ vmid: 999 })).toBe("CONTAINER_MISSING");
  fixture.host.leaveLock(vmid, "backup");
  expect(await refusal()).toBe("LOCKED");
  await pct("unlock", String(vmid));
  await pct("set", String(vmid), "--description", "cloudpods pod=garbled");
  expect(await refusal()).toBe("VMID_CONFLICT");
});

it("a pct that lies, or dies before or after it wrote, ends in the mark or in an error", async () => {
  fixture.host.setFaults([{ match: { command: "set" }, effect: { kind: "lie" } }]);
  await expect(fixture.containers.adopt(order(), deedOptions())).rejects.toMatchObject({ code: "STEP_WITHOUT_EFFECT" });
  for (const point of ["after-config", "before-exit"]) {
    fixture.host.setFaults([
      { match: { command: "set" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 },
    ]);
    const { observation } = await fixture.containers.adopt(order(), deedOptions());
    expect(observation?.podId).toBe(POD_ID);
  }
});
