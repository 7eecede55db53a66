import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseMarker } from "./marker.ts";
import {
  SSH_KEY,
  VMID,
  bounds,
  cloneSpec,
  configOf,
  createFixture,
  removePod,
  runningWish,
  volumesOf,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await createFixture();
});

afterAll(() => fixture.dispose());

afterEach(() => removePod(fixture));

async function commandsSince(start: number): Promise<string[]> {
  return (await fixture.host.invocations()).slice(start).map(({ argv }) => argv.slice(0, 2).join(" "));
}

async function callCount(): Promise<number> {
  return (await fixture.host.invocations()).length;
}

/** A person with a shell on the host. */
async function byHand(...args: string[]): Promise<void> {
  await promisify(execFile)(fixture.paths.pctPath, args);
}

describe("what is refused", () => {
  it("a smaller disk, before anything is changed", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    const before = await callCount();
    const smaller = wishFor({ spec: cloneSpec(fixture.host, { diskGb: 3, cores: 8 }) });
    await expect(fixture.containers.converge(smaller, bounds())).rejects.toMatchObject({
      code: "DISK_SHRINK_UNSUPPORTED",
      retryable: false,
      observation: { diskGb: 4, cores: 2 },
    });
    expect(await callCount()).toBe(before);
    const belowTemplate = wishFor({ vmid: VMID + 1, spec: cloneSpec(fixture.host, { diskGb: 1 }) });
    await expect(fixture.containers.converge(belowTemplate, bounds())).rejects.toMatchObject({
      code: "DISK_SHRINK_UNSUPPORTED",
    });
    expect(configOf(fixture, VMID + 1)).toBeUndefined();
  });

  it("a container without our marker, whatever is wished", async () => {
    await byHand("clone", "9000", "555", "--hostname", "theirs");
    const before = readFileSync(join(fixture.paths.pveRoot, "lxc/555.conf"), "utf8");
    for (const wish of [
      runningWish(cloneSpec(fixture.host), { vmid: 555 }),
      wishFor({ vmid: 555, present: false }),
      wishFor({ vmid: 555, power: Power.POWER_RUNNING }),
    ]) {
      // Not even when the journal claims that the id was free.
      await expect(fixture.containers.converge(wish, bounds({ absentBefore: true }))).rejects.toMatchObject({
        code: "VMID_CONFLICT",
      });
    }
    await expect(fixture.containers.reboot(wishFor({ vmid: 555 }), bounds())).rejects.toMatchObject({
      code: "VMID_CONFLICT",
    });
    expect(readFileSync(join(fixture.paths.pveRoot, "lxc/555.conf"), "utf8")).toBe(before);
    await byHand("destroy", "555");
  });

  it("another pod's container and one of a newer placement", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host), generation: 5n }), bounds());
    const other = "0193a5b0-1111-7abc-8def-000000000009";
    await expect(
      fixture.containers.converge(wishFor({ podId: other, present: false }), bounds()),
    ).rejects.toMatchObject({ code: "VMID_CONFLICT" });
    await expect(
      fixture.containers.converge(wishFor({ present: false, generation: 4n }), bounds()),
    ).rejects.toMatchObject({ code: "STALE_GENERATION" });
    expect(configOf(fixture, VMID)).toBeDefined();
    await fixture.containers.converge(wishFor({ power: Power.POWER_RUNNING, generation: 6n }), bounds());
    expect(parseMarker(configOf(fixture, VMID)?.description ?? "")?.generation).toBe(6n);
  });

  it("a container that the operator protects", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    await byHand("set", String(VMID), "--protection", "1");
    await expect(fixture.containers.converge(wishFor({ present: false }), bounds())).rejects.toMatchObject({
      code: "PROTECTED",
      retryable: false,
    });
    await byHand("set", String(VMID), "--protection", "0");
  });

  it("a container with volumes that nobody spoke of, before it is stopped", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    const file = join(fixture.paths.pveRoot, "nodes/pve1/lxc", `${VMID}.conf`);
    const added = "mp0: local-lvm:vm-7-disk-1,mp=/data,size=8G\nunused1: local-lvm:vm-7-disk-2\nrootfs:";
    writeFileSync(file, readFileSync(file, "utf8").replace("rootfs:", added));
    const before = readFileSync(file, "utf8");
    const calls = await callCount();
    for (const [volumes, told] of [
      [undefined, "mp0, unused1,"],
      [["mp0", "mp1"], "has unused1,"],
    ] as const) {
      const wish = wishFor({ present: false, ...(volumes === undefined ? {} : { volumes }) });
      const refused = { code: "MORE_THAN_A_POD", retryable: false, message: expect.stringContaining(told) };
      await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject(refused);
      await expect(fixture.containers.planLines(wish)).rejects.toMatchObject(refused);
    }
    expect(await commandsSince(calls)).toEqual([]);
    expect(readFileSync(file, "utf8")).toBe(before);
    const wish = wishFor({ present: false, volumes: ["mp0", "unused1"] });
    expect((await fixture.containers.converge(wish, bounds())).observation).toBeUndefined();
    expect(configOf(fixture, VMID)).toBeUndefined();
  });

  it.each([
    ["hostname", { hostname: "a --force=1" }],
    ["hostname", { hostname: "-rf" }],
    ["storage", { storage: "local\nlxc.hook: x" }],
    ["pool", { pool: "--force" }],
    ["key", { sshAuthorizedKeys: [`${SSH_KEY}\nssh-rsa ${"B".repeat(68)}`] }],
    ["nameserver", { nameserver: "1.1.1.1;reboot" }],
  ])("a hostile %s, and no program is started", async (_, change) => {
    const before = await callCount();
    const wish = wishFor({
      vmid: VMID + 7,
      spec: cloneSpec(fixture.host, {
        ...change,
        source: { $case: "clone", value: { templateVmid: 9000, full: true } },
      }),
    });
    await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      retryable: false,
    });
    const hostilePod = { ...wish, podId: "../../x" };
    await expect(fixture.containers.converge(hostilePod, bounds())).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await commandsSince(before)).toEqual([]);
  });

  it("a full storage, with nothing left behind", async () => {
    fixture.host.setFaults([{ storageFull: "local-lvm" }]);
    await expect(fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds())).rejects.toMatchObject({
      code: "STORAGE_FULL",
      retryable: false,
    });
    expect(configOf(fixture, VMID)).toBeUndefined();
    expect(volumesOf(fixture, VMID)).toEqual([]);
  });
});
