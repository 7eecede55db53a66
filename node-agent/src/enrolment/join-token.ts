import { createHash, createHmac } from "node:crypto";
import { AgentError } from "../agent-error.ts";

/** The parts of a join token `cp1.<id>.<secret>.<SHA-256 of the CA's public key>`. */
export interface JoinToken {
  /** Names the token to the control plane. */
  readonly tokenId: string;
  /** Never leaves the host; only a proof made with it does. */
  readonly secret: string;
  /** Lower-case hex SHA-256 of the DER SubjectPublicKeyInfo of the authority to trust. */
  readonly caSpkiSha256: string;
}

const tokenPattern = /^cp1\.([A-Za-z0-9-]{1,64})\.([A-Za-z0-9_-]{16,128})\.([0-9a-fA-F]{64})$/;

/** Takes a join token apart. @throws AgentError INVALID_JOIN_TOKEN, without repeating the token. */
export function parseJoinToken(text: string): JoinToken {
  const [, tokenId, secret, pin] = tokenPattern.exec(text.trim()) ?? [];
  if (tokenId === undefined || secret === undefined || pin === undefined) {
    throw new AgentError(
      "INVALID_JOIN_TOKEN",
      "The join token is not of the form cp1.<id>.<secret>.<fingerprint>; copy it whole.",
    );
  }
  return { tokenId, secret, caSpkiSha256: pin.toLowerCase() };
}

/**
 * Proof that the sender of a certificate request knows the token's secret:
 * hex HMAC-SHA256 of the DER request, keyed with SHA-256(secret), which is all that the server stores.
 */
export function joinProof(secret: string, csrDer: Uint8Array): string {
  const key = createHash("sha256").update(secret, "utf8").digest();
  return createHmac("sha256", key).update(csrDer).digest("hex");
}
