import { createPrivateKey, randomBytes, sign } from "node:crypto";
import { newId } from "@cloudpods/shared/ids";
import { enrolNode } from "../../control-plane/src/nodes/enrol-node.ts";
import { ensureCertificateAuthority } from "../../control-plane/src/nodes/ensure-certificate-authority.ts";
import { createJoinToken, type NewJoinToken } from "../../control-plane/src/nodes/join-tokens.ts";
import type { IssuingDeps, NodeIdentityAnswer } from "../../control-plane/src/nodes/node-certificates.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { masterKey } from "../../control-plane/src/platform/sealing.ts";
import { readCertificate } from "../../node-agent/src/enrolment/check-certificate.ts";
import {
  makeCertificateRequest,
  makePrivateKey,
  requestToPem,
} from "../../node-agent/src/enrolment/certificate-request.ts";
import { joinProof, parseJoinToken } from "../../node-agent/src/enrolment/join-token.ts";

/** A host with its identity, made by the agent's own code and the control plane's. */
export interface EnrolledHost {
  readonly nodeId: string;
  readonly keyPem: string;
  readonly certificatePem: string;
  readonly caPem: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly machineId: string;
}

/** The authority of a test's database, and addresses that nobody dials. */
export async function issuingDeps(db: Database, key: Buffer = randomBytes(32)): Promise<IssuingDeps> {
  return {
    authorities: await ensureCertificateAuthority(db, masterKey(key)),
    addresses: async () => ({ gatewayAddress: "127.0.0.1:7443", brokerUrl: "mqtts://127.0.0.1:8883" }),
  };
}

/** Makes a join token; gives its text. */
export async function makeJoinToken(
  db: Database,
  deps: IssuingDeps,
  changes: Partial<NewJoinToken> = {},
): Promise<string> {
  const wish = {
    name: `host-${randomBytes(4).toString("hex")}`,
    role: "hypervisor",
    region: "local",
    labels: {},
    createdBy: "test",
    ...changes,
  };
  return (await db.transaction((tx) => createJoinToken(tx, wish, deps.authorities.active))).text;
}

/** What a host sends to join with a key of its own. */
export function joinRequest(tokenText: string, keyPem: string, machineId = randomBytes(32).toString("hex")) {
  const token = parseJoinToken(tokenText);
  const csr = makeCertificateRequest(createPrivateKey(keyPem));
  return {
    tokenId: token.tokenId,
    csr: requestToPem(csr),
    proof: joinProof(token.secret, csr),
    machineId,
    hostname: "pve-test",
    pveName: "pve-test",
  };
}

/** What a host sends to renew: the request of `nextKeyPem`, signed with `signingKeyPem`. */
export function renewRequest(nodeId: string, nonce: string, nextKeyPem: string, signingKeyPem: string) {
  const csr = makeCertificateRequest(createPrivateKey(nextKeyPem));
  const signed = Buffer.from(`${nodeId}\n${nonce}\n${csr.toString("base64")}`, "utf8");
  return {
    nodeId,
    nonce,
    csr: requestToPem(csr),
    signature: sign("sha256", signed, createPrivateKey(signingKeyPem)).toString("hex"),
  };
}

/** A host from an answer of the control plane. */
function hostOf(answer: NodeIdentityAnswer, keyPem: string, machineId: string): EnrolledHost {
  const { certificate, caBundle, nodeId } = answer;
  return {
    nodeId,
    keyPem,
    certificatePem: certificate,
    caPem: caBundle,
    serial: readCertificate(certificate).serial,
    machineId,
  };
}

/** Enrols a new host. */
export async function enrolHost(
  db: Database,
  deps: IssuingDeps,
  changes: Partial<NewJoinToken> = {},
): Promise<EnrolledHost> {
  const keyPem = makePrivateKey();
  const request = joinRequest(await makeJoinToken(db, deps, changes), keyPem);
  return hostOf(await enrolNode(db, deps, request, newId()), keyPem, request.machineId);
}
