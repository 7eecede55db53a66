import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId } from "@cloudpods/shared/ids";
import { serve } from "@hono/node-server";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { enrolHost, issuingDeps, makeJoinToken, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp } from "../../../test/support/test-app.ts";
import { loadIdentity, saveIdentity } from "../../../node-agent/src/enrolment/identity-files.ts";
import { renewCertificate } from "../../../node-agent/src/enrolment/renew.ts";
import { openHints } from "../platform/hints.ts";
import { createLog } from "../platform/log.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { makeAuthority, openAuthority, vouchFor } from "./certificate-authority.ts";
import { describeRotation } from "./describe-rotation.ts";
import { followAuthorities, readAuthorities } from "./ensure-certificate-authority.ts";
import { registerEnrolmentRoutes } from "./enrolment.http.ts";
import { readRotation, rotateAuthority, type RotationWish } from "./rotate-certificate-authority.ts";

const key = Buffer.alloc(32, 9);
const master = masterKey(key);
const log = createLog({ level: "silent" });
const patient: RotationWish = { begins: true, force: false, externalBroker: undefined };
const forced: RotationWish = { ...patient, force: true };
let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  await db.system.execute(sql`UPDATE nodes SET removed_at = now()`);
  await db.system.execute(sql`UPDATE join_tokens SET revoked_at = now()`);
  await db.system.execute(sql`UPDATE certificate_authorities SET state = 'retired' WHERE state IN ('next', 'leaving')`);
});

const step = async (wish = patient) => await rotateAuthority(db.system, master, wish);
const namesOf = ({ hosts }: { readonly hosts: readonly { readonly name: string }[] }) => hosts.map(({ name }) => name);

/** An agent that can renew has begun a session with its newest certificate, and its inventory came in it. */
async function speak({ nodeId }: EnrolledHost): Promise<void> {
  await db.system.execute(sql`
    UPDATE node_certificates SET first_used_at = clock_timestamp() WHERE serial = (
      SELECT serial FROM node_certificates WHERE node_id = ${nodeId} ORDER BY issued_at DESC LIMIT 1)`);
  await db.system.execute(sql`
    UPDATE node_status SET inventory_at = clock_timestamp(), session_connected = true, capabilities = ${["renew_certificate"]}
    WHERE node_id = ${nodeId}`);
}

/** A new certificate by whoever signs now. */
async function renew({ nodeId }: EnrolledHost): Promise<void> {
  const { active } = await readAuthorities(db.system, master);
  await db.system.execute(sql`
    INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, authority_id)
    VALUES (${newId()}, ${nodeId}, 'x', 'x', now(), now() + interval '30 days', ${active.id})`);
}

async function commandsTo({ nodeId }: EnrolledHost): Promise<number> {
  const rows = await db.system.query(
    sql`SELECT FROM node_commands WHERE node_id = ${nodeId} AND op = 'renew_certificate' AND finished_at IS NULL`,
  );
  return rows.length;
}

test("each step waits for every host, and tells those that answer to come and hear of it, once", async () => {
  const deps = await issuingDeps(db.system, key);
  const [host, other] = [
    await enrolHost(db.system, deps, { name: "a" }),
    await enrolHost(db.system, deps, { name: "b" }),
  ];
  for (const one of [host, other]) await speak(one);
  expect(await step()).toMatchObject({ done: "published", stage: "published", told: 2 });
  expect(await step()).toMatchObject({ done: "nothing", told: 0 });
  expect([await commandsTo(host), await commandsTo(other)]).toEqual([1, 1]);
  // A session with the certificate of before has told nothing, and a certificate that nobody uses neither.
  await speak(host);
  await renew(other);
  expect(namesOf(await step())).toEqual(["a", "b"]);
  await renew(host);
  for (const one of [host, other]) await speak(one);
  const before = await readAuthorities(db.system, master);
  expect(before.all).toHaveLength(2);
  expect(await step()).toMatchObject({ done: "activated", stage: "leaving" });
  const after = await readAuthorities(db.system, master);
  expect(after.active.id).toBe(before.all[1]?.id);
  expect(new Set(after.pems)).toEqual(new Set(before.pems));
  await renew(host);
  await speak(host);
  expect(namesOf(await step())).toEqual(["b"]);
  await renew(other);
  await speak(other);
  const waiting = await step();
  expect(waiting).toMatchObject({ done: "nothing", hosts: [] });
  expect(waiting.validUntil?.getTime()).toBeGreaterThan(Date.now() + 6.9 * 86_400_000);
  await db.system.execute(
    sql`UPDATE certificate_authorities SET left_at = now() - interval '8 days' WHERE state = 'leaving'`,
  );
  expect(await step()).toMatchObject({ done: "retired", stage: "none" });
  expect((await readAuthorities(db.system, master)).pems).toEqual([after.active.pem]);
  const audited = await db.system.query(sql`
    SELECT action FROM audit_log WHERE action LIKE 'certificate-authority.%' ORDER BY id`);
  expect(audited).toEqual(
    ["published", "activated", "retired"].map((what) => ({ action: `certificate-authority.${what}` })),
  );
});

test("replicas, tokens and a broker of somebody else are waited for too", async () => {
  const deps = await issuingDeps(db.system, key);
  const replica = newId();
  await db.system.execute(sql`
    INSERT INTO control_plane_replicas (id, hostname, roles, authority_ids) VALUES (${replica}, 'old-replica', '{api}', '{}')`);
  await step();
  await makeJoinToken(db.system, deps, { name: "joining" });
  // A host can come back later, but not to a replica that refuses it.
  expect(await step(forced)).toMatchObject({ done: "nothing", replicas: [expect.stringContaining("old-replica")] });
  const held = await step();
  expect(held).toMatchObject({ done: "nothing", hosts: [] });
  expect(describeRotation(held).join("\n")).toMatch(
    /replicas that do not believe[^]*: old-replica\n[^]*tokens[^]*: joining/,
  );
  await db.system.execute(
    sql`UPDATE control_plane_replicas SET seen_at = now() - interval '2 minutes' WHERE id = ${replica}`,
  );
  await db.system.execute(sql`UPDATE join_tokens SET revoked_at = now() WHERE name = 'joining'`);
  const external = { ...forced, externalBroker: { isUpToDate: false } };
  await expect(step(external)).rejects.toMatchObject({ code: "BROKER_NOT_CONFIRMED" });
  expect((await readRotation(db.system)).stage).toBe("published");
  expect(await step({ ...patient, externalBroker: { isUpToDate: true } })).toMatchObject({ done: "activated" });
  await db.system.execute(sql`DELETE FROM control_plane_replicas WHERE id = ${replica}`);
});

test("steps that are asked for at once follow each other", async () => {
  const steps = await Promise.all([step(forced), step(forced), step(forced)]);
  // Each looks again once it is alone: one publishes, the next activates, the last retires.
  expect(steps.map(({ done }) => done).toSorted()).toEqual(["activated", "published", "retired"]);
});

test("replicas that run follow what is stored", async () => {
  const followed = await followAuthorities(db.system, master, log, 20);
  let changes = 0;
  followed.onChange(() => (changes += 1));
  const first = followed.active.id;
  await step();
  await expect.poll(() => followed.all.length, { timeout: 60_000 }).toBe(2);
  expect(followed.active.id).toBe(first);
  await step(forced);
  await expect.poll(() => followed.active.id === first, { timeout: 60_000 }).toBe(false);
  expect(changes).toBe(2);
  followed.stop();
});

test("a host that was off through two rotations believes the third authority by its renewal, in the clear, and no other", async () => {
  const first = await issuingDeps(db.system, key);
  const host = await enrolHost(db.system, first);
  for (let nth = 0; nth < 2; nth++)
    for (const done of ["published", "activated", "retired"]) expect((await step(forced)).done).toBe(done);
  const { active, pems } = await readAuthorities(db.system, master);
  expect(pems).toEqual([active.pem]);
  const stranger = await openStranger();
  const forged = [await vouchFor(stranger, active.pem)];

  const hints = openHints({ url: db.systemUrl, log });
  const { app } = buildTestApp(db, {
    register: (routes) =>
      registerEnrolmentRoutes(routes, { ...first, authorities: { active, all: [active], pems }, hints }),
  });
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 });
  await new Promise<void>((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const stateDir = mkdtempSync(join(tmpdir(), "rotation-"));
  try {
    const { nodeId, keyPem, certificatePem } = host;
    const caPem = first.authorities.active.pem;
    const serverUrl = `http://127.0.0.1:${port}`;
    const addresses = { gatewayAddress: "127.0.0.1:1", brokerUrl: "mqtts://127.0.0.1:1" };
    saveIdentity(stateDir, { nodeId, keyPem, certificatePem, caPem, serverUrl, ...addresses });
    const kept = await db.system.query<{ id: string; pem: string }>(
      sql`SELECT id, vouched_pem AS pem FROM certificate_authorities WHERE vouched_pem IS NOT NULL ORDER BY created_at`,
    );
    const put = async (pem: (nth: number, own: string) => string | null): Promise<void> => {
      for (const [nth, { id, pem: own }] of kept.entries())
        await db.system.execute(
          sql`UPDATE certificate_authorities SET vouched_pem = ${pem(nth, own)} WHERE id = ${id}`,
        );
    };
    // Negative controls: nobody vouches; somebody whom the host does not know does; a link is missing.
    for (const wrong of [
      () => null,
      () => forged[0] ?? null,
      (nth: number, own: string) => (nth === kept.length - 2 ? null : own),
    ]) {
      await put(wrong);
      await expect(renewCertificate(stateDir)).rejects.toMatchObject({ code: "WRONG_CA" });
      expect(loadIdentity(stateDir).caPem).toBe(caPem);
    }
    await put((_, own) => own);
    const renewed = await renewCertificate(stateDir);
    expect(new X509Certificate(renewed.certificatePem).issuer).toBe(new X509Certificate(active.pem).subject);
    expect(renewed.caPem).toContain(new X509Certificate(active.pem).toString().trim());
  } finally {
    server.close();
    await hints.close();
    rmSync(stateDir, { recursive: true });
  }
});

/** An authority that has nothing to do with the fleet. */
async function openStranger() {
  const id = newId();
  const { certificate, privateKeyPem } = await makeAuthority(id, new Date());
  return await openAuthority(id, certificate.pem, privateKeyPem);
}
