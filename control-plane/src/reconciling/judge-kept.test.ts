import { type ContainerObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, test } from "vitest";
import { aContainer, again, aPod, at, compare, known } from "../../../test/support/comparisons.ts";
import type { KnownPod } from "./known-pod.ts";

describe("a copy that a move has left, whose room is kept until it is removed", () => {
  const away = {
    nodeId: "there",
    node: "pve2",
    generation: 2n,
    highestGeneration: 3n,
    hasRoomHere: true,
    keptHere: 1n,
  };
  const kept = (pod: Partial<KnownPod>, container: Partial<ContainerObservation> = {}) => ({
    pods: [aPod({ ...away, ...pod })],
    containers: [aContainer(container)],
  });
  const stopped = { power: Power.POWER_STOPPED };

  test.each([
    ["of the place before", {}, {}],
    ["of an attempt that came to nothing", {}, { generation: 3n }],
    ["of a pod that its owner gave up", { status: "deleted", nodeId: null, node: null, isSeenAtHome: false }, {}],
  ] as const)("is stopped while it runs, %s, and removed by nobody here", (_, pod, container) => {
    const { seen, deeds } = again(kept(pod, container), 30);
    expect(seen).toMatchObject([{ kind: "stale-copy", offered: ["dismiss"] }]);
    expect(deeds).toMatchObject([{ deed: "stop", kind: "stale-copy", podId: "pod" }]);
    expect(again(kept(pod, { ...container, ...stopped }), 30)).toMatchObject({ seen: [], deeds: [] });
  });

  test.each([
    ["its pod's own host does not show the pod", { isSeenAtHome: false }, {}],
    ["it carries the generation in force", {}, { generation: 2n }],
    ["its mark is above all that we ever told", {}, { generation: 4n }],
    ["it has another id", {}, { vmid: 900 }],
    ["somebody works on the pod", { isSettled: false }, {}],
    [
      "it was somebody's own before an adoption that failed",
      { status: "deleted", wasAdopted: true, wasActivated: false },
      {},
    ],
  ] as const)("is left alone when %s", (_, pod, container) => {
    expect(again(kept(pod, container), 30)).toMatchObject({ seen: [], deeds: [] });
  });

  test("is no finding any more once it is stopped, and a new one when it is still there after a day", () => {
    const running = known({ subject: "pod 1 running", action: "stop", actedAt: at(59), attempts: 1, sightings: 9 });
    const longThere = known({ subject: "pod 1", state: "dismissed" });
    expect(compare({ ...kept({}), history: [running] })).toMatchObject({ seen: [{ sightings: 10 }], deeds: [] });
    expect(compare({ ...kept({}), history: [running] }, { now: at(65) }).deeds).toHaveLength(1);
    expect(compare({ ...kept({}, stopped), history: [running] }).gone).toEqual([running]);
    expect(compare({ ...kept({}, stopped), history: [longThere] }).gone).toEqual([]);
    expect(compare({ ...kept({ isSettled: false }), history: [running] }).gone).toEqual([]);
    expect(compare({ ...kept({ hasRoomHere: false }), history: [running] }).seen).toMatchObject([
      { subject: "pod 1", sightings: 1 },
    ]);
  });
});
