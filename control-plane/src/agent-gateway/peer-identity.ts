import { status } from "@grpc/grpc-js";
import { isUuid } from "@cloudpods/shared/ids";
import type { PeerIdentity } from "./open-session.ts";
import { SessionEnd } from "./session-end.ts";

/** The certificate of a call's connection; TLS has checked that one of our authorities signed it. */
interface CertifiedCall {
  getAuthContext(): {
    readonly sslPeerCertificate?: { readonly subject: { readonly CN?: unknown }; readonly serialNumber: string };
  };
}

/** Who is at the other end. @throws SessionEnd NOT_A_NODE for certificates that are not of hosts. */
export function peerIdentity(call: CertifiedCall): PeerIdentity {
  const certificate = call.getAuthContext().sslPeerCertificate;
  const commonName = certificate?.subject.CN;
  if (certificate === undefined || typeof commonName !== "string" || !isUuid(commonName)) {
    throw new SessionEnd(status.UNAUTHENTICATED, "NOT_A_NODE", "the certificate is not that of a node");
  }
  return { nodeId: commonName, serial: certificate.serialNumber.toLowerCase() };
}
