import { expect, test } from "vitest";
import { explainFit, explainPlacement } from "./placement-views.ts";

const pve1 = { node: "pve1", points: 313, scores: { "best-fit": 313 } };
const placed = {
  node: "pve1",
  region: "eu",
  storage: "local-lvm",
  summary: "2 of 3 nodes: 1 cordoned",
  hosts: { candidates: [pve1], rejected: [{ node: "pve2", reason: "cordoned" }] },
  history: [
    { node: "pve3", from: "2026-01-01T00:00:00Z", to: "2026-01-02T00:00:00Z", downtimeMs: null },
    { node: "pve1", from: "2026-01-02T00:00:00Z", to: null, downtimeMs: 12_300 },
  ],
};

test("why a pod is where it is, with hosts for operators", () => {
  expect(explainPlacement("shop-1 (100000)", placed)).toBe(
    [
      "shop-1 (100000) is on pve1 (region eu, storage local-lvm).",
      "Its place there is of 2026-01-02T00:00:00Z; it was away 12s to come there.",
      "When it was placed, 2 of 3 nodes could take it (1 cordoned).",
      "Hosts that fit, best first:",
      "  pve1 (chosen): 313 points, best-fit 313",
      "Hosts that do not:",
      "  pve2: cordoned",
      "Before:",
      "  pve3, given up 2026-01-02T00:00:00Z",
    ].join("\n"),
  );
  const customers = explainPlacement("shop-1 (100000)", { ...placed, hosts: null });
  expect(customers).not.toContain("pve2");
});

test("why a plan fits nowhere, equal reasons together", () => {
  const reason = "short of memory by 512 MB";
  const verdict = {
    summary: "0 of 3 nodes: 2 short of memory by 512 MB, 1 cordoned",
    chosen: null,
    nodes: 3,
    fitting: 0,
    candidates: [],
    rejected: [
      { node: "pve1", reason },
      { node: "pve2", reason },
      { node: "pve3", reason: "cordoned" },
    ],
  };
  expect(explainFit("BUSINESS", verdict)).toBe(
    [
      "BUSINESS fits nowhere now: 0 of 3 nodes could take it (2 short of memory by 512 MB, 1 cordoned).",
      "Hosts that do not:",
      "  pve1, pve2: short of memory by 512 MB",
      "  pve3: cordoned",
    ].join("\n"),
  );
  expect(explainFit("BUSINESS", { ...verdict, summary: "0 of 0 nodes", nodes: 0, rejected: [] })).toBe(
    "BUSINESS fits nowhere: there are no hosts.",
  );
  expect(explainFit("MINI", { ...verdict, chosen: { ...pve1, storage: "ceph" }, summary: "3 of 3 nodes" })).toMatch(
    /^MINI would be placed on pve1 \(storage ceph\); 3 of 3 nodes could take it\./,
  );
});
