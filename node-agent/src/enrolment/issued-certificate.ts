import { X509Certificate, createHash } from "node:crypto";
import { AgentError } from "../agent-error.ts";
import { certificateBelongsToKey, certificatesIn, spkiOf } from "./identity-files.ts";

/** The authority of a bundle whose public key has the pinned fingerprint. @throws AgentError WRONG_CA */
export function pinnedAuthority(bundlePem: string, spkiSha256: string): X509Certificate {
  const authority = certificatesIn(bundlePem).find(
    (ca) => createHash("sha256").update(spkiOf(ca.publicKey)).digest("hex") === spkiSha256,
  );
  if (authority === undefined) {
    throw new AgentError(
      "WRONG_CA",
      "The answer does not hold the authority that the join token names: this is not the control plane that made the token.",
    );
  }
  return authority;
}

/**
 * Checks that a certificate was signed by one of `authorities` for our key and our node, before
 * anything of the answer is stored.
 *
 * @throws AgentError WRONG_CA, or INVALID_CERTIFICATE when it is for another key or node.
 */
export function checkIssuedCertificate(
  certificatePem: string,
  authorities: readonly X509Certificate[],
  keyPem: string,
  nodeId: string,
): void {
  const certificate = new X509Certificate(certificatePem);
  const signed = authorities.some((ca) => ca.ca && certificate.checkIssued(ca) && certificate.verify(ca.publicKey));
  if (!signed)
    throw new AgentError("WRONG_CA", "The certificate in the answer is not signed by the trusted authority.");
  if (!certificateBelongsToKey(certificatePem, keyPem)) {
    throw new AgentError("INVALID_CERTIFICATE", "The certificate in the answer is for another key.");
  }
  if (!certificate.subject.split("\n").includes(`CN=${nodeId}`)) {
    throw new AgentError("INVALID_CERTIFICATE", "The certificate in the answer is for another node.");
  }
}
