import { expect, test } from "vitest";
import { send, type Person, type Sent } from "../../../test/support/people.ts";
import { PodsOverHttp } from "../../../test/support/pods-over-http.ts";
import { sql } from "../platform/sql.ts";
import { findTask } from "./change-task.ts";

const bench = new PodsOverHttp();

test("what the system did by itself is not the customer's to try again, but an operator's", async () => {
  const pod = await bench.running();
  bench.script = ({ op }) =>
    op?.$case === "ensurePower" ? { state: "failed", errorCode: "STOP_FAILED", retryable: false } : undefined;
  const stop = await bench.ask(bench.customer, "POST", `/${pod.id}/stop`);
  const id = String(stop.headers.get("location")).split("/").at(-1) ?? "";
  expect((await bench.end(id)).state).toBe("failed");
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
