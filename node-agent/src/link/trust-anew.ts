import type { Logger } from "pino";
import { codeOf, messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";

/** What learning the authorities anew needs. */
export interface TrustAnewOptions {
  readonly renewCertificate: () => Promise<void>;
  readonly monotonicMs: () => number;
  readonly log: Logger;
}

/** Whoever stands in the way with a certificate of his own must not make a host renew again and again. */
const intervalMs = 3_600_000;
const retryBackoff = { baseMs: 30_000, capMs: intervalMs };

/**
 * For a gateway whose certificate is of an authority that this host does not know: the authority may have been replaced
 * while the host was off, and a renewal, which rests on no handshake, brings those that the known ones have vouched for.
 * @returns a function that renews unless it was done a while ago; true when there is something new to dial with
 */
export function createTrustAnew({ renewCertificate, monotonicMs, log }: TrustAnewOptions): () => Promise<boolean> {
  let nextAtMs = Number.NEGATIVE_INFINITY;
  let failures = 0;
  return async () => {
    if (monotonicMs() < nextAtMs) return false;
    log.warn("the gateway's authority is unknown: the certificate is renewed, in case that it was replaced");
    try {
      await renewCertificate();
      failures = 0;
      nextAtMs = monotonicMs() + intervalMs;
      return true;
    } catch (error) {
      log.error({ code: codeOf(error), reason: messageOf(error) }, "the certificate could not be renewed");
      failures += 1;
      nextAtMs = monotonicMs() + retryBackoff.baseMs + fullJitterMs(failures, Math.random(), retryBackoff);
      return false;
    }
  };
}
