import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";

/** The key that secrets in the database are sealed with. */
export interface MasterKey {
  /** Names the key in what it sealed, so that a wrong key is told from a broken text. */
  readonly id: string;
  /** 32 bytes. */
  readonly bytes: Buffer;
}

/** A key from its 32 bytes. @throws Error when it has another length. */
export function masterKey(bytes: Buffer): MasterKey {
  if (bytes.length !== 32) throw new Error(`the master key has ${bytes.length} bytes instead of 32`);
  return { id: createHash("sha256").update("cloudpods master key").update(bytes).digest("hex").slice(0, 16), bytes };
}

/**
 * Seals a text with AES-256-GCM (NIST SP 800-38D, random 96-bit nonce): `v1.<key id>.<nonce>.<tag>.<ciphertext>`.
 * `purpose` is authenticated with it: what was sealed as one thing cannot be opened as another.
 */
export function seal(key: MasterKey, purpose: string, text: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key.bytes, nonce).setAAD(Buffer.from(purpose, "utf8"));
  const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
  return ["v1", key.id, ...[nonce, cipher.getAuthTag(), sealed].map((part) => part.toString("base64url"))].join(".");
}

/** Opens what `seal` made. @throws Error that names the needed key, or says that the text was changed. */
export function unseal(key: MasterKey, purpose: string, sealed: string): string {
  const [version, keyId, nonce, tag, body] = sealed.split(".");
  if (version !== "v1" || keyId === undefined || nonce === undefined || tag === undefined || body === undefined) {
    throw new Error("not a sealed text");
  }
  if (keyId !== key.id) throw new Error(`sealed with the master key ${keyId}, but the configured one is ${key.id}`);
  try {
    const decipher = createDecipheriv("aes-256-gcm", key.bytes, Buffer.from(nonce, "base64url"), { authTagLength: 16 });
    decipher.setAAD(Buffer.from(purpose, "utf8")).setAuthTag(Buffer.from(tag, "base64url"));
    return Buffer.concat([decipher.update(Buffer.from(body, "base64url")), decipher.final()]).toString("utf8");
  } catch (error) {
    throw new Error(`a sealed text was changed or is no ${purpose}`, { cause: error });
  }
}
