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
import { ensureCertificateAuthority } from "./ensure-certificate-authority.ts";
import { externalBrokerFiles } from "./external-broker.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

async function serverWith(
  files: Awaited<ReturnType<typeof externalBrokerFiles>>,
): Promise<{ server: Server; port: number }> {
  const server = createServer({
    cert: files["cert.pem"],
    key: files["key.pem"],
    ca: files["ca.pem"],
    crl: files["crl.pem"],
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
  const authorities = await ensureCertificateAuthority(db.system, masterKey(randomBytes(32)));
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
