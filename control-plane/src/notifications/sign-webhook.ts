import { createHmac } from "node:crypto";

/** Header that carries the signature of a webhook. */
export const signatureHeader = "cloudpods-signature";

/**
 * Signature of a webhook: `t=<unix seconds>,v1=<hex>` with v1 = HMAC-SHA256(secret, `<t>.<body>`). The time is signed
 * with the body so that a receiver can refuse what was recorded and is sent again later.
 */
export function signWebhook(secret: string, body: string, at: Date): string {
  const seconds = Math.floor(at.getTime() / 1_000);
  return `t=${seconds},v1=${createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex")}`;
}
