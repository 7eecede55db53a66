import { createHash, randomBytes } from "node:crypto";

const apiTokenPrefix = "cpt_";

/** A secret and what is kept of it. */
export interface SecretToken {
  /** Shown once to whom it belongs; never stored. */
  readonly secret: string;
  readonly sha256: Buffer;
}

/** 32 random bytes in hex: for sessions and their CSRF tokens. */
export function newSecretToken(): SecretToken {
  return tokenOf(randomBytes(32).toString("hex"));
}

/** As `newSecretToken` with a prefix by which people and secret scanners recognise an API token. */
export function newApiToken(): SecretToken & { readonly prefix: string } {
  const token = tokenOf(apiTokenPrefix + randomBytes(32).toString("hex"));
  return { ...token, prefix: token.secret.slice(0, apiTokenPrefix.length + 8) };
}

/**
 * SHA-256 of a secret. A plain hash is enough for 256 random bits: there is nothing to guess, and looking a
 * hash up in an index tells no timing about the secret.
 */
export function sha256Of(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

/** What kind of credential a text can be by its form; undefined for one that we never gave out. */
export function credentialKindOf(text: string): "session" | "token" | undefined {
  if (/^[0-9a-f]{64}$/.test(text)) return "session";
  return /^cpt_[0-9a-f]{64}$/.test(text) ? "token" : undefined;
}

function tokenOf(secret: string): SecretToken {
  return { secret, sha256: sha256Of(secret) };
}
