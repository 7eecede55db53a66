import { afterEach, beforeEach, expect } from "vitest";
import { driveDrains } from "../../control-plane/src/drains/drive-drains.ts";
import { registerDrainRoutes } from "../../control-plane/src/drains/drains.http.ts";
import { registerMoveRoutes } from "../../control-plane/src/moves/moves.http.ts";
import { registerNodeRoutes } from "../../control-plane/src/nodes/nodes.http.ts";
import { openHints } from "../../control-plane/src/platform/hints.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import type { Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { registerSecurityRoutes } from "../../control-plane/src/security/security.http.ts";
import { bellOf } from "./bell.ts";
import { issuingDeps } from "./enrolled-host.ts";
import type { BenchNode, MoveWorkbench } from "./move-workbench.ts";
import { makePerson, send, type Sent } from "./people.ts";
import { buildTestApp } from "./test-app.ts";

/** An operator at the public door of a workbench, and the loop that drives drains, a pass at a time. */
export interface DrainBench {
  call(method: string, path: string, body?: unknown): Promise<Sent>;
  /** One pass of the loop. */
  drive(): Promise<number>;
  /** Passes until the drain of a host is over. @returns what the API shows of it */
  driveToEnd(node: BenchNode, deadlineMs?: number): Promise<Record<string, unknown>>;
}

/** Locks the rows of a host as whoever changes it. */
export async function lockHost(tx: Transaction, { id }: BenchNode): Promise<void> {
  await tx.execute(
    sql`SELECT FROM nodes n JOIN node_status s ON s.node_id = n.id WHERE n.id = ${id} FOR NO KEY UPDATE OF n, s`,
  );
}

/** The drains of a workbench, whose worker works, for each test of a file. */
export function drainsOf(bench: MoveWorkbench): DrainBench {
  let open: Awaited<ReturnType<typeof openDrainBench>>;
  beforeEach(async () => {
    bench.work();
    open = await openDrainBench(bench);
  });
  afterEach(() => open.close());
  return {
    call: (...request) => open.call(...request),
    drive: () => open.drive(),
    driveToEnd: (...until) => open.driveToEnd(...until),
  };
}

async function openDrainBench(bench: MoveWorkbench): Promise<DrainBench & { readonly close: () => Promise<void> }> {
  const bell = bellOf(bench.db.system);
  const hints = openHints({ url: bench.db.systemUrl, log: createLog({ level: "silent" }) });
  const deps = await issuingDeps(bench.db.system, Buffer.alloc(32, 7));
  const { app } = buildTestApp(bench.db, {
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerNodeRoutes(routes, { ...deps, hints });
      registerDrainRoutes(routes, { fleet: bench.fleet });
      registerMoveRoutes(routes, { fleet: bench.fleet, hints: { workQueued: () => bell.ring() } });
    },
  });
  const operator = await makePerson(bench.db, app, { platformRole: "OPERATOR" });
  const call = (method: string, path: string, body?: unknown): Promise<Sent> =>
    send(app, method, path, { body, headers: operator.headers });
  const drive = (): Promise<number> =>
    driveDrains({ db: bench.db.system, fleet: bench.fleet, onQueued: () => bell.ring() });
  return {
    call,
    drive,
    async driveToEnd(node, deadlineMs = 90_000) {
      let seen: Record<string, unknown> = {};
      await expect
        .poll(
          async () => {
            await drive();
            seen = (await call("GET", `/api/nodes/${node.name}/drain`)).json;
            return seen["finishedAt"] !== null;
          },
          { timeout: deadlineMs, interval: 20 },
        )
        .toBe(true);
      return seen;
    },
    close: () => hints.close(),
  };
}
