import { expect, test } from "vitest";
import type { AnswerOf } from "../api/endpoints.ts";
import { renderPod, renderPods, standingOf } from "./pod-views.ts";

const pod: AnswerOf<"showPod"> = {
  id: "01a2162d-180d-7059-8cdd-7f82994538d4",
  vmid: 100_000,
  tenantId: "019a0000-0000-7000-8000-000000000001",
  name: "Shop",
  hostname: "shop-1",
  domain: null,
  region: "eu",
  status: "active",
  power: "running",
  desiredPower: "running",
  planCode: null,
  cores: 1,
  memoryMb: 1_024,
  swapMb: 512,
  diskGb: 30,
  ip: null,
  mac: "BC:24:11:38:A1:7F",
  node: "pve1",
  labels: {},
  lastError: null,
  holds: [],
  orderedAt: "2026-03-02T10:00:00.000Z",
  activatedAt: null,
};
const nowMs = Date.parse("2026-03-02T11:00:00.000Z");

test("a pod that is paid by use is metered, in the list and by itself; its health stands under the rest", () => {
  const health = { healthy: true, observationAgeSeconds: 5, conditions: [] };
  const shown = renderPod(pod, nowMs, health);
  expect(shown).toMatch(/^plan: +metered$/m);
  expect(shown).toMatch(/^size: +1 core, 1 GB memory/m);
  const columns = shown.split("\n").map((line) => /^[^:]+: +/.exec(line)?.[0].length);
  expect(new Set(columns).size).toBe(1);
  expect(shown).toMatch(/^health: +healthy, seen 5s ago$/m);
  expect(renderPods([pod], undefined, nowMs)).toMatch(/ running +metered +1 /);
});

test("a pod that is gone is listed with its id, which alone names it, and has no power", () => {
  const gone = { ...pod, status: "deleted", power: "unknown", desiredPower: "stopped" };
  const list = renderPods([gone, pod], undefined, nowMs);
  expect(list).toMatch(new RegExp(` ID\\n.* deleted +- .* ${pod.id}\\n`));
  expect(renderPods([pod], undefined, nowMs)).not.toContain(pod.id);
  expect(standingOf(gone)).toBe(`deleted; what backups are left of it: cloudpods backups ls ${pod.id}`);
  expect(standingOf(pod)).toBe("active, running on pve1");
});

test("a list of all tenants' pods names the tenants", () => {
  expect(renderPods([pod], new Map([[pod.tenantId, "acme"]]), nowMs)).toMatch(/ TENANT\n.* acme$/);
  expect(renderPods([pod], new Map(), nowMs)).toMatch(new RegExp(` ${pod.tenantId}$`));
});
