import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { readAuthorities } from "./ensure-certificate-authority.ts";
import { followRotation } from "./follow-rotation.ts";
import { readRotation, rotateAuthority } from "./rotate-certificate-authority.ts";

const key = Buffer.alloc(32, 9);
const master = masterKey(key);
let db: TestDatabase;
let hosts: EnrolledHost[];
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  await db.system.execute(sql`UPDATE nodes SET removed_at = now()`);
  await db.system.execute(sql`UPDATE certificate_authorities SET state = 'retired' WHERE state IN ('next', 'leaving')`);
  const deps = await issuingDeps(db.system, key);
  hosts = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
  await db.system.execute(sql`
    UPDATE node_status SET session_connected = true, capabilities = ${["renew_certificate"]} WHERE node_id = ANY(${ids()}::uuid[])`);
});

const ids = (): string[] => hosts.map(({ nodeId }) => nodeId);

/** The host does what it is told, has begun a session with its new certificate, and its inventory came in it. */
async function renew({ nodeId }: EnrolledHost): Promise<void> {
  const { active } = await readAuthorities(db.system, master);
  await db.system.execute(sql`
    UPDATE node_commands SET state = 'succeeded', finished_at = now() WHERE node_id = ${nodeId} AND finished_at IS NULL`);
  await db.system.execute(sql`
    INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, authority_id, first_used_at)
    VALUES (${newId()}, ${nodeId}, 'x', 'x', now(), now() + interval '30 days', ${active.id}, clock_timestamp())`);
  await db.system.execute(sql`UPDATE node_status SET inventory_at = clock_timestamp() WHERE node_id = ${nodeId}`);
}

function follow(deadlineMs = 100_000) {
  const lines: string[] = [];
  const options = { externalBroker: undefined, deadlineMs, onLine: (line: string) => void lines.push(line) };
  // Hosts are told when a step is taken and at no look between: a host is seldom done at once, and a look may fall into it.
  const ended = followRotation(db.system, master, { ...options, pollMs: 5, tellEveryMs: 600_000 });
  const until = (start: string) =>
    expect.poll(() => lines.at(-1)?.startsWith(start), { timeout: 60_000, interval: 5 }).toBe(true);
  return { lines, ended, until };
}

async function commands(): Promise<number> {
  const rows = await db.system.query(sql`SELECT FROM node_commands WHERE node_id = ANY(${ids()}::uuid[])`);
  return rows.length;
}

test("a rotation is followed host by host, each told once, until nothing but time is left; then it is retired, and no other begun", async () => {
  const [one, other] = hosts as [EnrolledHost, EnrolledHost];
  const { lines, ended, until } = follow();
  await until("0 of 2 hosts know the next authority");
  await renew(one);
  await until("1 of 2 hosts know the next authority");
  expect(await commands()).toBe(2);
  await renew(other);
  await until("0 of 2 hosts have a certificate of the new authority; certificates of replicas");
  expect(await commands()).toBe(4);
  for (const host of hosts) await renew(host);
  expect(await ended).toBe(true);
  expect(lines.slice(0, 4)).toEqual([
    "The next certificate authority is made; hosts learn it with their next session.",
    "0 of 2 hosts know the next authority",
    "1 of 2 hosts know the next authority",
    "The next certificate authority signs from now on; the former one is still believed.",
  ]);
  expect(lines.at(-1)).toMatch(/^2 of 2 hosts have .*; certificates of replicas and brokers count until/);

  await db.system.execute(
    sql`UPDATE certificate_authorities SET left_at = left_at - interval '8 days' WHERE state = 'leaving'`,
  );
  const last = follow();
  expect(await last.ended).toBe(true);
  expect(last.lines).toEqual([expect.stringContaining("is retired")]);
  expect(await readRotation(db.system)).toMatchObject({ stage: "none", hostsInAll: 2 });
});

test("one that takes too long is left where it is, and one that somebody else ends is not begun anew", async () => {
  expect(await follow(0).ended).toBe(false);
  expect(await readRotation(db.system)).toMatchObject({ stage: "published" });
  const { ended, until } = follow();
  await until("0 of 2 hosts know the next authority");
  for (let step = 0; step < 2; step += 1)
    await rotateAuthority(db.system, master, { begins: false, force: true, externalBroker: undefined });
  expect(await ended).toBe(true);
  expect(await readRotation(db.system)).toMatchObject({ stage: "none" });
  // So does who had looked before that end and goes on after it.
  expect(
    await rotateAuthority(db.system, master, { begins: false, force: false, externalBroker: undefined }),
  ).toMatchObject({ done: "nothing", stage: "none" });
});

test("a host that has just renewed is not told again before its inventory can have come; one that got the wrong certificate is", async () => {
  const step = () => rotateAuthority(db.system, master, { begins: true, force: false, externalBroker: undefined });
  const ofHosts = sql`node_id = ANY(${ids()}::uuid[])`;
  expect(await step()).toMatchObject({ told: 2 });
  // A replica that had not seen the step yet has answered: nothing new was issued.
  await db.system.execute(sql`UPDATE node_commands SET state = 'succeeded', finished_at = now() WHERE ${ofHosts}`);
  expect(await step()).toMatchObject({ done: "nothing", told: 2 });
  for (const host of hosts) await renew(host);
  await db.system.execute(sql`UPDATE node_status SET inventory_at = NULL WHERE ${ofHosts}`);
  expect(await step()).toMatchObject({ done: "nothing", told: 0, hosts: [{ hasRenewed: true }, { hasRenewed: true }] });
  await db.system.execute(
    sql`UPDATE certificate_authorities SET published_at = published_at - interval '1 hour' WHERE state = 'next'`,
  );
  await db.system.execute(
    sql`UPDATE node_certificates SET issued_at = issued_at - interval '4 minutes' WHERE ${ofHosts} AND issued_at > now() - interval '1 minute'`,
  );
  expect(await step()).toMatchObject({ done: "nothing", told: 2 });
});
