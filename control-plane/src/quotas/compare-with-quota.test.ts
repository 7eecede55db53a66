import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareWithQuota } from "./compare-with-quota.ts";
import { DEFAULT_TENANT_QUOTA } from "./quota.ts";

const amounts = (min: number) =>
  fc.record({
    pods: fc.integer({ min, max: 5 }),
    cpuCores: fc.integer({ min, max: 10 }),
    memoryMb: fc.integer({ min, max: 10_000 }),
    diskGb: fc.integer({ min, max: 300 }),
  });

describe("compareWithQuota", () => {
  it("is allowed exactly when every increase stays within its limit", () => {
    fc.assert(
      fc.property(amounts(0), amounts(-5), (usage, requested) => {
        const within = (current: number, more: number, max: number) => more <= 0 || current + more <= max;
        const expected =
          within(usage.pods, requested.pods, 2) &&
          within(usage.cpuCores, requested.cpuCores, 4) &&
          within(usage.memoryMb, requested.memoryMb, 8_192) &&
          within(usage.diskGb, requested.diskGb, 200);
        expect(compareWithQuota(DEFAULT_TENANT_QUOTA, usage, requested).allowed).toBe(expected);
      }),
    );
  });

  it("lets a tenant above a lowered limit give back, and nothing more of what is over", () => {
    const usage = { pods: 9, cpuCores: 9, memoryMb: 9_000, diskGb: 900 };
    expect(compareWithQuota(DEFAULT_TENANT_QUOTA, usage, { pods: 0, cpuCores: -1, memoryMb: -1, diskGb: 0 })).toEqual({
      allowed: true,
    });
    expect(
      compareWithQuota(DEFAULT_TENANT_QUOTA, usage, { pods: 0, cpuCores: -1, memoryMb: 1, diskGb: 0 }).allowed,
    ).toBe(false);
  });

  it("gives the figures of a refusal", () => {
    const check = compareWithQuota(
      DEFAULT_TENANT_QUOTA,
      { pods: 1, cpuCores: 3, memoryMb: 4_096, diskGb: 50 },
      { pods: 1, cpuCores: 2, memoryMb: 2_048, diskGb: 75 },
    );
    expect(check).toEqual({
      allowed: false,
      message: "The quota would be exceeded (CPU cores: 3 of 4 in use, 2 more asked).",
      details: {
        max_pods: 2,
        current_pods: 1,
        requested_pods: 1,
        max_cpu_cores: 4,
        current_cpu_cores: 3,
        requested_cpu_cores: 2,
        max_memory_mb: 8_192,
        current_memory_mb: 4_096,
        requested_memory_mb: 2_048,
        max_disk_gb: 200,
        current_disk_gb: 50,
        requested_disk_gb: 75,
      },
    });
  });
});
