import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { NetworkSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseMarker } from "./marker.ts";
import {
  POD_ID,
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

async function callCount(): Promise<number> {
  return (await fixture.host.invocations()).length;
}

/** A person with a shell on the host. */
async function byHand(...args: string[]): Promise<void> {
  await promisify(execFile)(fixture.paths.pctPath, args);
}

const eth0 = (change: Partial<NetworkSpec>): NetworkSpec => {
  const { network } = cloneSpec(fixture.host);
  if (network === undefined) throw new Error("the specification of these tests has a network");
  return { ...network, ...change };
};

function guestFile(path: string): string {
  return readFileSync(join(fixture.paths.lxcRoot, `${VMID}`, "rootfs", path), "utf8");
}

describe("a container's life", () => {
  it("clone to the specification, keys, address, stop, destroy; a repetition runs nothing", async () => {
    const spec = cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY], nameserver: "9.9.9.9" });
    const absent: string[] = [];
    const outcome = await fixture.containers.converge(
      runningWish(spec),
      bounds({ recordAbsent: () => void absent.push("recorded") }),
    );
    expect(absent).toEqual(["recorded"]);
    expect(outcome.observation).toMatchObject({
      podId: POD_ID,
      generation: 1n,
      power: Power.POWER_RUNNING,
      cores: 2,
      memoryMb: 1024,
      swapMb: 256,
      diskGb: 4,
      hostname: "pod-1.example.org",
      mac: "BC:24:11:00:00:01",
      rateLimitKibPerSecond: 1280,
      storage: "local-lvm",
      lock: "",
    });
    expect(configOf(fixture, VMID)?.options.get("tags")).toBe("cloudpods");
    expect(configOf(fixture, VMID)?.options.get("onboot") ?? "0").toBe("0");
    expect(configOf(fixture, VMID)?.options.get("unprivileged")).toBe("1");
    expect(guestFile("root/.ssh/authorized_keys")).toContain(SSH_KEY);

    const before = await callCount();
    const again = await fixture.containers.converge(runningWish(spec), bounds());
    expect(again.commandLines).toEqual([]);
    expect(await callCount()).toBe(before);

    const address = await fixture.containers.awaitAddress(VMID, 60_000, AbortSignal.timeout(60_000));
    expect(address).toMatch(/^10\./u);
    expect((await fixture.containers.observe(VMID))?.ip).toBe(address);

    const stopped = await fixture.containers.converge(
      wishFor({ power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 5 }),
      bounds(),
    );
    expect(stopped.observation?.power).toBe(Power.POWER_STOPPED);
    expect(stopped.commandLines).toEqual([expect.stringContaining("shutdown 100001 --timeout=5 --forceStop=1")]);

    const gone = await fixture.containers.converge(wishFor({ present: false }), bounds());
    expect(gone.observation).toBeUndefined();
    expect(configOf(fixture, VMID)).toBeUndefined();
    expect(volumesOf(fixture, VMID)).toEqual([]);
    expect((await fixture.containers.converge(wishFor({ present: false }), bounds())).commandLines).toEqual([]);
  });

  it("from an archive: keys, name, marker and limits in the one call that makes it", async () => {
    const spec = cloneSpec(fixture.host, {
      source: { $case: "archive", value: { volumeId: "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst" } },
      sshAuthorizedKeys: [SSH_KEY],
    });
    const outcome = await fixture.containers.converge(runningWish(spec), bounds());
    expect(outcome.commandLines).toHaveLength(2);
    expect(guestFile("root/.ssh/authorized_keys")).toContain(SSH_KEY);
    expect((await fixture.containers.converge(runningWish(spec), bounds())).commandLines).toEqual([]);
  });

  it("keys wait on disk until a later wish lets the container run", async () => {
    await fixture.containers.converge(
      wishFor({ spec: cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY] }) }),
      bounds(),
    );
    await fixture.restart().converge(wishFor({ power: Power.POWER_RUNNING }), bounds());
    expect(guestFile("root/.ssh/authorized_keys")).toContain(SSH_KEY);
  });

  it("a reboot makes another life of the same container, and none of a stopped one", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    const before = (await fixture.host.containers()).find(({ vmid }) => vmid === VMID)?.initPid;
    const outcome = await fixture.containers.reboot(wishFor({ shutdownTimeoutSeconds: 5 }), bounds());
    expect(outcome.commandLines).toHaveLength(1);
    const after = (await fixture.host.containers()).find(({ vmid }) => vmid === VMID)?.initPid;
    expect(after).not.toBe(before);
    await fixture.containers.converge(wishFor({ power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 0 }), bounds());
    await expect(fixture.containers.reboot(wishFor(), bounds())).rejects.toMatchObject({ code: "NOT_RUNNING" });
  });

  it("the dry run says the words that are then run", async () => {
    const wish = runningWish(cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY] }));
    const lines = await fixture.containers.planLines(wish);
    const outcome = await fixture.containers.converge(wish, bounds());
    expect(outcome.commandLines).toEqual(lines);
    expect(await fixture.containers.planLines(wish)).toEqual([]);
    const unknown = await fixture.containers.planLines({ ...wish, vmid: 0 });
    expect(unknown.map((line) => line.replaceAll("<vmid>", String(VMID)))).toEqual(lines);
  });

  it("tells the host's size, name, version and everything on it", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(await fixture.containers.hostCapacity()).toEqual({ cpuCores: 8, memoryMb: 32_768 });
    expect(await fixture.containers.pveIdentity()).toEqual({ name: "pve1", version: "9.2.11", clusterName: "" });
    const inventory = await fixture.containers.inventory();
    expect(inventory).toMatchObject({ known: true, quorate: true, foreignVmids: [] });
    expect(inventory.containers.map(({ vmid, podId, template }) => [vmid, podId, template])).toEqual([
      [9000, "", true],
      [VMID, POD_ID, false],
    ]);
    expect(inventory.storages.map(({ storage, available, totalGb }) => [storage, available, totalGb])).toEqual([
      ["local", true, 100],
      ["local-lvm", true, 500],
    ]);
    expect(inventory.templateVolumeIds).toEqual(["local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"]);
  });
});

describe("changes of a running container", () => {
  it("one option fails: the others are not lost with it, and the next wish repairs", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    fixture.host.setFaults([{ match: { command: "set" }, effect: { kind: "hotplug-failure", option: "swap" } }]);
    const bigger = cloneSpec(fixture.host, { memoryMb: 2048, swapMb: 512, cores: 4 });
    await expect(fixture.containers.converge(runningWish(bigger), bounds())).rejects.toMatchObject({
      code: "HOTPLUG_FAILED",
      retryable: true,
      observation: { memoryMb: 2048, cores: 4, swapMb: 256 },
    });
    fixture.host.clearFaults();
    const repaired = await fixture.containers.converge(runningWish(bigger), bounds());
    expect(repaired.commandLines).toHaveLength(1);
    expect(repaired.observation?.swapMb).toBe(512);
  });

  it("a limit by hand goes away with --delete, which works while it runs", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    await byHand("set", String(VMID), "--cpulimit", "0.5");
    // What a naive `--cpulimit 0` does on cgroup v2.
    await expect(byHand("set", String(VMID), "--cpulimit", "0")).rejects.toThrow("unable to hotplug cpulimit");
    const outcome = await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    expect(outcome.commandLines).toEqual([expect.stringContaining("--delete=cpulimit")]);
    expect(configOf(fixture, VMID)?.options.has("cpulimit")).toBe(false);
  });

  it("a new rate keeps the MAC and the very interface; leaving the MAC out would not", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    const ifindex = (): string => readFileSync(join(fixture.paths.netClassRoot, `veth${VMID}i0`, "ifindex"), "utf8");
    const before = ifindex();
    const slower = cloneSpec(fixture.host, { network: eth0({ rateLimitKibPerSecond: 512 }) });
    const outcome = await fixture.containers.converge(runningWish(slower), bounds());
    expect(outcome.observation).toMatchObject({ mac: "BC:24:11:00:00:01", rateLimitKibPerSecond: 512 });
    expect(ifindex()).toBe(before);
    await byHand("set", String(VMID), "--net0", "name=eth0,bridge=vmbr0,ip=dhcp");
    expect(ifindex()).not.toBe(before);
  });

  it("a filter and a rate that go together with a move of VLAN really go", async () => {
    const filtered = cloneSpec(fixture.host, { network: eth0({ firewall: true, vlanTag: 7 }) });
    await fixture.containers.converge(runningWish(filtered), bounds());
    const moved = cloneSpec(fixture.host, { network: eth0({ vlanTag: 8, rateLimitKibPerSecond: 0 }) });
    const outcome = await fixture.containers.converge(runningWish(moved), bounds());
    expect(configOf(fixture, VMID)?.options.get("net0")).toBe(
      "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,tag=8,type=veth",
    );
    expect(outcome.commandLines).toHaveLength(3);
  });

  it("what an interface has counted is read before the container gets another one, and only then", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    const seen: (string | undefined)[] = [];
    const beforeNewInterface = async (): Promise<void> => {
      seen.push(await Promise.resolve(configOf(fixture, VMID)?.options.get("net0")));
    };
    const converge = (change: Partial<NetworkSpec>) =>
      fixture.containers.converge(
        runningWish(cloneSpec(fixture.host, { network: eth0(change) })),
        bounds({ beforeNewInterface }),
      );
    await converge({ rateLimitKibPerSecond: 2048, vlanTag: 7 });
    expect(seen).toEqual([]);
    await converge({ rateLimitKibPerSecond: 2048, vlanTag: 7, mac: "BC:24:11:00:00:02" });
    expect(seen).toEqual([expect.stringContaining("hwaddr=BC:24:11:00:00:01")]);
    expect(configOf(fixture, VMID)?.options.get("net0")).toContain("hwaddr=BC:24:11:00:00:02");
  });

  it("a network change that failed does not come true by itself at the next start", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    const elsewhere = cloneSpec(fixture.host, { network: eth0({ bridge: "vmbr7" }) });
    await expect(fixture.containers.converge(runningWish(elsewhere), bounds())).rejects.toMatchObject({
      code: "BRIDGE_MISSING",
    });
    expect(configOf(fixture, VMID)?.pending.options.get("net0")).toContain("vmbr7");
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    expect(configOf(fixture, VMID)?.pending.options.has("net0")).toBe(false);
  });
});

describe("programs that lie", () => {
  it("resize says 0 and has done nothing", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    const stderr = "command '/usr/bin/qemu-img resize -f raw x' failed: exit code 1";
    fixture.host.setFaults([{ match: { command: "resize" }, effect: { kind: "lie", stderr } }]);
    const bigger = wishFor({ spec: cloneSpec(fixture.host, { diskGb: 6 }) });
    await expect(fixture.containers.converge(bigger, bounds())).rejects.toMatchObject({
      code: "STEP_WITHOUT_EFFECT",
      message: expect.stringContaining("qemu-img") as string,
      observation: { diskGb: 4 },
    });
    fixture.host.clearFaults();
    expect((await fixture.containers.converge(bigger, bounds())).observation?.diskGb).toBe(6);
  });

  it("resize says 0 and only the volume has grown", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.setFaults([{ match: { command: "resize" }, effect: { kind: "grow-failure" } }]);
    const bigger = wishFor({ spec: cloneSpec(fixture.host, { diskGb: 6 }) });
    await expect(fixture.containers.converge(bigger, bounds())).rejects.toMatchObject({ code: "FILESYSTEM_NOT_GROWN" });
  });

  it("push says 0 and has written nothing: the marker does not claim keys that are not there", async () => {
    const wish = runningWish(cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY] }));
    fixture.host.setFaults([{ match: { command: "push" }, effect: { kind: "lie" } }]);
    await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject({ code: "KEYS_NOT_PUSHED" });
    expect(parseMarker(configOf(fixture, VMID)?.description ?? "")?.keys).toBe("none");
    fixture.host.clearFaults();
    await fixture.containers.converge(wish, bounds());
    expect(guestFile("root/.ssh/authorized_keys")).toContain(SSH_KEY);
    // Old keys that are read back are not the new ones.
    fixture.host.setFaults([{ match: { command: "push" }, effect: { kind: "lie" } }]);
    const before = configOf(fixture, VMID)?.description;
    const without = runningWish(cloneSpec(fixture.host, { sshAuthorizedKeys: [] }));
    await expect(fixture.containers.converge(without, bounds())).rejects.toMatchObject({ code: "KEYS_NOT_PUSHED" });
    expect(configOf(fixture, VMID)?.description).toBe(before);
  });

  it("a call that did everything and then failed has done it: another look decides", async () => {
    const odd = { kind: "fail-after", code: 255, stderr: "TASK ERROR: something odd" } as const;
    fixture.host.setFaults(
      ["clone", "set", "resize", "start"].map((command) => ({ match: { command }, effect: odd, times: 1 })),
    );
    const outcome = await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    expect(outcome.observation?.power).toBe(Power.POWER_RUNNING);
    expect(outcome.commandLines).toHaveLength(4);
    expect(volumesOf(fixture, VMID)).toHaveLength(1);
  });

  it("a call that did nothing and failed for no known reason is not repeated", async () => {
    const odd = { kind: "exit", code: 255, stderr: "something odd" } as const;
    fixture.host.setFaults([{ match: { command: "clone" }, effect: odd }]);
    const wish = runningWish(cloneSpec(fixture.host));
    await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject({
      code: "UNKNOWN_ERROR",
      message: "something odd",
      retryable: false,
      commandLines: [expect.stringContaining("clone")],
    });
  });

  it.each([2, 9, 111])("exit code %i means nothing, the text does", async (code) => {
    const stderr = "trying to acquire lock...\ncan't lock file '/run/lock/lxc/pve-config-100001.lock' - got timeout";
    fixture.host.setFaults([{ match: { command: "clone" }, effect: { kind: "exit", code, stderr }, times: 1 }]);
    const outcome = await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(outcome.observation?.podId).toBe(POD_ID);
  });
});
