import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createApi, type Api } from "./client.ts";

let answer: object = {};
let api: Api;
const server = createServer((_, response) => response.end(JSON.stringify(answer)));
beforeAll(async () => {
  await new Promise((resolve) => server.once("listening", resolve).listen(0, "127.0.0.1"));
  // It listens on a port, not on a path.
  const { port } = server.address() as AddressInfo;
  const baseUrl = `http://127.0.0.1:${port}`;
  api = createApi({ baseUrl, token: undefined, tenantId: undefined, deadlineMs: 5_000, onRetry: () => {} });
});
afterAll(() => server.close());

const pod = {
  name: "shop",
  vmid: 100_000,
  state: "moving",
  target: "pve2",
  strategy: "cluster-migrate",
  step: "check",
};

/** As a server told it that did not know of `waitsFor`, nor of how old an archive is. */
const ofOlderServer = {
  id: "1",
  nodeId: "2",
  node: "pve1",
  kind: "drain",
  state: "moving",
  reason: "memory",
  requestedBy: "user:3",
  requestedByEmail: null,
  deadlineAt: "2026-11-26T12:00:00.000Z",
  returnHome: false,
  cancelRequestedAt: null,
  outcome: null,
  startedAt: "2026-11-26T10:00:00.000Z",
  finishedAt: null,
  returnedAt: null,
  percent: 40,
  counts: { moving: 1 },
  downtimeMs: null,
  pods: [{ ...pod, percent: 10, expectedDowntimeMs: 5_000, downtimeMs: null, blocker: null }],
};

test("what a server does not know of yet is null where it may be, and all else is read", async () => {
  answer = ofOlderServer;
  const { body, text } = await api.call("showDrain", { node: "pve1" });
  expect(body).toEqual({
    ...ofOlderServer,
    waitsFor: null,
    pods: [{ ...ofOlderServer.pods[0], archiveAgeSeconds: null }],
  });
  expect(JSON.parse(text), "--json shows what came").toEqual(ofOlderServer);
});

test.each([
  ["what must be there is missing", { ...ofOlderServer, percent: undefined }],
  ["what must be there is null", { ...ofOlderServer, percent: null }],
  ["what may be null is something else", { ...ofOlderServer, outcome: 7 }],
  [
    "what would stand in the way is missing",
    { ...ofOlderServer, pods: [{ ...ofOlderServer.pods[0], blocker: undefined }] },
  ],
  ["a part of it is no object", { ...ofOlderServer, pods: ["shop"] }],
])("negative control: an answer where %s is none", async (_, wrong) => {
  answer = wrong;
  await expect(api.call("showDrain", { node: "pve1" })).rejects.toThrow("in a form that this version does not know");
});
