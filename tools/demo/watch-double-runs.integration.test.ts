import { expect, test } from "vitest";
import { aHost, type TestHost } from "../../test/simulated-host/test-host.ts";
import { until } from "../../test/support/until.ts";
import { findDoubleRuns, watchDoubleRuns } from "./watch-double-runs.ts";

async function start(on: TestHost, vmid: string): Promise<void> {
  await on.fine("clone", String(on.host.templateVmid), vmid);
  await on.fine("start", vmid);
}

test("an id that runs on two hosts is seen for as long as it does; one that has moved is not", async () => {
  const [one, two] = [await aHost({ nodeName: "pve1" }), await aHost({ nodeName: "pve2" })];
  const hosts = [
    { name: "pve1", simulated: one.host },
    { name: "pve2", simulated: two.host },
  ];
  const begunMs = performance.now();
  const watch = watchDoubleRuns(hosts);
  await start(one, "200");
  await one.fine("stop", "200");
  await start(two, "200");
  expect(findDoubleRuns(hosts)).toEqual([]);
  await until("time for several looks", () => performance.now() - begunMs > 500);
  const calm = watch.stop();
  expect(calm).toMatchObject({ seconds: 0, seen: [] });
  expect(calm.looks).toBeGreaterThan(1);

  const second = watchDoubleRuns(hosts);
  await one.fine("start", "200");
  await until("the double run", () => findDoubleRuns(hosts).length > 0);
  const doubleMs = performance.now();
  await until("time for several looks at it", () => performance.now() - doubleMs > 500);
  await two.fine("stop", "200");
  const { seconds, seen } = second.stop();
  expect(seen).toEqual(["200 on pve1 and pve2"]);
  expect(seconds).toBeGreaterThan(0);
});
