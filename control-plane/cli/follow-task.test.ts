import { expect, test } from "vitest";
import type { Api, TaskEvent } from "./api/client.ts";
import { ApiRefusal, UnreachableError } from "./errors.ts";
import { followTask } from "./follow-task.ts";

const task = {
  id: "t1",
  podId: "p1",
  type: "create",
  step: "create",
  attempts: 0,
  error: null,
  requestedBy: "user:1",
  createdAt: "",
  finishedAt: null,
};

/** A control plane that streams and answers by lists, whose last entries stay. */
function scripted(script: {
  readonly streams: readonly (readonly (TaskEvent | Error)[])[];
  readonly looks: readonly (string | Error)[];
}) {
  const asked: (string | undefined)[] = [];
  let looks = 0;
  const api: Api = {
    // Only this one endpoint is called.
    call: (async () => {
      const look = script.looks[Math.min(looks++, script.looks.length - 1)];
      if (look instanceof Error) throw look;
      return { text: "{}", body: { ...task, state: look, percent: 50 } };
    }) as unknown as Api["call"],
    async *taskEvents(_id, lastEventId) {
      asked.push(lastEventId);
      for (const event of script.streams[asked.length - 1] ?? script.streams.at(-1) ?? []) {
        if (event instanceof Error) throw event;
        yield event;
      }
    },
  };
  return { api, asked };
}

const event = (id: number): TaskEvent => ({
  id: String(id),
  state: "running",
  step: "create",
  percent: id,
  message: "",
});
const away = new UnreachableError("gone");

async function follow(api: Api, deadlineMs = 20_000) {
  const shown: number[] = [];
  const ended = await followTask(api, "t1", {
    deadlineMs,
    pollMs: 5,
    onProgress: ({ percent }) => shown.push(percent),
  });
  return { state: ended.body.state, shown };
}

test("a stream that breaks is taken up after the last event that was seen", async () => {
  const { api, asked } = scripted({
    streams: [[event(1), event(2), away], [event(3)]],
    looks: ["running", "succeeded"],
  });
  expect(await follow(api)).toMatchObject({ state: "succeeded", shown: expect.arrayContaining([1, 2, 3]) });
  expect(asked).toEqual([undefined, "2"]);
});

test("where no stream comes through, the task is asked again and again, also after a restart", async () => {
  const { api, asked } = scripted({ streams: [[away]], looks: [away, "running", "running", "running", "failed"] });
  const { state, shown } = await follow(api);
  expect(state).toBe("failed");
  expect(shown).toEqual([50, 50, 50, 50]);
  expect(asked).toHaveLength(3);
});

test("what may not be seen is not waited for; what does not end has an end", async () => {
  const refusal = new ApiRefusal({ status: 404, title: "", detail: "none", error: "TASK_NOT_FOUND" }, "", undefined);
  await expect(follow(scripted({ streams: [[refusal]], looks: ["running"] }).api)).rejects.toBe(refusal);
  const endless = scripted({ streams: [[away]], looks: ["running"] });
  await expect(follow(endless.api, 300)).rejects.toThrow("cloudpods tasks watch t1");
});
