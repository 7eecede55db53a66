import { expect, test } from "vitest";
import { send, type Person, type Sent } from "../../../test/support/people.ts";
import { PodsOverHttp } from "../../../test/support/pods-over-http.ts";
import { until } from "../../../test/support/until.ts";
import { sql } from "../platform/sql.ts";
import { findTask } from "./change-task.ts";

const bench = new PodsOverHttp();

test("what the system did by itself is not the customer's to try again, but an operator's", async () => {
  const id = await failedStop();
  const before = (await findTask(bench.db.system, id)).requestedBy;
  const retry = (who: Person): Promise<Sent> =>
    send(bench.app, "POST", `/api/tasks/${id}/retry`, { headers: who.headers });
  const requestedBy = (by: string) =>
    bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET requested_by = ${by} WHERE id = ${id}`);
  await requestedBy("system:budgets");
  expect(await retry(bench.customer)).toMatchObject({ status: 403, json: { error: "TASK_NOT_YOURS" } });
  expect((await findTask(bench.db.system, id)).state).toBe("failed");
  expect((await retry(bench.operator)).status).toBe(202);
  expect((await bench.end(id)).state).toBe("failed");
  await requestedBy(before);
  bench.script = () => undefined;
  expect((await retry(bench.customer)).status).toBe(202);
  expect((await bench.end(id)).state).toBe("succeeded");
});

test("operators see who asked for work; customers do not see the addresses of others", async () => {
  const pod = await bench.running();
  const stop = await bench.ask(bench.operator, "POST", `/${pod.id}/stop`);
  const id = String(stop.headers.get("location")).split("/").at(-1) ?? "";
  await bench.done(stop);
  const read = async (who: Person, path: string) =>
    (await send(bench.app, "GET", path, { headers: { ...who.headers, "x-tenant-id": bench.tenantId } })).json;
  const known = { requestedBy: `user:${bench.operator.userId}`, requestedByEmail: bench.operator.email };
  expect(await read(bench.operator, `/api/tasks/${id}`)).toMatchObject(known);
  for (const path of [`/api/tasks?podId=${pod.id}`, `/api/cloud-pods/${pod.id}/tasks`]) {
    const { data } = await read(bench.operator, path);
    expect(data).toMatchObject([known, { requestedByEmail: bench.customer.email }]);
    expect(JSON.stringify(await read(bench.customer, path))).not.toContain("requestedByEmail");
  }
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET requested_by = 'user:of-long-ago' WHERE id = ${id}`,
  );
  expect(await read(bench.operator, `/api/tasks/${id}`)).toMatchObject({ requestedByEmail: null });
});

test("the story of a finished task ends, also for who has heard its end and when it is not kept any more", async () => {
  const pod = await bench.running();
  const [{ id } = { id: "" }] = await bench.db.system.query<{ id: string }>(
    sql`SELECT id FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id}`,
  );
  const whole = await story(id);
  expect(whole.at(-1)).toContain('"state":"succeeded"');
  expect(await story(id, String(whole.length - 1))).toEqual(whole.slice(-1));
  expect(await story(id, String(whole.length))).toEqual([]);
  await bench.db.system.execute(sql`DELETE FROM cloud_pod_task_events WHERE task_id = ${id}`);
  expect(await story(id)).toEqual([]);
});

test("the story of a task that was tried again goes on to its end", async () => {
  const id = await failedStop();
  // negative control: it was over
  expect((await story(id)).at(-1)).toContain('"state":"failed"');
  bench.script = () => undefined;
  await send(bench.app, "POST", `/api/tasks/${id}/retry`, { headers: bench.customer.headers });
  expect((await bench.end(id)).state).toBe("succeeded");
  expect((await story(id)).at(-1)).toContain('"state":"succeeded"');
});

/** The id of a customer's task that has failed, and would again. */
async function failedStop(): Promise<string> {
  const pod = await bench.running();
  bench.script = ({ op }) =>
    op?.$case === "ensurePower" ? { state: "failed", errorCode: "STOP_FAILED", retryable: false } : undefined;
  const stop = await bench.ask(bench.customer, "POST", `/${pod.id}/stop`);
  const id = String(stop.headers.get("location")).split("/").at(-1) ?? "";
  expect((await bench.end(id)).state).toBe("failed");
  return id;
}

/** The lines of a task's stream, once that has ended. */
async function story(id: string, lastEventId?: string): Promise<string[]> {
  const answer = await bench.app.request(`/api/tasks/${id}/events`, {
    headers: { ...bench.customer.headers, ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }) },
  });
  expect(answer.status).toBe(200);
  let text: string | undefined;
  void answer.text().then((whole) => (text = whole));
  await until("the end of the stream", () => text !== undefined);
  return (text ?? "").split("\n").filter((line) => line.startsWith("data: "));
}
