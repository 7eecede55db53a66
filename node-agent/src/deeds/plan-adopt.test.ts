import fc from "fast-check";
import { expect, test } from "vitest";
import type { AdoptOrder } from "../containers/containers.ts";
import { parseMarker } from "../containers/marker.ts";
import type { ContainerHere } from "../containers/observed-container.ts";
import { pctSet } from "../pct/pct-arguments.ts";
import { parseContainerConfig } from "../pct/parse-pct-config.ts";
import { planAdopt } from "./plan-adopt.ts";

const podId = "0193a5b0-1111-7abc-8def-000000000001";
const order: AdoptOrder = { podId, vmid: 102, fleetEpoch: 1n, generation: 4n, expectedConfigSha256: "agreed" };
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
