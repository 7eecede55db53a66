import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { enrolByHand } from "../../../test/support/agent-process.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { type TestEnrolment, startTestEnrolment } from "../../../test/support/test-enrolment.ts";
import { until } from "../../../test/support/until.ts";
import { certificateBelongsToKey, identityPaths, loadIdentity } from "./identity-files.ts";
import { type HostFacts, joinControlPlane } from "./join.ts";
import { renewCertificate } from "./renew.ts";

const host: HostFacts = { machineId: "ab".repeat(32), hostname: "pve1", pveName: "pve1" };

async function scenario() {
  const authority = await makeTestAuthority();
  const enrolment = await startTestEnrolment({ authority, gatewayAddress: "127.0.0.1:1" });
  const stateDir = mkdtempSync(join(tmpdir(), "enrolment-"));
  onTestFinished(async () => {
    await enrolment.stop();
    rmSync(stateDir, { recursive: true });
  });
  return { authority, enrolment, stateDir };
}

async function enrolled() {
  const made = await scenario();
  const identity = await joinControlPlane(made.stateDir, made.enrolment.url, made.enrolment.makeToken(), host);
  return { ...made, identity };
}

const posts = ({ requests }: TestEnrolment, path: string) => requests.filter((request) => request.path === path);

test("a host joins; its key stays on it, readable by root only", async () => {
  const { enrolment, stateDir, identity, authority } = await enrolled();
  expect(loadIdentity(stateDir)).toEqual(identity);
  expect(identity).toMatchObject({ gatewayAddress: "127.0.0.1:1", brokerUrl: "mqtts://127.0.0.1:1" });
  expect(new X509Certificate(identity.caPem).raw).toEqual(new X509Certificate(authority.pem).raw);
  expect(statSync(identityPaths(stateDir).key).mode & 0o777).toBe(0o600);
  expect(readdirSync(stateDir).toSorted()).toEqual(["ca.pem", "cert.pem", "identity.json", "key.pem"]);
  expect(JSON.stringify(enrolment.requests)).not.toContain("PRIVATE KEY");
  expect(enrolment.requests[0]?.body).toMatchObject(host);
});

test("the secret of the token never travels", async () => {
  const { authority, enrolment, stateDir } = await scenario();
  const token = enrolment.makeToken(authority);
  await joinControlPlane(stateDir, enrolment.url, token, host);
  expect(JSON.stringify(enrolment.requests)).not.toContain(token.split(".")[2]);
});

test("after a lost answer the same request is repeated and ends in the same node", async () => {
  const { enrolment, stateDir } = await scenario();
  const token = enrolment.makeToken();
  enrolment.loseAnswers(1);
  await joinControlPlane(stateDir, enrolment.url, token, host);
  const [first, second] = posts(enrolment, "/api/nodes/enroll");
  expect(second?.body).toEqual(first?.body);
});

test("a process that dies before the answer leaves a key that the next one uses", async () => {
  const { enrolment, stateDir } = await scenario();
  const token = enrolment.makeToken();
  const nobody = "http://127.0.0.1:1";
  writeFileSync(join(stateDir, "unrelated"), "");
  const failed = joinControlPlane(stateDir, nobody, token, host).catch((error: unknown) => error);
  // The request is on disk before it is sent.
  await until("the request", () => existsSync(identityPaths(stateDir).joinRequest));
  const key = readFileSync(identityPaths(stateDir).nextKey, "utf8");
  const identity = await joinControlPlane(stateDir, enrolment.url, token, host);
  expect(identity.keyPem).toBe(key);
  expect(await failed).toMatchObject({ code: "CONTROL_PLANE_UNREACHABLE" });
});

test.each([
  [
    "a token of another control plane",
    "WRONG_CA",
    async (to: TestEnrolment) => to.makeToken(await makeTestAuthority()),
  ],
  [
    "a token that nobody made",
    "JOIN_TOKEN_INVALID",
    async (to: TestEnrolment) => to.makeToken().replace(/^cp1\.[^.]+/, "cp1.unknown"),
  ],
  ["half a token", "INVALID_JOIN_TOKEN", async (to: TestEnrolment) => to.makeToken().slice(0, -3)],
])("%s is refused and nothing is stored", async (_, code, makeToken) => {
  const { enrolment, stateDir } = await scenario();
  const token = await makeToken(enrolment);
  await expect(joinControlPlane(stateDir, enrolment.url, token, host)).rejects.toMatchObject({ code });
  expect(existsSync(identityPaths(stateDir).facts)).toBe(false);
  expect(existsSync(identityPaths(stateDir).certificate)).toBe(false);
});

test("an authority that was slipped into the answer on the way is not trusted", async () => {
  const { authority, enrolment, stateDir } = await scenario();
  enrolment.addToBundle((await makeTestAuthority()).pem);
  const identity = await joinControlPlane(stateDir, enrolment.url, enrolment.makeToken(), host);
  expect(identity.caPem.trim()).toBe(new X509Certificate(authority.pem).toString().trim());
  const renewed = await renewCertificate(stateDir);
  expect(renewed.caPem.match(/BEGIN CERTIFICATE/g)).toHaveLength(1);
});

test("a host that is enrolled does not join again", async () => {
  const { enrolment, stateDir } = await enrolled();
  await expect(joinControlPlane(stateDir, enrolment.url, enrolment.makeToken(), host)).rejects.toMatchObject({
    code: "ALREADY_ENROLLED",
  });
});

test("renewal changes key and certificate together, before expiry and long after it", async () => {
  const { authority, enrolment, stateDir, identity } = await enrolled();
  const renewed = await renewCertificate(stateDir);
  expect(renewed.keyPem).not.toBe(identity.keyPem);
  expect(certificateBelongsToKey(renewed.certificatePem, renewed.keyPem)).toBe(true);
  expect(readdirSync(stateDir).toSorted()).toEqual(["ca.pem", "cert.pem", "identity.json", "key.pem"]);

  const old = mkdtempSync(join(tmpdir(), "enrolment-"));
  onTestFinished(() => rmSync(old, { recursive: true }));
  const issuedAt = new Date(Date.now() - 400 * 86_400_000);
  const facts = { nodeId: identity.nodeId, gatewayAddress: "127.0.0.1:1", serverUrl: enrolment.url, issuedAt };
  await enrolByHand(old, authority, facts);
  enrolment.knowCertificate(identity.nodeId, loadIdentity(old).certificatePem);
  const revived = await renewCertificate(old);
  expect(Date.parse(new X509Certificate(revived.certificatePem).validTo)).toBeGreaterThan(Date.now());
});

test("a lost answer of a renewal strands nobody", async () => {
  const { enrolment, stateDir, identity } = await enrolled();
  enrolment.loseAnswers(1);
  await expect(renewCertificate(stateDir)).rejects.toMatchObject({
    code: "CONTROL_PLANE_UNREACHABLE",
    retryable: true,
  });
  expect(loadIdentity(stateDir)).toEqual(identity);
  // This server knows only the last certificate, whose key is the one that waits.
  const renewed = await renewCertificate(stateDir);
  expect(renewed.certificatePem).not.toBe(identity.certificatePem);
  expect(certificateBelongsToKey(renewed.certificatePem, renewed.keyPem)).toBe(true);
});

test("a change of key that was cut in the middle is completed by the next start", async () => {
  const { enrolment, stateDir, identity } = await enrolled();
  const paths = identityPaths(stateDir);
  const renewed = await renewCertificate(stateDir);
  expect(posts(enrolment, "/api/nodes/renew")).toHaveLength(1);
  // As after a crash before the first rename, and as after one between the two.
  writeFileSync(paths.key, identity.keyPem);
  writeFileSync(paths.certificate, identity.certificatePem);
  writeFileSync(paths.nextKey, renewed.keyPem);
  writeFileSync(paths.nextCertificate, renewed.certificatePem);
  expect(loadIdentity(stateDir)).toEqual(renewed);
  writeFileSync(paths.certificate, identity.certificatePem);
  writeFileSync(paths.nextCertificate, renewed.certificatePem);
  expect(loadIdentity(stateDir)).toEqual(renewed);
});
