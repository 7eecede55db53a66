import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerSpec, NetworkSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseProperties, parseRootDisk, splitList } from "../pct/parse-pct-config.ts";
import { keysDigest } from "./authorized-keys.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import { formatMarker, parseMarker } from "./marker.ts";
import { rateKibOf } from "./observed-container.ts";
import { planContainer } from "./plan-container.ts";
import type { PlanHost } from "./plan-container.ts";
import { apply, empty, seen } from "../../../test/support/container-model.ts";
import type { ModelContainer, ModelHost } from "../../../test/support/container-model.ts";
import type { Step } from "./plan-step.ts";

const POD = "0193a5b0-1111-7abc-8def-000000000001";
const OTHER_POD = "0193a5b0-1111-7abc-8def-000000000002";
const VMID = 100_001;
const TEMPLATE = 9000;
const KEYS = ["none", keysDigest([`ssh-ed25519 ${"A".repeat(68)}`])];

const network: fc.Arbitrary<NetworkSpec> = fc.record({
  bridge: fc.constantFrom("vmbr0", "vmbr1"),
  mac: fc.constant("BC:24:11:00:00:01"),
  ip: fc.constantFrom("dhcp", "10.0.0.5/24"),
  gateway: fc.constantFrom("", "10.0.0.1"),
  rateLimitKibPerSecond: fc.constantFrom(0, 1000, 1280),
  firewall: fc.boolean(),
  vlanTag: fc.constantFrom(0, 7, 8),
  ipFilter: fc.boolean(),
});

const spec = fc
  .record({
    hostname: fc.constantFrom("a", "b.example.org"),
    cores: fc.integer({ min: 1, max: 4 }),
    memoryMb: fc.constantFrom(256, 512, 1024),
    swapMb: fc.constantFrom(0, 512),
    diskGb: fc.integer({ min: 1, max: 6 }),
    storage: fc.constantFrom("", "lvm", "local"),
    pool: fc.constant(""),
    network,
    source: fc.constantFrom<NonNullable<ContainerSpec["source"]>>(
      { $case: "clone" as const, value: { templateVmid: TEMPLATE, full: false } },
      { $case: "archive" as const, value: { volumeId: "local:vztmpl/debian.tar.zst" } },
    ),
    unprivileged: fc.constant(true),
    nesting: fc.boolean(),
    sshAuthorizedKeys: fc.constant<string[]>([]),
    nameserver: fc.constantFrom("", "9.9.9.9"),
    searchDomain: fc.constantFrom("", "example.org"),
  })
  // Only a clone has a storage of its own to stay on.
  .map((one): ContainerSpec =>
    one.source?.$case === "archive" && one.storage === "" ? { ...one, storage: "lvm" } : one,
  );

const wish: fc.Arbitrary<ContainerWish> = fc
  .record({
    spec,
    power: fc.constantFrom(Power.POWER_UNSPECIFIED, Power.POWER_RUNNING, Power.POWER_STOPPED),
    present: fc.boolean(),
    withSpec: fc.boolean(),
    generation: fc.constantFrom(1n, 2n, 3n),
    shutdownTimeoutSeconds: fc.constantFrom(0, 30),
  })
  .map(({ spec: wanted, withSpec, ...rest }) => ({
    ...rest,
    podId: POD,
    vmid: VMID,
    fleetEpoch: 1n,
    ...(withSpec ? { spec: wanted } : {}),
  }));

/** What a configuration may hold, whoever wrote it. */
const options = fc
  .record(
    {
      hostname: fc.constantFrom("a", "other"),
      cores: fc.constantFrom("1", "2"),
      cpulimit: fc.constantFrom("0.5", "2"),
      cpuunits: fc.constant("50"),
      memory: fc.constantFrom("256", "512", "1024"),
      swap: fc.constantFrom("0", "512"),
      onboot: fc.constantFrom("0", "1"),
      tags: fc.constantFrom("cloudpods", "old;shop", "cloudpods;shop"),
      features: fc.constantFrom("nesting=1", "fuse=1", "fuse=1,nesting=1"),
      nameserver: fc.constantFrom("9.9.9.9", "1.1.1.1"),
      searchdomain: fc.constantFrom("example.org", "lan"),
      net0: fc.constantFrom(
        "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth",
        "name=eth0,bridge=vmbr1,firewall=1,hwaddr=BC:24:11:00:00:01,ip=10.0.0.5/24,gw=10.0.0.1,rate=5,tag=7,type=veth",
        "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:AA:AA:AA,ip=dhcp,mtu=1400,rate=0.5,type=veth",
      ),
      rootfs: fc.constantFrom(
        "lvm:vm-1-disk-0,size=2G",
        "lvm:vm-1-disk-0,size=4G",
        "local:1/vm-1-disk-0.raw,size=2560M",
      ),
    },
    { requiredKeys: ["hostname", "rootfs", "net0"] },
  )
  .map((record) => new Map(Object.entries({ ...record, unprivileged: "1" })));

const lock = fc.constantFrom(undefined, undefined, "create", "disk", "backup", "destroyed", "rollback", "snapshot");

const container: fc.Arbitrary<ModelContainer> = fc
  .record({
    options,
    running: fc.boolean(),
    lock,
    podId: fc.constantFrom(POD, POD, POD, OTHER_POD, undefined),
    generation: fc.constantFrom(1n, 2n, 3n),
    stage: fc.constantFrom("new" as const, "ready" as const),
    keys: fc.constantFrom(...KEYS),
    note: fc.constantFrom("", "\nwritten by a person"),
    pending: fc.dictionary(fc.constantFrom("features", "nameserver"), fc.constant("nesting=1"), { maxKeys: 1 }),
    pendingDeletes: fc.subarray(["searchdomain"]),
  })
  .map(({ podId, generation, stage, keys, note, lock: held, ...rest }) => {
    const marker = podId === undefined ? "" : formatMarker({ podId, fleetEpoch: 1n, generation, stage, keys });
    if (held !== undefined) rest.options.set("lock", held);
    const pending = rest.running ? new Map(Object.entries(rest.pending)) : new Map<string, string>();
    if (pending.has("nameserver")) pending.set("nameserver", "8.8.8.8");
    return {
      description: `${marker}${note}`,
      options: rest.options,
      pending,
      pendingDeletes: new Set(rest.running ? rest.pendingDeletes : []),
      running: rest.running,
    };
  });

const half: fc.Arbitrary<ModelContainer> = fc.constantFrom("create", "destroyed").map((held) => {
  const nameless = empty();
  nameless.options.set("lock", held);
  return nameless;
});

const world = fc
  .record({
    container: fc.oneof(fc.constant(undefined), container, half),
    template: options,
    templateLock: fc.constantFrom(undefined, "disk"),
  })
  .map(({ container: present, template, templateLock }) => {
    const host: ModelHost = new Map();
    const source = empty();
    source.options = new Map(template).set("template", "1");
    if (templateLock !== undefined) source.options.set("lock", templateLock);
    host.set(TEMPLATE, source);
    if (present !== undefined) host.set(VMID, present);
    return host;
  });

const keysChoice = fc.constantFrom(undefined, ...KEYS);

function planHost(host: ModelHost, digest: string | undefined, ownHalf: boolean): PlanHost {
  return {
    template: seen(host, TEMPLATE),
    linkableStorages: new Set(["lvm"]),
    keys: digest === undefined ? undefined : { digest, keysFile: "/k/1.keys", pushFile: "/k/1.merged" },
    ownHalf,
    lxcRoot: "/var/lib/lxc",
  };
}

/** The plan, or the failure that says why there is none. */
function planned(
  wanted: ContainerWish,
  host: ModelHost,
  digest: string | undefined,
  ownHalf: boolean,
): Step[] | ContainerFailure {
  try {
    return planContainer(wanted, seen(host, VMID), planHost(host, digest, ownHalf));
  } catch (error) {
    if (error instanceof ContainerFailure) return error;
    throw error;
  }
}

function copyOf(host: ModelHost): ModelHost {
  return new Map(
    [...host].map(([vmid, one]) => [
      vmid,
      {
        ...one,
        options: new Map(one.options),
        pending: new Map(one.pending),
        pendingDeletes: new Set(one.pendingDeletes),
      },
    ]),
  );
}

function expectFulfilled(wanted: ContainerWish, host: ModelHost, digest: string | undefined): void {
  const now = host.get(VMID);
  if (!wanted.present) {
    expect(now).toBe(undefined);
    return;
  }
  if (now === undefined) throw new Error("the container is missing");
  const marker = parseMarker(now.description);
  expect(marker).toMatchObject({ podId: POD, fleetEpoch: 1n, generation: wanted.generation });
  expect(splitList(now.options.get("tags") ?? "")).toContain("cloudpods");
  expect(now.options.has("lock")).toBe(false);
  if (wanted.power === Power.POWER_RUNNING) expect(now.running).toBe(true);
  if (wanted.power === Power.POWER_STOPPED) expect(now.running).toBe(false);
  if (now.running && digest !== undefined) expect(marker?.keys).toBe(digest);
  if (wanted.spec !== undefined) expectSpecified(wanted.spec, now);
}

function expectSpecified(wanted: ContainerSpec, now: ModelContainer): void {
  const later = new Map([...now.options, ...now.pending]);
  for (const key of now.pendingDeletes) later.delete(key);
  expect(later.get("hostname")).toBe(wanted.hostname);
  expect(later.get("onboot") ?? "0").toBe("0");
  expect(Number(later.get("cores"))).toBe(wanted.cores);
  expect(Number(later.get("memory") ?? 512)).toBe(wanted.memoryMb);
  expect(Number(later.get("swap") ?? 512)).toBe(wanted.swapMb);
  expect(later.has("cpulimit") || later.has("cpuunits")).toBe(false);
  expect((later.get("features") ?? "").includes("nesting=1")).toBe(wanted.nesting);
  expect(later.get("nameserver") ?? "").toBe(wanted.nameserver);
  expect(later.get("searchdomain") ?? "").toBe(wanted.searchDomain);
  expect(parseRootDisk(later.get("rootfs") ?? "")?.sizeBytes).toBe(wanted.diskGb * 2 ** 30);
  const net = parseProperties(later.get("net0") ?? "", "name");
  expect(net.get("bridge")).toBe(wanted.network?.bridge);
  expect(net.get("hwaddr")).toBe(wanted.network?.mac);
  expect(net.get("ip")).toBe(wanted.network?.ip);
  expect(rateKibOf(net)).toBe(wanted.network?.rateLimitKibPerSecond);
  expect(net.get("firewall") === "1").toBe(wanted.network?.firewall);
  expect(Number(net.get("tag") ?? 0)).toBe(wanted.network?.vlanTag);
}

const everything = [wish, world, keysChoice, fc.boolean()] as const;

describe("the plan", () => {
  it("its first step, again and again, leads to the wish, and then there is nothing left to do", () => {
    fc.assert(
      fc.property(...everything, (wanted, initial, digest, ownHalf) => {
        const host = copyOf(initial);
        for (let taken = 0; taken < 25; taken += 1) {
          const steps = planned(wanted, host, digest, ownHalf);
          if (steps instanceof ContainerFailure) return;
          const [next] = steps;
          if (next === undefined) {
            expectFulfilled(wanted, host, digest);
            return;
          }
          for (const invocation of next.invocations) applyLeniently(host, next, invocation);
        }
        throw new Error("the plan does not end");
      }),
      { numRuns: 2000 },
    );
  });

  it("carried out as it stands, it leads there too: the dry run tells the truth", () => {
    fc.assert(
      fc.property(...everything, (wanted, initial, digest, ownHalf) => {
        const host = copyOf(initial);
        const steps = planned(wanted, host, digest, ownHalf);
        if (steps instanceof ContainerFailure) return;
        for (const step of steps) {
          for (const invocation of step.invocations) applyLeniently(host, step, invocation);
        }
        expect(planned(wanted, host, digest, ownHalf)).toEqual([]);
      }),
      { numRuns: 2000 },
    );
  });

  it("never touches a container without this pod's marker, or of a newer placement", () => {
    fc.assert(
      fc.property(...everything, (wanted, host, digest, ownHalf) => {
        const present = host.get(VMID);
        if (present === undefined) return;
        const marker = parseMarker(present.description);
        const isNamelessHalf = present.options.size === 1 && present.options.has("lock");
        const isOurs = marker?.podId === POD && marker.generation <= wanted.generation;
        if (isOurs || (isNamelessHalf && ownHalf)) return;
        const refusal = planned(wanted, host, digest, ownHalf);
        expect(refusal).toBeInstanceOf(ContainerFailure);
        expect(["VMID_CONFLICT", "STALE_GENERATION"]).toContain((refusal as ContainerFailure).code);
      }),
      { numRuns: 1000 },
    );
  });

  it("changes nothing but its own container, save the lock that a killed clone left on its template", () => {
    fc.assert(
      fc.property(...everything, (wanted, host, digest, ownHalf) => {
        const steps = planned(wanted, host, digest, ownHalf);
        if (steps instanceof ContainerFailure) return;
        for (const { name, invocations } of steps) {
          for (const { program, args } of invocations) {
            if (program === "umount") {
              expect(args).toEqual(["-R", `/var/lib/lxc/${VMID}/rootfs`]);
              continue;
            }
            const changed = args[0] === "clone" ? args[2] : args[1];
            expect(changed).toBe(name === "unlock-template" ? String(TEMPLATE) : String(VMID));
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("never shrinks a disk: it says so before it does anything", () => {
    fc.assert(
      fc.property(...everything, (wanted, host, digest, ownHalf) => {
        const before = host.get(VMID) ?? host.get(TEMPLATE);
        const isClone = wanted.spec?.source?.$case === "clone";
        const bytes = parseRootDisk(before?.options.get("rootfs") ?? "")?.sizeBytes ?? 0;
        const steps = planned(wanted, host, digest, ownHalf);
        const wantsLess = wanted.present && wanted.spec !== undefined && bytes > wanted.spec.diskGb * 2 ** 30;
        // A container that was never finished is made anew.
        const isHalf = before?.options.get("lock") === "create";
        if (!wantsLess || isHalf || (!host.has(VMID) && !isClone)) return;
        expect(steps).toBeInstanceOf(ContainerFailure);
      }),
      { numRuns: 1000 },
    );
  });

  it("on a running container every change that can fail stands alone, and every network keeps its MAC", () => {
    const risky = /^--(?:memory|swap|net0|delete)=/u;
    fc.assert(
      fc.property(...everything, (wanted, host, digest, ownHalf) => {
        const running = host.get(VMID)?.running ?? false;
        const steps = planned(wanted, host, digest, ownHalf);
        if (steps instanceof ContainerFailure) return;
        for (const { args } of steps.flatMap(({ invocations }) => invocations)) {
          for (const word of args) {
            if (word.startsWith("--net0=")) expect(word).toContain("hwaddr=BC:24:11:00:00:01");
            expect(word).not.toMatch(/^--cpulimit/u);
          }
          const dangerous = args.filter(
            (word) => risky.test(word) && !/^--delete=(?:features|nameserver|searchdomain|,)+$/u.test(word),
          );
          if (running && args[0] === "set" && dangerous.length > 0) expect(args).toHaveLength(3);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

/** A clean-up tolerates that there is nothing mounted and no lock left. */
function applyLeniently(host: ModelHost, step: Step, invocation: Step["invocations"][number]): void {
  if (step.name === "clean-up" && invocation !== step.invocations.at(-1)) {
    try {
      apply(host, invocation);
    } catch {
      // As `runStep` does.
    }
    return;
  }
  apply(host, invocation);
}
