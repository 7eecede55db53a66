import type { Logger } from "pino";
import type { KeyedCertificate } from "./certificate-authority.ts";

/** A certificate that is replaced before it expires. */
export interface KeptCertificate {
  readonly current: KeyedCertificate;
  /** Calls back with each new certificate; new connections are to use it. */
  onRenewed(callback: (certificate: KeyedCertificate) => void): void;
  /** Another authority signs: the next one is issued at once. */
  renewNow(): void;
  stop(): void;
}

const retryMs = 60_000;
/** Longer timers fire at once. */
const timerMsMax = 2 ** 31 - 1;

/** Issues a certificate and, after two thirds of its life, the next; a failure is tried again each minute. */
export async function keepCertificate(options: {
  readonly issue: (now: Date) => Promise<KeyedCertificate>;
  readonly log: Logger;
}): Promise<KeptCertificate> {
  const callbacks = new Set<(certificate: KeyedCertificate) => void>();
  let current = await options.issue(new Date());
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;

  const renewIn = (ms: number): void => {
    if (stopped) return;
    clearTimeout(timer);
    timer = setTimeout(() => void renew(), Math.min(timerMsMax, Math.max(0, ms)));
    timer.unref();
  };
  const renewOnce = async (): Promise<void> => {
    try {
      current = await options.issue(new Date());
      for (const callback of callbacks) callback(current);
      renewIn(renewalDueMs(current) - Date.now());
    } catch (error) {
      options.log.error({ err: error }, "a server certificate could not be renewed");
      renewIn(retryMs);
    }
  };
  // One after the other: the certificate that was asked for last is the one in use.
  let turn = Promise.resolve();
  const renew = async (): Promise<void> => await (turn = turn.then(renewOnce));
  renewIn(renewalDueMs(current) - Date.now());
  return {
    get current() {
      return current;
    },
    onRenewed: (callback) => callbacks.add(callback),
    renewNow() {
      if (!stopped) void renew();
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** When two thirds of a certificate's life are over, ms since 1970 UTC. */
export function renewalDueMs(certificate: { readonly notBefore: Date; readonly notAfter: Date }): number {
  const [start, end] = [certificate.notBefore.getTime(), certificate.notAfter.getTime()];
  return start + Math.floor(((end - start) * 2) / 3);
}
