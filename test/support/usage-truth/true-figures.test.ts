import { expect, test } from "vitest";
import { amountOf, share, textOf } from "./amounts.ts";
import { shownAt } from "./kernel.ts";
import { tellStory } from "./tell-story.ts";
import { trueFigures } from "./true-figures.ts";
import { counterNames, looksAt, usageOf } from "./true-usage.ts";
import { at, isAgentAt, type PodStory, type Run, type Story } from "./story.ts";

const dayMs = 86_400_000;
const options = {
  seed: 7,
  fromMs: Date.UTC(2026, 0, 30),
  toMs: Date.UTC(2026, 2, 2),
  hosts: 4,
  pods: 30,
  sampleMs: 600_000,
  offlineMs: 3 * dayMs,
  smallSpoolBytes: 200_000,
  eventMs: 20 * 3_600_000,
  absenceMs: 10 * 3_600_000,
};
const story = tellStory(options);
const truth = trueFigures(story, () => false);

test("the same seed tells the same story, another one another", () => {
  expect(tellStory(options)).toEqual(story);
  expect(tellStory({ ...options, seed: 8 })).not.toEqual(story);
});

test("a story has everything that metering has to survive", () => {
  const runs = story.pods.flatMap((pod) => pod.runs);
  const resets = runs.flatMap((run) => run.resets.map(({ what }) => what));
  expect(new Set(resets)).toEqual(new Set(["interface", "network", "disk"]));
  const crossing = (pod: PodStory, run: Run) =>
    run.base !== undefined && shownAt(pod.guest, run, Math.min(run.toMs, story.toMs)).counters.out > 2n ** 53n;
  expect(story.pods.filter((pod) => pod.runs.some((run) => crossing(pod, run))).length).toBeGreaterThan(2);
  expect(story.pods.filter((pod) => pod.stays.length > 1).length).toBeGreaterThan(5);
  expect(story.pods.filter((pod) => pod.allocations.length > 1).length).toBeGreaterThan(5);
  expect(story.hosts[1]?.boots.length).toBe(2);
  expect(story.hosts.every((host) => new Set(host.wallSteps.map(({ offMs }) => offMs)).size === 3)).toBe(true);
  expect(Math.max(...[...truth.months.values()].map((figures) => Number(figures["guest_out_bytes"])))).toBeGreaterThan(
    2 ** 53,
  );
});

test("nothing in a life overlaps, and agents are told to act only while they work", () => {
  for (const pod of story.pods) {
    const runs = pod.runs.toSorted((a, b) => a.fromMs - b.fromMs);
    runs.forEach((run, index) => expect(run.fromMs).toBeLessThan(runs[index + 1]?.fromMs ?? Infinity));
    runs.forEach((run, index) => expect(run.toMs).toBeLessThanOrEqual(runs[index + 1]?.fromMs ?? story.toMs));
    pod.allocations.forEach((allocation, index) =>
      expect(allocation.toMs).toBeLessThanOrEqual(pod.allocations[index + 1]?.fromMs ?? Infinity),
    );
    for (const run of runs) {
      const host = story.hosts[run.host];
      if (host === undefined) return expect.fail("no host");
      for (const reset of run.resets) expect(isAgentAt(host, reset.atMs)).toBe(true);
      if (run.toMs < story.toMs) expect(isAgentAt(host, run.toMs)).toBe(true);
    }
  }
});

/** What a run shows that it consumed between two instants, reset by reset. */
function consumed(pod: PodStory, run: Run, fromMs: number, toMs: number, name: (typeof counterNames)[number]): bigint {
  const bare = { ...run, base: undefined, resets: [] };
  return shownAt(pod.guest, bare, toMs).counters[name] - shownAt(pod.guest, bare, fromMs).counters[name];
}

test("by hours, days and months the usage is what the kernels counted in all lives", () => {
  for (const pod of story.pods) {
    const sums = [...usageOf(story, pod).values()];
    for (const name of counterNames) {
      const wanted = pod.runs.reduce((sum, run) => {
        const fromMs = run.base === undefined ? run.fromMs : story.fromMs;
        return sum + consumed(pod, run, fromMs, Math.min(run.toMs, story.toMs), name);
      }, 0n);
      expect(sums.reduce((sum, hour) => sum + hour.used[name], 0n)).toBe(wanted);
    }
    for (const level of [truth.hours, truth.days, truth.months]) {
      const rows = [...level].filter(([key]) => key.startsWith(pod.podId)).map(([, figures]) => figures);
      const uptime = pod.runs.reduce(
        (sum, run) =>
          sum + Math.min(run.toMs, story.toMs) - Math.max(run.fromMs, run.base === undefined ? 0 : story.fromMs),
        0,
      );
      expect(rows.reduce((sum, row) => sum + (row["uptime_ms"] ?? 0n), 0n)).toBe(BigInt(uptime));
    }
  }
});

const plain = (month: number): Story => {
  const [fromMs, toMs] = [Date.UTC(2026, month), Date.UTC(2026, month + 1)];
  const quiet = tellStory({ ...options, fromMs, toMs, hosts: 1, pods: 1, eventMs: 1e12, offlineMs: 3_600_000 });
  const pod = quiet.pods[0] ?? expect.fail("no pod");
  const allocation = { fromMs, toMs, planCode: undefined, cores: 2, memoryMb: 4_096, diskGb: 50 };
  const price = { ...(quiet.priceLists[0] ?? expect.fail("no list")), fromMs: 0, toMs: toMs + dayMs };
  const prices = { cpuPerHour: "0.01", memoryGbPerHour: "0.005", diskGbPerMonth: "0.10", networkOutGb: "0.05" };
  const run = { host: 0, fromMs, toMs, base: undefined, resets: [] };
  return {
    ...quiet,
    pods: [{ ...pod, tenant: 0, runs: [run], allocations: [allocation] }],
    hosts: quiet.hosts.map((host) => ({ ...host, offline: [] })),
    priceLists: [{ ...price, ...prices }],
  };
};

test.each([31, 28, 31])("month %#: %i days of disk are exactly the monthly price", (days) => {
  const month = days === 28 ? 1 : 0;
  const figures = [...trueFigures(plain(month), () => false).months.values()][0];
  expect(textOf(figures?.["cost_disk"] ?? 0n)).toBe("5.0000000000");
  expect(textOf(figures?.["cost_cpu"] ?? 0n)).toBe(
    `${(days * 24 * 2) / 100}`.replace(/^(\d+)\.?(\d*)$/, (_, whole, rest) => `${whole}.${rest.padEnd(10, "0")}`),
  );
});

test("a price change inside an hour splits its time to the millisecond and its traffic at the looks", () => {
  const before = plain(1);
  const [list] = before.priceLists;
  if (list === undefined) return expect.fail("no list");
  const cutMs = before.fromMs + 1_234_567;
  const story_ = {
    ...before,
    priceLists: [
      { ...list, toMs: cutMs },
      { ...list, fromMs: cutMs, cpuPerHour: "1", networkOutGb: "0" },
    ],
  };
  const figures = [...trueFigures(story_, () => false).hours.values()][0] ?? {};
  expect(figures["cost_cpu"]).toBe(
    share(amountOf("0.01"), 2n * 1_234_567n, 3_600_000n) +
      share(amountOf("1"), 2n * BigInt(3_600_000 - 1_234_567), 3_600_000n),
  );
  const pod = story_.pods[0] ?? expect.fail("no pod");
  const run = pod.runs[0] ?? expect.fail("no run");
  const lookMs = looksAt(story_, run).findLast((look) => look <= cutMs) ?? 0;
  const bytes = shownAt(pod.guest, run, lookMs).counters.out;
  expect(figures["cost_network_out"]).toBe(share(amountOf("0.05"), bytes, 2n ** 30n));
  expect(at(story_.priceLists, cutMs)?.cpuPerHour).toBe("1");
});

test("amounts keep ten places and round half up", () => {
  expect(textOf(amountOf("-12.5"))).toBe("-12.5000000000");
  expect(share(1n, 1n, 2n)).toBe(1n);
  expect(share(1n, 1n, 3n)).toBe(0n);
  expect(() => amountOf("1,5")).toThrow("1,5");
});
