import fc from "fast-check";
import { expect, test } from "vitest";
import type { ContainerFailure } from "../containers/container-failure.ts";
import type { AdoptOrder } from "../containers/containers.ts";
import { parseMarker } from "../containers/marker.ts";
import type { ContainerHere } from "../containers/observed-container.ts";
import { pctSet } from "../pct/pct-arguments.ts";
import { parseContainerConfig } from "../pct/parse-pct-config.ts";
import { planAdopt } from "./plan-adopt.ts";

const podId = "0193a5b0-1111-7abc-8def-000000000001";
const order: AdoptOrder = {
  podId,
  vmid: 102,
  fleetEpoch: 1n,
  generation: 4n,
  expectedConfigSha256: "agreed",
  replacesPodId: "",
};
const here = (description: string, change: Partial<ContainerHere> = {}): ContainerHere => ({
  where: "here",
  config: { ...parseContainerConfig("hostname: x\ntags: web\nonboot: 1\n"), description },
  configSha256: "agreed",
  digest: "a".repeat(40),
  running: true,
  lockIsStale: false,
  ...change,
});

test("whatever its owner wrote, the mark can be written and read, and the owner's lines stay", () => {
  const line = fc
    .array(fc.oneof(fc.string(), fc.constantFrom("\t", "\r", "\0", "\u0085", "ü")))
    .map((all) => all.join(""));
  fc.assert(
    fc.property(fc.array(line, { maxLength: 4 }), (lines) => {
      const text = lines.join("\n");
      if (text.includes("cloudpods pod=")) return;
      const change = planAdopt(order, here(text));
      const { description = "" } = change?.options ?? {};
      expect(parseMarker(description)).toMatchObject({ podId, generation: 4n, stage: "ready" });
      const kept = description.split("\n").slice(1).join("\n");
      expect(kept).toBe(text.replaceAll(/[^\P{Cc}\n]/gu, " ").replace(/\n+$/u, ""));
      if (change !== undefined) expect(pctSet(102, change).args.at(-1)).toBe(`--digest=${"a".repeat(40)}`);
    }),
  );
});

test("nothing but an unmarked container as agreed is changed", () => {
  expect(() => planAdopt(order, here("", { configSha256: "other" }))).toThrow("not as it was");
  expect(() => planAdopt(order, { where: "elsewhere", node: "pve2", type: "lxc" })).toThrow("is on node pve2");
  expect(() => planAdopt(order, { where: "nowhere" })).toThrow("does not exist");
  const marked = planAdopt(order, here("Ann's"))?.options.description ?? "";
  expect(planAdopt(order, here(marked, { configSha256: "other" }))).toBeUndefined();
  expect(() => planAdopt({ ...order, generation: 3n }, here(marked))).toThrow("generation 4");
  expect(() => planAdopt({ ...order, podId: podId.replace(/1$/u, "2") }, here(marked))).toThrow("belongs to pod");
});

test("the mark of an adoption that came to nothing is replaced, once, and no other pod's", () => {
  const marked = planAdopt({ ...order, generation: 9n }, here("Ann's"))?.options.description ?? "";
  const next = { ...order, podId: podId.replace(/1$/u, "2"), replacesPodId: podId };
  const { description = "" } = planAdopt(next, here(marked))?.options ?? {};
  expect(parseMarker(description)).toMatchObject({ podId: next.podId, generation: 4n });
  expect(description.split("\n").slice(1)).toEqual(["Ann's"]);
  expect(planAdopt(next, here(description, { configSha256: "other" }))).toBeUndefined();
  expect(() => planAdopt(next, here(marked, { configSha256: "other" }))).toThrow("not as it was");
  expect(() => planAdopt({ ...next, replacesPodId: podId.replace(/1$/u, "3") }, here(marked))).toThrow(
    "belongs to pod",
  );
});

test("a container that is more than a pod is refused, by the names of what it has", () => {
  const refusal = (...lines: string[]): string => {
    const config = parseContainerConfig(
      ["hostname: x", "rootfs: local-lvm:vm-102-disk-0,size=8G", ...lines].join("\n"),
    );
    try {
      planAdopt(order, here("", { config }));
      return "";
    } catch (error) {
      return `${(error as ContainerFailure).code} ${(error as ContainerFailure).message}`;
    }
  };
  expect(refusal("net0: name=eth0,bridge=vmbr0", "cpulimit: 0", "cpuunits: 100", "unprivileged: 1")).toBe("");
  for (const [key, line] of Object.entries({
    mp0: "mp0: local-lvm:vm-102-disk-1,mp=/data,size=200G",
    mp12: "mp12: /srv/x,mp=/x",
    unused3: "unused3: local-lvm:vm-102-disk-3",
    net1: "net1: name=eth1,bridge=vmbr0",
    net10: "net10: name=eth10,bridge=vmbr0",
    dev0: "dev0: /dev/kvm",
    hookscript: "hookscript: local:snippets/h.pl",
    "lxc.mount.entry": "lxc.mount.entry: /srv srv none bind 0 0",
    mp1: "[pve:pending]\nmp1: /srv/x,mp=/x",
  })) {
    expect(refusal(line)).toMatch(new RegExp(`^MORE_THAN_A_POD .* has ${key.replaceAll(".", "\\.")},`, "u"));
  }
  expect(refusal("mp0: /a,mp=/a", "lxc.x: 1", "dev0: /dev/kvm")).toContain("dev0, lxc.x, mp0");
});

test("what no pod has and the first wish would change is refused", () => {
  const of = (...lines: string[]) => here("", { config: parseContainerConfig(["hostname: x", ...lines].join("\n")) });
  const disk = (size: string) => of(`rootfs: local-lvm:vm-102-disk-0,size=${size}`);
  expect(() => planAdopt(order, disk("8704M"))).toThrow("8.50 GiB");
  expect(planAdopt(order, disk("8192M"))).toBeDefined();
  expect(() => planAdopt(order, of("cpulimit: 1.5"))).toThrow("cpulimit");
  expect(() => planAdopt(order, of("cpuunits: 50"))).toThrow("cpuunits");
});
