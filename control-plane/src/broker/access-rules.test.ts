import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nodeTopics } from "@cloudpods/shared/topics";
import { mayPublish, maySubscribe, parseIdentity, type BrokerIdentity } from "./access-rules.ts";

const nodeId = "0198a3f0-0000-7000-8000-000000000001";
const otherId = "0198a3f0-0000-7000-8000-000000000002";
const nodeChannels = ["samples", "acks", "heartbeat", "status"] as const;
const node: BrokerIdentity = { kind: "node", nodeId, commonName: nodeId };
const replica: BrokerIdentity = { kind: "control-plane", commonName: "control-plane" };

describe("identity", () => {
  test("is the node id or a replica of the control plane", () => {
    expect(parseIdentity(nodeId)).toEqual(node);
    expect(parseIdentity("control-plane")).toEqual(replica);
  });

  test.each([undefined, "", "control-plane:a", "admin", ["x"], `${nodeId}/x`])("%j is nobody", (name) => {
    expect(parseIdentity(name)).toBeUndefined();
  });
});

describe("a node", () => {
  test.each(["samples", "heartbeat", "status"] as const)("publishes its own %s", (channel) => {
    expect(mayPublish(node, { topic: nodeTopics(nodeId)[channel], qos: 1, retain: false })).toBe(true);
  });

  test("retains nothing but its status", () => {
    for (const channel of nodeChannels) {
      const attempt = { topic: nodeTopics(nodeId)[channel], qos: 1, retain: true };
      expect(mayPublish(node, attempt)).toBe(channel === "status");
    }
  });

  test("reads its own acknowledgements", () => {
    expect(maySubscribe(node, nodeTopics(nodeId).acks)).toBe(true);
  });

  test("touches no topic that is not exactly its own", () => {
    const part = fc.oneof(
      fc.constantFrom("cloudpods", "v1", "nodes", nodeId, otherId, "+", "#", "$share", "g", ""),
      fc.constantFrom(...nodeChannels),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const topic = parts.join("/");
        const own = (channels: readonly string[]) =>
          channels.some((channel) => topic === `cloudpods/v1/nodes/${nodeId}/${channel}`);
        expect(mayPublish(node, { topic, qos: 1, retain: false })).toBe(own(["samples", "heartbeat", "status"]));
        expect(maySubscribe(node, topic)).toBe(own(["acks"]));
      }),
      { numRuns: 2_000 },
    );
  });

  test("does not use QoS 2", () => {
    expect(mayPublish(node, { topic: nodeTopics(nodeId).samples, qos: 2, retain: false })).toBe(false);
  });
});

describe("the control plane", () => {
  test("acknowledges any node and publishes nothing in a node's name", () => {
    expect(mayPublish(replica, { topic: nodeTopics(otherId).acks, qos: 1, retain: false })).toBe(true);
    expect(mayPublish(replica, { topic: nodeTopics(otherId).samples, qos: 1, retain: false })).toBe(false);
  });

  test("reads all nodes", () => {
    expect(maySubscribe(replica, nodeTopics("+").samples)).toBe(true);
    expect(maySubscribe(replica, "#")).toBe(false);
  });
});
