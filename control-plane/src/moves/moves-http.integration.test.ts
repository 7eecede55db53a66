import { pino } from "pino";
import { beforeEach, describe, expect, test } from "vitest";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { bellOf } from "../../../test/support/bell.ts";
import { makePerson, send } from "../../../test/support/people.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { buildTestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { registerPodRoutes } from "../pods/pods.http.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerTaskRoutes } from "../tasks/tasks.http.ts";
import { clearLeftCopies } from "./left-copies.ts";
import { movePod } from "./move-pod.saga.ts";
import { registerMoveRoutes } from "./moves.http.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
beforeEach(() => {
  bench.work();
});

/** The API as an operator uses it in the tenant, or one of the tenant's own people. */
async function doorOf(who: Parameters<typeof makePerson>[2]) {
  const bell = bellOf(bench.db.system);
  const { app } = buildTestApp(bench.db, {
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerMoveRoutes(routes, { fleet: bench.fleet, hints: { workQueued: () => {} } });
      registerPodRoutes(routes);
      registerTaskRoutes(routes, {
        hints: {
          send: () => bell.ring(),
          on: () => () => {},
          listening: Promise.resolve(),
          close: () => Promise.resolve(),
        },
        sagas: [movePod],
        prepareRetry: () => Promise.resolve(undefined),
      });
    },
  });
  const person = await makePerson(bench.db, app, who);
  return (method: string, path: string, body?: unknown) =>
    send(app, method, path, { body, headers: { ...person.headers, "x-tenant-id": bench.tenantId } });
}

const operatorsDoor = () => doorOf({ platformRole: "OPERATOR" });

test("an operator sees first what a move would do, then has it done and sees what it cost", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const call = await operatorsDoor();
  const path = `/api/cloud-pods/admin/${pod.vmid}/migrate`;
  const wish = { target: to.name, reason: "the disk is failing" };
  const dry = await call("POST", `${path}?dryRun=true`, wish);
  expect(dry).toMatchObject({
    status: 200,
    json: { target: { node: to.name }, strategy: "backup-restore", expectedDowntimeMs: null, blocker: null },
  });
  expect(dry.json["commands"]).toContainEqual({
    node: to.name,
    command: "verify_backup",
    lines: null,
    reason: "The host was not asked.",
  });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id });
  expect(await call("POST", `${path}?dryRun=true`, { ...wish, target: from.name })).toMatchObject({
    json: { target: null, blocker: { code: "NO_WAY", message: `The pod is on ${from.name} already.` } },
  });
  const asked = await call("POST", path, wish);
  expect(asked).toMatchObject({ status: 202, json: { task: { type: "migrate" } } });
  await bench.end(String(asked.headers.get("location")).split("/").at(-1) ?? "");
  const [past] = await bench.db.system.query<{ downtimeMs: number }>(
    sql`SELECT downtime_ms AS "downtimeMs" FROM cloud_pod_moves WHERE pod_id = ${pod.id}`,
  );
  expect((await call("GET", `/api/cloud-pods/${pod.id}/placement`)).json).toMatchObject({
    node: to.name,
    history: [
      { node: from.name, downtimeMs: null },
      { node: to.name, downtimeMs: past?.downtimeMs },
    ],
  });
  // The next one is expected to take as long.
  const again = await call("POST", `${path}?dryRun=true`, { reason: "back" });
  expect(again.json).toMatchObject({ target: { node: from.name }, expectedDowntimeMs: past?.downtimeMs });
  expect(await call("POST", path, { reason: "x", target: "nowhere" })).toMatchObject({ status: 404 });
  expect(await call("POST", path, { reason: "x", target: to.name })).toMatchObject({
    status: 409,
    json: { error: "NO_WAY", detail: `The pod is on ${to.name} already.` },
  });
});

test("a move to a host that was named is refused with that host's own reason", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  await bench.db.system.execute(
    sql`UPDATE nodes SET schedulable = false, cordon_reason = 'new memory' WHERE id = ${to.id}`,
  );
  const call = await operatorsDoor();
  const refused = await call("POST", `/api/cloud-pods/admin/${pod.vmid}/migrate`, { target: to.name, reason: "x" });
  expect(refused).toMatchObject({ status: 503, json: { error: "NO_CAPACITY" } });
  expect(refused.json["detail"]).toContain(`${to.name} cannot take this pod: cordoned: new memory.`);
  expect(refused.json["detail"]).toMatch(/ not the host that was named/);
  expect(refused.text).not.toContain("not reachable from there");
});

test("a pod with volumes that no archive holds is not moved by one", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const call = await operatorsDoor();
  const path = `/api/cloud-pods/admin/${pod.vmid}/migrate`;
  const wish = { target: to.name, reason: "the disk is failing" };
  // Another interface goes with the configuration, and what is marked as another pod's says nothing of this one.
  for (const [of, parts] of [
    [pod, ["net1"]],
    [{ ...pod, id: bench.tenantId }, ["mp0"]],
  ] as const) {
    await bench.giveVolumes(from, of, [...parts]);
    expect((await call("POST", `${path}?dryRun=true`, wish)).json).toMatchObject({ blocker: null });
  }
  await bench.giveVolumes(from, pod, ["mp0", "net1", "unused1"]);
  const message = expect.stringContaining("has mp0, unused1 (seen at ");
  expect((await call("POST", `${path}?dryRun=true`, wish)).json).toMatchObject({
    target: null,
    blocker: { code: "MORE_THAN_A_POD", message },
  });
  expect(await call("POST", path, wish)).toMatchObject({ status: 409, json: { error: "MORE_THAN_A_POD", message } });
  expect((await bench.books(pod.id)).claims).toHaveLength(1);
});

test("nothing is moved from a host that does not answer, and the dry run says so too", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const call = await operatorsDoor();
  const path = `/api/cloud-pods/admin/${pod.vmid}/migrate`;
  const wish = { target: to.name, reason: "test" };
  await setState(from, "offline");
  for (const where of [`${path}?dryRun=true`, path])
    expect(await call("POST", where, wish)).toMatchObject({ status: 409, json: { error: "NODE_NOT_ONLINE" } });
  expect((await bench.books(pod.id)).claims).toHaveLength(1);
  await setState(from, "online");
  expect(await call("POST", `${path}?dryRun=true`, wish)).toMatchObject({ status: 200 });
});

test("an operator cancels a move until its pod is stopped for it, whoever asked for it; nobody else does", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const call = await operatorsDoor();
  const path = `/api/cloud-pods/admin/${pod.vmid}/migrate`;
  const begin = async () => {
    const asked = await call("POST", path, { target: to.name, reason: "test" });
    return String(asked.headers.get("location"));
  };
  bench.hosts.away.add(from.id);
  const waits = await begin();
  const owners = await doorOf({ tenants: { [bench.tenantId]: "owner" } });
  expect(await owners("POST", `${waits}/cancel`)).toMatchObject({ status: 403, json: { error: "TASK_NOT_YOURS" } });
  expect(await call("POST", `${waits}/cancel`)).toMatchObject({ status: 202 });
  // Its host has never heard of it: nobody has to answer for it to end.
  expect(await bench.end(waits.split("/").at(-1) ?? "")).toEqual({ state: "cancelled", errorCode: "CANCELLED" });
  expect((await bench.books(pod.id)).claims).toHaveLength(1);
  bench.hosts.away.clear();
  bench.hosts.script = (command) => {
    if (command.op?.$case === "backup") bench.hosts.away.add(to.id);
    return undefined;
  };
  const late = await begin();
  const stopped = sql`SELECT FROM cloud_pod_moves WHERE pod_id = ${pod.id} AND state = 'moving' AND stopped_at IS NOT NULL`;
  await expect.poll(async () => (await bench.db.system.query(stopped)).length, { timeout: 60_000 }).toBe(1);
  expect(await call("POST", `${late}/cancel`)).toMatchObject({ status: 409, json: { error: "TASK_NOT_CANCELLABLE" } });
  bench.hosts.away.clear();
  expect((await bench.end(late.split("/").at(-1) ?? "")).state).toBe("succeeded");
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
});

describe("a copy that was left behind", () => {
  /** A source that fell silent holds one. */
  async function leftBehind(): Promise<{ from: BenchNode; to: BenchNode; pod: Pod }> {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    bench.hosts.script = (command) => {
      if (command.op?.$case === "restore") bench.hosts.away.add(from.id);
      return undefined;
    };
    const call = await operatorsDoor();
    const asked = await call("POST", `/api/cloud-pods/admin/${pod.id}/migrate`, { target: to.name, reason: "test" });
    await setState(from, "offline");
    expect((await bench.end(String(asked.headers.get("location")).split("/").at(-1) ?? "")).state).toBe("succeeded");
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: expect.arrayContaining([from.id, to.id]), running: [to.id] });
    expect((await bench.books(pod.id)).claims).toHaveLength(2);
    return { from, to, pod };
  }

  test("goes when the source is back, and only then its room is free", async () => {
    const { from, to, pod } = await leftBehind();
    expect(await clearLeftCopies(doors())).toEqual({ asked: [], released: 0 });
    await setState(from, "online");
    bench.hosts.away.clear();
    await expect
      .poll(
        async () => {
          await clearLeftCopies(doors());
          return (await bench.books(pod.id)).claims.length;
        },
        { timeout: 60_000, interval: 20 },
      )
      .toBe(1);
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
  });

  test("is removed by nobody who has seen it before it became all that there is, and by one at a time", async () => {
    const { from, pod } = await leftBehind();
    await setState(from, "online");
    const removals = () =>
      bench.db.system.query(
        sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND node_id = ${from.id} AND op = 'ensure_absent' AND task_id IS NULL`,
      );
    const clearStandingStill = (meanwhile: () => Promise<unknown>) =>
      clearLeftCopies({ ...doors(), db: standingStill(bench.db.system, 1, meanwhile) });
    const missing = (since: string | null) =>
      bench.db.system.execute(sql`UPDATE cloud_pods SET container_missing_since = ${since} WHERE id = ${pod.id}`);
    await clearStandingStill(() => missing("now"));
    expect(await removals()).toEqual([]);
    await missing(null);
    await clearStandingStill(() => clearLeftCopies(doors()));
    expect(await removals()).toHaveLength(1);
  });
});

async function setState({ id }: BenchNode, state: string): Promise<void> {
  await bench.db.system.execute(
    sql`UPDATE node_status SET state = ${state}, session_connected = ${state === "online"} WHERE node_id = ${id}`,
  );
}

function twoOf(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new Error("two hosts");
  return [a, b];
}
