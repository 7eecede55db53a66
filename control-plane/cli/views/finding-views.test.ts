import { describe, expect, test } from "vitest";
import { describeEvidence } from "./evidence-view.ts";
import { renderFindings } from "./finding-views.ts";

describe("what a finding rests on", () => {
  test.each([
    [
      {
        ip: "10.9.8.7",
        power: "stopped",
        cores: 2,
        memoryMb: 768,
        diskGb: 8,
        hostname: "shop",
        storage: "zfs",
        lock: "",
      },
      "power stopped, cores 2, memory 768 MB, disk 8 GB, hostname shop, address 10.9.8.7, storage zfs, lock none",
    ],
    [
      { seen: { cores: 4, swapMb: 2_048 }, wanted: { cores: 2, swapMb: 512 }, differs: ["cores", "swapMb"] },
      "seen (cores 4, swap 2 GB), wanted (cores 2, swap 512 MB), differs cores and swap",
    ],
    [
      { wanted: { cores: 1 }, newestBackup: null, seenOn: [{ node: "pve2", power: "running" }, { node: "pve3" }] },
      "wanted (cores 1), newest backup none, seen on (node pve2, power running) and (node pve3)",
    ],
    [
      { pod: "active", inForce: "3", ofTheSameId: true, seenOn: [] },
      /generation in force 3, of the same id yes, seen on none$/,
    ],
  ])("%j", (evidence, says) => {
    expect(describeEvidence(evidence)).toMatch(says);
  });

  test("is in the table of findings", () => {
    const finding = {
      id: "f1",
      node: "pve1",
      vmid: 555,
      podId: null,
      kind: "unmanaged",
      subject: "BC:24:11:0A:0B:0C",
      evidence: { diskGb: 8 },
      offered: ["adopt", "dismiss"],
      state: "open",
      firstSeenAt: "2026-01-01T00:00:00Z",
      resolvedAt: null,
      sightings: 3,
      action: null,
      actionState: null,
      actionError: null,
      taskId: null,
    };
    const [names, line] = renderFindings([finding], Date.parse("2026-01-01T00:01:00Z")).split("\n");
    expect(names).toMatch(/OFFERED +EVIDENCE$/);
    expect(line).toMatch(/adopt, dismiss +disk 8 GB$/);
    const over = { ...finding, resolvedAt: "2026-01-01T00:01:00Z" };
    const lineOf = (state: string) =>
      renderFindings([{ ...over, state }], Date.parse("2026-01-03T00:00:00Z")).split("\n")[1];
    // What is over lasted that long, and offers nothing.
    expect(lineOf("resolved")).toMatch(/ 1m +3 +- +- +disk 8 GB$/);
    expect(lineOf("dismissed")).toMatch(/ 2d +3 +- +adopt, dismiss +disk 8 GB$/);
  });
});
