import { type X509Certificate, createPrivateKey, sign } from "node:crypto";
import { AgentError } from "../agent-error.ts";
import { writeDurableFile } from "../durable-file.ts";
import { callControlPlane, expectSuccess, requireText } from "./call-control-plane.ts";
import { makeCertificateRequest, makePrivateKey, requestToPem } from "./certificate-request.ts";
import {
  type Identity,
  certificatesIn,
  changeKey,
  identityPaths,
  loadIdentity,
  readIfThere,
  saveTrustedAuthorities,
} from "./identity-files.ts";
import { checkIssuedCertificate } from "./issued-certificate.ts";

/**
 * Fetches a new certificate for a new key. The right to it is shown by a signature over the server's
 * nonce with the key of the last issued certificate, so it works after expiry as well as before. The
 * new key waits beside the old one until the answer is safe: a lost answer loses nothing.
 *
 * @throws AgentError NOT_ENROLLED, WRONG_CA, INVALID_CERTIFICATE, CONTROL_PLANE_UNREACHABLE
 * (retryable), or the control plane's own code.
 */
export async function renewCertificate(stateDir: string): Promise<Identity> {
  const identity = loadIdentity(stateDir);
  const paths = identityPaths(stateDir);
  const waitingKey = readIfThere(paths.nextKey);
  const nextKey = waitingKey ?? makePrivateKey();
  if (waitingKey === undefined) writeDurableFile(paths.nextKey, nextKey, 0o600);
  const answer = await requestCertificate(identity, nextKey, identity.keyPem).catch(async (error: unknown) => {
    // An earlier attempt may have succeeded without our hearing of it: then the waiting key is the
    // key of the last issued certificate.
    const refused = error instanceof AgentError && !error.retryable;
    if (!refused || waitingKey === undefined) throw error;
    return requestCertificate(identity, nextKey, nextKey);
  });
  const bundle = certificatesIn(requireText(answer, "caBundle"));
  const trusted = trustedAfterRenewal(identity, bundle, vouchersOf(answer));
  const certificatePem = requireText(answer, "certificate");
  checkIssuedCertificate(certificatePem, trusted, nextKey, identity.nodeId);
  saveTrustedAuthorities(stateDir, trusted.map((ca) => ca.toString()).join(""));
  changeKey(stateDir, certificatePem);
  return loadIdentity(stateDir);
}

async function requestCertificate(identity: Identity, nextKeyPem: string, signingKeyPem: string): Promise<unknown> {
  const challengePath = `api/nodes/renew/challenge?node=${encodeURIComponent(identity.nodeId)}`;
  const nonce = requireText(
    expectSuccess(await callControlPlane(identity.serverUrl, challengePath, undefined)),
    "nonce",
  );
  const csrDer = makeCertificateRequest(createPrivateKey(nextKeyPem));
  const signed = `${identity.nodeId}\n${nonce}\n${csrDer.toString("base64")}`;
  const request = {
    nodeId: identity.nodeId,
    nonce,
    csr: requestToPem(csrDer),
    signature: sign("sha256", Buffer.from(signed, "utf8"), createPrivateKey(signingKeyPem)).toString("hex"),
  };
  return expectSuccess(await callControlPlane(identity.serverUrl, "api/nodes/renew", request));
}

/** Of control planes that have some. */
function vouchersOf(answer: unknown): X509Certificate[] {
  const isThere = typeof answer === "object" && answer !== null && "vouchers" in answer;
  return isThere && typeof answer.vouchers === "string" ? certificatesIn(answer.vouchers) : [];
}

/**
 * Authorities to trust afterwards. Over HTTPS the whole bundle is believed; in the clear only those that are known already
 * or whose key a known one has vouched for, itself or through others: authorities may have changed while the host was off.
 */
function trustedAfterRenewal(
  identity: Identity,
  bundle: readonly X509Certificate[],
  vouchers: readonly X509Certificate[],
): X509Certificate[] {
  const known = certificatesIn(identity.caPem);
  const overHttps = new URL(identity.serverUrl).protocol === "https:";
  const vouched = overHttps ? [] : vouchedBy(known, [...bundle, ...vouchers]);
  const added = bundle.filter(
    (ca) =>
      !known.some((other) => other.raw.equals(ca.raw)) && (overHttps || vouched.some((other) => hasSameKey(ca, other))),
  );
  return [...known, ...added];
}

function vouchedBy(known: readonly X509Certificate[], offered: readonly X509Certificate[]): X509Certificate[] {
  const believed: X509Certificate[] = [...known];
  // Each authority adds those that it vouches for, which are looked at in their turn.
  for (const authority of believed) {
    for (const other of offered) {
      if (believed.some((one) => hasSameKey(one, other))) continue;
      if (other.ca && other.checkIssued(authority) && other.verify(authority.publicKey)) believed.push(other);
    }
  }
  return believed;
}

/** With the key of a believed authority and its name it is that authority. */
function hasSameKey(a: X509Certificate, b: X509Certificate): boolean {
  return a.subject === b.subject && a.publicKey.equals(b.publicKey);
}
