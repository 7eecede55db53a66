import { expect, test } from "vitest";
import type { Api } from "./api/client.ts";
import { UnreachableError } from "./errors.ts";
import type { OpenedCli } from "./open-cli.ts";
import { proveProvisioning } from "./provision-test.ts";

const pod = { id: "p1", vmid: 7, hostname: "trial", node: "pve1" };
const order = { planCode: "STARTER", region: undefined, hostname: "trial" };
const failed = { id: "t1", type: "create", state: "failed", error: { code: "BROKEN", message: "no disk" } };

/** A control plane whose orders fail, and what it was asked. */
function failing(destroy: () => unknown) {
  const asked: string[] = [];
  const answers: Readonly<Record<string, () => unknown>> = {
    createPod: () => ({ pod, task: { id: "t1", type: "create" } }),
    showTask: () => failed,
    destroyPod: destroy,
  };
  const notes: string[] = [];
  const api: Api = {
    // Only these are called.
    call: (async (name: string) => {
      asked.push(name);
      return { text: "{}", body: answers[name]?.() };
    }) as unknown as Api["call"],
    async *taskEvents() {},
  };
  const out = { print() {}, raw() {}, note: (text: string) => void notes.push(text) };
  return { cli: { api, out, isJson: false } as unknown as OpenedCli, asked, notes };
}

const before = [process.listenerCount("SIGINT"), process.listenerCount("SIGTERM")];

test("a pod that could not be made is destroyed; where that fails too, both are told", async () => {
  const { cli, asked, notes } = failing(() => {
    throw new UnreachableError("gone");
  });
  await expect(proveProvisioning(cli, order, 5_000)).rejects.toThrow("no disk (BROKEN)");
  expect(asked.at(-1)).toBe("destroyPod");
  expect(notes).toEqual([expect.stringMatching(/^cloudpods: gone\n.*cloudpods pods destroy p1$/)]);
  expect([process.listenerCount("SIGINT"), process.listenerCount("SIGTERM")]).toEqual(before);
});
