import { expect, test } from "vitest";
import type { Api } from "./api/client.ts";
import { ApiRefusal, TaskFailedError, UnreachableError } from "./errors.ts";
import { followDrain } from "./follow-drain.ts";

/** A control plane that answers by a list, whose last entry stays. */
function scripted(
  looks: readonly (Error | { readonly id?: string; readonly percent: number; readonly over?: true })[],
) {
  const asked: unknown[] = [];
  const api: Api = {
    // Only this one endpoint is called.
    call: (async (_: string, input: unknown) => {
      const look = looks[Math.min(asked.push(input), looks.length) - 1];
      if (look instanceof Error) throw look;
      return { text: "{}", body: { id: "d1", ...look, finishedAt: look?.over ? "2026-01-01T00:00:00Z" : null } };
    }) as unknown as Api["call"],
    taskEvents() {
      throw new Error("nobody follows a task here");
    },
  };
  return { api, asked };
}

async function follow(api: Api, deadlineMs = 20_000) {
  const shown: number[] = [];
  const ended = await followDrain(
    api,
    { id: "d1", node: "pve1", nodeId: "n1" },
    { deadlineMs, pollMs: 5, onLook: ({ percent }) => shown.push(percent) },
  );
  return { ended: ended.body.percent, shown };
}

test("a drain is looked at to its end, also over a restart of the control plane", async () => {
  const { api, asked } = scripted([
    { percent: 0 },
    new UnreachableError("gone"),
    { percent: 50 },
    { percent: 100, over: true },
  ]);
  expect(await follow(api)).toEqual({ ended: 100, shown: [0, 50, 100] });
  expect(asked[0]).toEqual({ node: "n1" });
});

test("what may not be seen or is another one is not waited for; what does not end has an end", async () => {
  const refusal = new ApiRefusal({ status: 404, title: "", detail: "none", error: "NO_DRAIN" }, "", undefined);
  await expect(follow(scripted([{ percent: 0 }, refusal]).api)).rejects.toBe(refusal);
  const other = scripted([{ percent: 0 }, { id: "d2", percent: 0, over: true }]);
  await expect(follow(other.api)).rejects.toThrow(TaskFailedError);
  await expect(follow(scripted([{ percent: 0 }]).api, 200)).rejects.toThrow("cloudpods nodes drains pve1 --wait");
});
