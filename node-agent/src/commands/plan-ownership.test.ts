import { ContainerObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { expect, test } from "vitest";
import { containersToStart, staleCopies, wantedByOwnership } from "./plan-ownership.ts";

const seen = (change: Partial<ContainerObservation>): ContainerObservation =>
  ContainerObservation.fromPartial({ podId: "pod", vmid: 100, generation: 2n, power: Power.POWER_RUNNING, ...change });
const owned = { podId: "pod", vmid: 100, generation: 2n, desiredPower: Power.POWER_RUNNING };
const alone = { owned: [owned], elsewhere: [], isClustered: false };

test("only a running container of an older generation of an owned pod is a stale copy", () => {
  const older = seen({ generation: 1n });
  expect(staleCopies([older], alone)).toEqual([{ podId: "pod", vmid: 100, generation: 1n }]);
  expect(staleCopies([seen({})], alone)).toEqual([]);
  expect(staleCopies([seen({ generation: 1n, power: Power.POWER_STOPPED })], alone)).toEqual([]);
});

test("in a cluster the container on the pod's own id has arrived with its former generation", () => {
  const arrived = seen({ generation: 1n });
  expect(staleCopies([arrived], { ...alone, isClustered: true })).toEqual([]);
  expect(staleCopies([seen({ generation: 1n, vmid: 101 })], { ...alone, isClustered: true })).toHaveLength(1);
});

test("what another host owns now is a stale copy, in a cluster too, unless it is newer than the session knows", () => {
  for (const isClustered of [false, true]) {
    const moved = { owned: [], elsewhere: [owned], isClustered };
    expect(staleCopies([seen({ generation: 1n })], moved)).toHaveLength(1);
    expect(staleCopies([seen({ generation: 2n }), seen({ generation: 3n })], moved)).toEqual([]);
  }
});

test("a container that the control plane does not list is left alone", () => {
  expect(staleCopies([seen({ podId: "other" }), seen({ podId: "" })], alone)).toEqual([]);
});

test("after a boot only stopped containers of exactly the owned generation start", () => {
  const stopped = { power: Power.POWER_STOPPED } as const;
  const start = (container: ContainerObservation) => containersToStart([container], wantedByOwnership([owned]));
  expect(start(seen(stopped))).toHaveLength(1);
  expect(start(seen({}))).toEqual([]);
  expect(start(seen({ ...stopped, generation: 1n }))).toEqual([]);
  expect(start(seen({ ...stopped, vmid: 101 }))).toEqual([]);
  expect(start(seen({ ...stopped, template: true }))).toEqual([]);
  expect(wantedByOwnership([{ ...owned, desiredPower: Power.POWER_STOPPED }])).toEqual([]);
});
