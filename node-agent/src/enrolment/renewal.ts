import type { Logger } from "pino";
import { codeOf, messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import { readCertificate, renewalDueMs } from "./check-certificate.ts";
import { type Identity, loadIdentity } from "./identity-files.ts";
import { renewCertificate } from "./renew.ts";

/** What keeps the certificate fresh needs. */
export interface RenewalOptions {
  readonly stateDir: string;
  /** Disciplined time, ms since 1970 UTC. */
  readonly nowMs: () => number;
  /** Told once a new certificate is in force on disk. */
  readonly onRenewed: (identity: Identity) => void;
  readonly log: Logger;
}

/** Keeps the certificate fresh. */
export interface Renewal {
  /** Renews now; two callers at once share one renewal. */
  renewNow(): Promise<void>;
  /** Renews from now on whenever two thirds of the certificate's life have passed. */
  start(): void;
  stop(): void;
}

/** The longest time between two looks at the certificate: also how soon a changed clock is noticed. */
const lookIntervalMs = 60 * 60_000;
/** There is a third of the certificate's life, ten days, to succeed. */
const retryBackoff = { baseMs: 30_000, capMs: lookIntervalMs };

/** Makes the renewal of one identity. */
export function createRenewal(options: RenewalOptions): Renewal {
  const { stateDir, nowMs, onRenewed, log } = options;
  let running: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let failures = 0;

  const renewNow = (): Promise<void> => {
    running ??= renewCertificate(stateDir)
      .then((identity) => {
        const { serial, notAfterMs } = readCertificate(identity.certificatePem);
        log.info({ serial, notAfter: new Date(notAfterMs).toISOString() }, "certificate renewed");
        onRenewed(identity);
      })
      .finally(() => (running = undefined));
    return running;
  };
  const look = async (): Promise<number> => {
    try {
      const dueMs = renewalDueMs(readCertificate(loadIdentity(stateDir).certificatePem)) - nowMs();
      if (dueMs > 0) return Math.min(dueMs, lookIntervalMs);
      await renewNow();
      failures = 0;
      // Not zero: a certificate shorter than the differences of clocks must not make a busy loop.
      return retryBackoff.baseMs;
    } catch (error) {
      log.error({ code: codeOf(error), reason: messageOf(error) }, "the certificate could not be renewed");
      failures += 1;
      return retryBackoff.baseMs + fullJitterMs(failures, Math.random(), retryBackoff);
    }
  };
  const lookAndGoOn = async (): Promise<void> => {
    const nextMs = await look();
    if (timer !== undefined) schedule(nextMs);
  };
  const schedule = (waitMs: number): void => {
    timer = setTimeout(() => void lookAndGoOn(), waitMs);
  };
  return {
    renewNow,
    start: () => schedule(0),
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}
