import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  VMID,
  bounds,
  cloneSpec,
  configOf,
  createFixture,
  volumesOf,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import type { ContainerWish } from "./container-wish.ts";

let fixture: Fixture;

beforeEach(async () => {
  fixture = await createFixture();
});

afterEach(() => fixture.dispose());

const stopped: Partial<ContainerWish> = { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 0 };
const settled: [string, Partial<ContainerWish>, Power, string][] = [
  ["start", { power: Power.POWER_RUNNING }, Power.POWER_STOPPED, `CT ${VMID} already running`],
  ["stop", stopped, Power.POWER_RUNNING, `CT ${VMID} not running`],
  [
    "destroy",
    { present: false },
    Power.POWER_STOPPED,
    `Configuration file 'nodes/pve1/lxc/${VMID}.conf' does not exist`,
  ],
];

describe("an error that says that the wish is fulfilled already", () => {
  it.each(settled)("%s: is none when the host shows the same", async (command, wish, power, stderr) => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host), power }), bounds());
    // Somebody else did it a moment before.
    fixture.host.setFaults([{ match: { command }, effect: { kind: "fail-after", code: 2, stderr }, times: 1 }]);
    const { observation, commandLines } = await fixture.containers.converge(wishFor(wish), bounds());
    expect(commandLines.filter((line) => line.includes(` ${command} `))).toHaveLength(1);
    expect(observation?.power).toBe(wish.present === false ? undefined : wish.power);
  });

  it.each(settled)("%s: is not believed when the host shows otherwise", async (command, wish, power, stderr) => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host), power }), bounds());
    fixture.host.setFaults([{ match: { command }, effect: { kind: "exit", code: 2, stderr }, times: 1 }]);
    const { observation, commandLines } = await fixture.containers.converge(wishFor(wish), bounds());
    expect(commandLines.filter((line) => line.includes(` ${command} `))).toHaveLength(2);
    expect(observation?.power).toBe(wish.present === false ? undefined : wish.power);
    expect(volumesOf(fixture, VMID)).toHaveLength(wish.present === false ? 0 : 1);
  });
});

describe("a template whose storage cannot link", () => {
  it("is copied whole, also when nobody asked for that", async () => {
    await fixture.dispose();
    fixture = await createFixture({ storages: [{ id: "local", type: "dir", totalGb: 100 }] });
    const spec = cloneSpec(fixture.host, { storage: "local" });
    const { commandLines } = await fixture.containers.converge(wishFor({ spec }), bounds());
    expect(commandLines[0]).toMatch(/ clone 9000 100001 .*--full=1/u);
    expect(configOf(fixture, VMID)?.options.get("rootfs")).toMatch(/^local:/u);
  });

  it("is linked where it can be, and copied to another storage", async () => {
    const { commandLines } = await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(commandLines[0]).toContain("--full=0");
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    const spec = cloneSpec(fixture.host, { storage: "local" });
    const moved = await fixture.containers.converge(wishFor({ spec, generation: 2n }), bounds());
    expect(moved.commandLines[0]).toMatch(/--full=1 .*--storage=local(?: |$)/u);
    expect(configOf(fixture, VMID)?.options.get("rootfs")).toMatch(/^local:/u);
  });
});

describe("heavy work", () => {
  it("never has more than three programs at a time, however many containers are wished", async () => {
    const volumeId = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";
    const source = { $case: "archive", value: { volumeId } } as const;
    fixture.host.setFaults([{ match: { command: "create" }, effect: { kind: "delay", ms: 1_500 } }]);
    const numbers = [1, 2, 3, 4, 5, 6];
    const wishes = numbers.map((number) =>
      wishFor({
        vmid: VMID + number,
        podId: `0193a5b0-1111-7abc-8def-00000000000${number}`,
        spec: cloneSpec(fixture.host, { source }),
      }),
    );
    await Promise.all(wishes.map((wish) => fixture.containers.converge(wish, bounds())));
    const creates = (await fixture.host.invocations()).filter(({ argv }) => argv.includes("create"));
    expect(creates).toHaveLength(numbers.length);
    const runningAt = (moment: number): number =>
      creates.filter(({ startedAt, endedAt = Number.POSITIVE_INFINITY }) => startedAt <= moment && moment < endedAt)
        .length;
    expect(Math.max(...creates.map(({ startedAt }) => runningAt(startedAt)))).toBe(3);
  });
});
