import { X509Certificate } from "node:crypto";
import { certificatesIn } from "./identity-files.ts";

/** What is wrong with a certificate before it is used; gRPC itself would only say "unavailable". */
export interface CertificateFault {
  readonly code: "CERTIFICATE_EXPIRED" | "WRONG_CA" | "CLOCK_WRONG";
  readonly message: string;
}

/** Validity of a certificate, ms since 1970 UTC, and its serial in lower-case hex. */
export interface CertificateFacts {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serial: string;
}

/** Hosts and control plane may differ by this much before a young certificate points at the clock. */
const clockToleranceMs = 5 * 60_000;

/** Reads validity and serial. @throws when the PEM holds no certificate. */
export function readCertificate(certificatePem: string): CertificateFacts {
  const certificate = new X509Certificate(certificatePem);
  return {
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
    serial: certificate.serialNumber.toLowerCase(),
  };
}

/** Looks at the host's own certificate as a peer would. `nowMs` is ms since 1970 UTC. */
export function checkCertificate(certificatePem: string, caPem: string, nowMs: number): CertificateFault | undefined {
  const certificate = new X509Certificate(certificatePem);
  const authority = certificatesIn(caPem).find((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey));
  if (authority === undefined) {
    return {
      code: "WRONG_CA",
      message: "No trusted authority has signed the certificate of this host.",
    };
  }
  const { notBeforeMs, notAfterMs } = readCertificate(certificatePem);
  if (nowMs < notBeforeMs - clockToleranceMs) {
    return {
      code: "CLOCK_WRONG",
      message: `The clock of this host (${iso(nowMs)}) is before the start of its certificate (${iso(notBeforeMs)}).`,
    };
  }
  if (nowMs >= notAfterMs) {
    return {
      code: "CERTIFICATE_EXPIRED",
      message: `The certificate of this host expired at ${iso(notAfterMs)}.`,
    };
  }
  return undefined;
}

/** When to renew: after two thirds of the certificate's life, ms since 1970 UTC. */
export function renewalDueMs(facts: CertificateFacts): number {
  return facts.notBeforeMs + Math.floor(((facts.notAfterMs - facts.notBeforeMs) * 2) / 3);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
