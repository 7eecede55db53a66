import { createPrivateKey, randomBytes } from "node:crypto";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { certificatesIn } from "../../../node-agent/src/enrolment/identity-files.ts";
import {
  makeCertificateRequest,
  makePrivateKey,
  requestToPem,
} from "../../../node-agent/src/enrolment/certificate-request.ts";
import { checkIssuedCertificate, pinnedAuthority } from "../../../node-agent/src/enrolment/issued-certificate.ts";
import { parseJoinToken } from "../../../node-agent/src/enrolment/join-token.ts";
import { expectAudited } from "../../../test/support/audit.ts";
import {
  enrolHost,
  issuingDeps,
  joinRequest,
  makeJoinToken,
  renewRequest,
} from "../../../test/support/enrolled-host.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { enrolNode } from "./enrol-node.ts";
import { ensureCertificateAuthority } from "./ensure-certificate-authority.ts";
import { revokeJoinToken } from "./join-tokens.ts";
import { isNodeAuthorized, type IssuingDeps } from "./node-certificates.ts";
import { removeNode } from "./remove-node.ts";
import { makeRenewalChallenge, renewNodeCertificate } from "./renew-certificate.ts";

let db: TestDatabase;
let deps: IssuingDeps;
const key = randomBytes(32);
const operator = { actor: { kind: "system", id: "test" }, requestId: undefined } as const;

beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system, key);
});
afterAll(() => db.close());

const enrol = (request: ReturnType<typeof joinRequest>) => enrolNode(db.system, deps, request, newId());

describe("the certificate authority", () => {
  test("many replicas starting at once make one, and only the right master key opens it", async () => {
    const fresh = await createTestDatabase();
    try {
      const made = await Promise.all(
        Array.from({ length: 8 }, () => ensureCertificateAuthority(fresh.system, masterKey(key))),
      );
      expect(new Set(made.map((authorities) => authorities.active.id)).size).toBe(1);
      const [row] = await fresh.system.query<{ sealed: string }>(
        sql`SELECT private_key_sealed AS sealed FROM certificate_authorities`,
      );
      expect(row?.sealed).not.toContain("PRIVATE KEY");
      await expect(ensureCertificateAuthority(fresh.system, masterKey(randomBytes(32)))).rejects.toThrow(/master key/);
    } finally {
      await fresh.close();
    }
  });
});

describe("enrolment", () => {
  test("the agent accepts the answer, and the node's rows are there", async () => {
    const keyPem = makePrivateKey();
    const text = await makeJoinToken(db.system, deps, { name: "pve-a", region: "fra", labels: { rack: "3" } });
    const answer = await enrol(joinRequest(text, keyPem));
    const authority = pinnedAuthority(answer.caBundle, parseJoinToken(text).caSpkiSha256);
    checkIssuedCertificate(answer.certificate, [authority], keyPem, answer.nodeId);
    const [certificate] = certificatesIn(answer.certificate);
    expect(certificate?.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(certificate?.ca).toBe(false);
    const [node] = await db.system.query(sql`
      SELECT n.name, n.region, n.labels, s.state FROM nodes n JOIN node_status s ON s.node_id = n.id JOIN node_capacity c ON c.node_id = n.id WHERE n.id = ${answer.nodeId}`);
    expect(node).toEqual({ name: "pve-a", region: "fra", labels: { rack: "3" }, state: "enrolled" });
    expect(await isNodeAuthorized(db.system, answer.nodeId, certificate?.serialNumber.toLowerCase() ?? "")).toBe(true);
  });

  test("a lost answer is given again to the same key, and to no other", async () => {
    const keyPem = makePrivateKey();
    const text = await makeJoinToken(db.system, deps);
    const first = await enrol(joinRequest(text, keyPem));
    expect(await enrol(joinRequest(text, keyPem))).toEqual(first);
    await expect(enrol(joinRequest(text, makePrivateKey()))).rejects.toMatchObject({ code: "JOIN_TOKEN_USED" });
  });

  test("two hosts racing with one token: one joins", async () => {
    const text = await makeJoinToken(db.system, deps);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 6 }, () => enrol(joinRequest(text, makePrivateKey()))),
    );
    expect(outcomes.filter((outcome) => outcome.status === "fulfilled")).toHaveLength(1);
  });

  test("refuses what is not proved, expired, revoked or no request", async () => {
    const keyPem = makePrivateKey();
    const text = await makeJoinToken(db.system, deps);
    const request = joinRequest(text, keyPem);
    const other = joinRequest(text, makePrivateKey());
    await expect(enrol({ ...request, proof: other.proof })).rejects.toMatchObject({ code: "JOIN_TOKEN_INVALID" });
    await expect(enrol({ ...request, proof: "00" })).rejects.toMatchObject({ code: "JOIN_TOKEN_INVALID" });
    await expect(enrol({ ...request, tokenId: newId() })).rejects.toMatchObject({ code: "JOIN_TOKEN_INVALID" });
    await expect(enrol({ ...request, csr: "nonsense" })).rejects.toMatchObject({ code: "CSR_INVALID" });
    // A request that was signed by another key than it names: its sender does not have the key.
    const swapped = makeCertificateRequest(createPrivateKey(keyPem));
    swapped[swapped.length - 1] = (swapped.at(-1) ?? 0) ^ 1;
    await expect(enrol({ ...request, csr: requestToPem(swapped) })).rejects.toMatchObject({ code: "CSR_INVALID" });

    await db.system.execute(
      sql`UPDATE join_tokens SET expires_at = now() - interval '1 s' WHERE id = ${request.tokenId}`,
    );
    await expect(enrol(request)).rejects.toMatchObject({ code: "JOIN_TOKEN_EXPIRED" });
    const revoked = joinRequest(await makeJoinToken(db.system, deps), keyPem);
    await db.system.transaction((tx) => revokeJoinToken(tx, revoked.tokenId));
    await expect(enrol(revoked)).rejects.toMatchObject({ code: "JOIN_TOKEN_REVOKED" });
  });

  test("a replaced host takes over the identity and locks its predecessor out", async () => {
    const before = await enrolHost(db.system, deps, { name: "pve-replaced" });
    const keyPem = makePrivateKey();
    const spoolId = newId();
    await db.system.execute(sql`INSERT INTO node_spools (node_id, spool_id) VALUES (${before.nodeId}, ${spoolId})`);
    const text = await makeJoinToken(db.system, deps, { name: "pve-replaced", replacesNode: before.nodeId });
    const after = await enrol(joinRequest(text, keyPem));
    expect(after.nodeId).toBe(before.nodeId);
    expect(await isNodeAuthorized(db.system, before.nodeId, before.serial)).toBe(false);
    const [spool] = await db.system.query<{ at: Date | null }>(
      sql`SELECT refused_since AS at FROM node_spools WHERE spool_id = ${spoolId}`,
    );
    expect(spool?.at).toBeInstanceOf(Date);
    await expect(renew(before.nodeId, makePrivateKey(), before.keyPem)).rejects.toMatchObject({
      code: "SIGNATURE_INVALID",
    });
    await expect(makeJoinToken(db.system, deps, { name: "pve-replaced" })).rejects.toMatchObject({
      code: "NODE_NAME_TAKEN",
    });
  });
});

async function renew(nodeId: string, nextKeyPem: string, signingKeyPem: string) {
  const { nonce } = await makeRenewalChallenge(db.system, nodeId);
  return await renewNodeCertificate(
    db.system,
    deps,
    renewRequest(nodeId, nonce, nextKeyPem, signingKeyPem),
    "request-1",
  );
}

describe("renewal", () => {
  test("works before expiry and after, however long ago", async () => {
    const host = await enrolHost(db.system, deps);
    const nextKey = makePrivateKey();
    const first = await expectAudited(
      db,
      { action: "node.renew", actor_kind: "node", target_id: host.nodeId, request_id: "request-1" },
      () => renew(host.nodeId, nextKey, host.keyPem),
    );
    checkIssuedCertificate(first.certificate, certificatesIn(first.caBundle), nextKey, host.nodeId);
    await db.system.execute(sql`
      UPDATE node_certificates SET not_before = now() - interval '400 days', not_after = now() - interval '370 days' WHERE node_id = ${host.nodeId}`);
    const last = makePrivateKey();
    const second = await renew(host.nodeId, last, nextKey);
    checkIssuedCertificate(second.certificate, certificatesIn(second.caBundle), last, host.nodeId);
  });

  test("a lost answer strands nobody: the key last used in a session still renews, an older one does not", async () => {
    const host = await enrolHost(db.system, deps);
    await db.system.execute(sql`UPDATE node_certificates SET first_used_at = now() WHERE serial = ${host.serial}`);
    const lost = makePrivateKey();
    await renew(host.nodeId, lost, host.keyPem);
    const heard = makePrivateKey();
    const answer = await renew(host.nodeId, heard, host.keyPem);
    await db.system.execute(sql`UPDATE node_certificates SET first_used_at = now() WHERE pem = ${answer.certificate}`);
    await expect(renew(host.nodeId, makePrivateKey(), host.keyPem)).rejects.toMatchObject({
      code: "SIGNATURE_INVALID",
    });
    await expect(renew(host.nodeId, makePrivateKey(), lost)).rejects.toMatchObject({ code: "SIGNATURE_INVALID" });
    expect((await renew(host.nodeId, heard, heard)).certificate).toBe(answer.certificate);
  });

  test("a nonce counts once, for a minute and for its node", async () => {
    const [host, other] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const { nonce } = await makeRenewalChallenge(db.system, host.nodeId);
    const request = renewRequest(host.nodeId, nonce, makePrivateKey(), host.keyPem);
    await expect(
      renewNodeCertificate(
        db.system,
        deps,
        renewRequest(other.nodeId, nonce, makePrivateKey(), other.keyPem),
        "request-1",
      ),
    ).rejects.toMatchObject({ code: "CHALLENGE_INVALID" });
    await renewNodeCertificate(db.system, deps, request, "request-1");
    await expect(renewNodeCertificate(db.system, deps, request, "request-1")).rejects.toMatchObject({
      code: "CHALLENGE_INVALID",
    });
    const late = await makeRenewalChallenge(db.system, host.nodeId);
    await db.system.execute(sql`UPDATE renewal_challenges SET expires_at = now() WHERE nonce = ${late.nonce}`);
    await expect(
      renewNodeCertificate(
        db.system,
        deps,
        renewRequest(host.nodeId, late.nonce, makePrivateKey(), host.keyPem),
        "request-1",
      ),
    ).rejects.toMatchObject({ code: "CHALLENGE_INVALID" });
  });

  test("a stranger's signature uses the nonce up and gets nothing", async () => {
    const host = await enrolHost(db.system, deps);
    const { nonce } = await makeRenewalChallenge(db.system, host.nodeId);
    await expect(
      renewNodeCertificate(
        db.system,
        deps,
        renewRequest(host.nodeId, nonce, makePrivateKey(), makePrivateKey()),
        "request-1",
      ),
    ).rejects.toMatchObject({ code: "SIGNATURE_INVALID" });
    await expect(
      renewNodeCertificate(
        db.system,
        deps,
        renewRequest(host.nodeId, nonce, makePrivateKey(), host.keyPem),
        "request-1",
      ),
    ).rejects.toMatchObject({ code: "CHALLENGE_INVALID" });
  });

  test("strangers cannot fill the table of nonces, and a removed node gets none", async () => {
    const host = await enrolHost(db.system, deps);
    const asked = await Promise.allSettled(
      Array.from({ length: 30 }, () => makeRenewalChallenge(db.system, host.nodeId)),
    );
    expect(asked.filter((outcome) => outcome.status === "fulfilled")).toHaveLength(20);
    await db.system.transaction((tx) => removeNode(tx, host.nodeId, operator));
    await expect(makeRenewalChallenge(db.system, host.nodeId)).rejects.toMatchObject({ code: "NODE_NOT_FOUND" });
    expect(await isNodeAuthorized(db.system, host.nodeId, host.serial)).toBe(false);
  });
});
