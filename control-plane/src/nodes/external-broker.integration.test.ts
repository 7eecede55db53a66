import { randomBytes } from "node:crypto";
import { connect, createServer, type Server } from "node:tls";
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { hostTls } from "../../../test/support/broker-identities.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { anOnlineNode } from "../../../test/support/rows.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { ensureCertificateAuthority, readAuthorities } from "./ensure-certificate-authority.ts";
import { externalBrokerFiles } from "./external-broker.ts";
import { rotateAuthority } from "./rotate-certificate-authority.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

const key = randomBytes(32);

async function serverWith(
  files: Awaited<ReturnType<typeof externalBrokerFiles>>,
): Promise<{ server: Server; port: number }> {
  const server = createServer({
    cert: files["cert.pem"],
    key: files["key.pem"],
    ca: files["ca.pem"],
    crl: listsIn(files["crl.pem"]),
    requestCert: true,
    rejectUnauthorized: true,
  });
  server.on("secureConnection", (socket) => socket.end("welcome"));
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { server, port: address.port };
}

/** Brokers that give OpenSSL the file read all of it; Node takes them one by one. */
function listsIn(pem: string): string[] {
  return pem.split(/(?<=-----END X509 CRL-----\n)/);
}

/** Whether a host with this certificate is let in. */
async function isWelcome(port: number, tls: { cert: string; key: string; ca: readonly string[] }): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port, ...tls, ca: [...tls.ca] });
  let said = "";
  socket.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await new Promise<void>((resolve) => {
    socket.once("close", () => resolve());
    socket.once("error", () => resolve());
  });
  return said === "welcome";
}

test("a broker that is not ours shuts out a removed host with the files that are written for it", async () => {
  const authorities = await ensureCertificateAuthority(db.system, masterKey(key));
  const node = await anOnlineNode(db.system);
  const host = await hostTls(authorities.active, node.id);
  await db.system.execute(sql`
    INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after)
    VALUES (${host.serial}, ${node.id}, '', '', now(), now() + interval '30 days')`);
  const files = () => externalBrokerFiles(db.system, authorities, ["127.0.0.1", "broker.example"], new Date());

  const made = await expectAudited(
    db,
    { action: "broker-certificate.issue", actor_kind: "system", detail: { names: ["127.0.0.1", "broker.example"] } },
    files,
    (result) => [result["key.pem"]],
  );
  const before = await serverWith(made);
  expect(await isWelcome(before.port, host)).toBe(true);
  before.server.close();

  await db.system.execute(sql`UPDATE node_certificates SET revoked_at = now() WHERE serial = ${host.serial}`);
  const after = await serverWith(await files());
  expect(await isWelcome(after.port, host)).toBe(false);
  expect(await isWelcome(after.port, await hostTls(authorities.active, node.id))).toBe(true);
  after.server.close();
});

test("while another authority takes over, hosts of both are let in, and those that are out of both are not", async () => {
  const former = await ensureCertificateAuthority(db.system, masterKey(key));
  const wish = { begins: true, force: true, externalBroker: undefined };
  for (const done of ["published", "activated"])
    expect((await rotateAuthority(db.system, masterKey(key), wish)).done).toBe(done);
  const both = await readAuthorities(db.system, masterKey(key));
  expect(both.active.id).not.toBe(former.active.id);
  const node = await anOnlineNode(db.system);
  const hosts: (Awaited<ReturnType<typeof hostTls>> & { ca: readonly string[] })[] = [];
  for (const authority of [former.active, former.active, both.active, both.active]) {
    const host = { ...(await hostTls(authority, node.id)), ca: both.pems };
    await db.system.execute(sql`
      INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, authority_id, revoked_at)
      VALUES (${host.serial}, ${node.id}, '', '', now(), now() + interval '30 days', ${authority.id}, ${hosts.length % 2 === 0 ? null : new Date()})`);
    hosts.push(host);
  }
  const welcome = async (port: number) => {
    const answers: boolean[] = [];
    for (const host of hosts) answers.push(await isWelcome(port, host));
    return answers;
  };
  const files = await externalBrokerFiles(db.system, both, ["127.0.0.1"], new Date());
  const whole = await serverWith(files);
  expect(await welcome(whole.port)).toEqual([true, false, true, false]);
  whole.server.close();
  // Negative control: a list of the one that signs says nothing of the others, and a broker lets nobody in on nothing.
  const [own] = listsIn(files["crl.pem"]);
  const partial = await serverWith({ ...files, "crl.pem": own ?? "" });
  expect(await welcome(partial.port)).toEqual([false, false, true, false]);
  partial.server.close();
});
