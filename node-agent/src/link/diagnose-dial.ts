import { connect } from "node:tls";
import { codeOf, messageOf } from "../agent-error.ts";
import type { Identity } from "../enrolment/identity-files.ts";

/** Why the gateway cannot be reached, in words that an operator can act on. */
export interface DialFault {
  readonly code: "WRONG_CA" | "CLOCK_WRONG" | "WRONG_SERVER_NAME" | "CERTIFICATE_REFUSED" | "GATEWAY_UNREACHABLE";
  readonly message: string;
}

const timeoutMs = 5_000;

/**
 * Dials the gateway once more with plain TLS to learn why gRPC failed: it says "unavailable" for every
 * failure of a handshake. Undefined when this dial succeeds.
 */
export async function diagnoseDial(identity: Identity): Promise<DialFault | undefined> {
  const { host, port } = splitAddress(identity.gatewayAddress);
  const socket = connect({
    host,
    port,
    ca: identity.caPem,
    cert: identity.certificatePem,
    key: identity.keyPem,
    ALPNProtocols: ["h2"],
    ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
  });
  try {
    return await new Promise((resolve) => {
      socket.setTimeout(timeoutMs, () =>
        resolve({ code: "GATEWAY_UNREACHABLE", message: "The gateway does not answer." }),
      );
      socket.once("error", (error) => resolve(classifyDialError(codeOf(error) ?? "", messageOf(error))));
      // A server refuses a client certificate only after the client's side of the handshake (TLS 1.3),
      // so success shows in its first bytes: the HTTP/2 settings.
      socket.once("data", () => resolve(undefined));
      let isEncrypted = false;
      socket.once("secureConnect", () => (isEncrypted = true));
      socket.once("close", () => resolve(closedDial(isEncrypted)));
    });
  } finally {
    socket.destroy();
  }
}

function closedDial(isEncrypted: boolean): DialFault {
  return isEncrypted
    ? {
        code: "CERTIFICATE_REFUSED",
        message:
          "The gateway closed the connection after the handshake: it does not accept the certificate of this host.",
      }
    : { code: "GATEWAY_UNREACHABLE", message: "The gateway closed the connection." };
}

/** Reads Node's and OpenSSL's codes (https://nodejs.org/api/tls.html#x509-certificate-error-codes). */
export function classifyDialError(code: string, message: string): DialFault {
  if (code === "CERT_NOT_YET_VALID" || code === "CERT_HAS_EXPIRED") {
    return {
      code: "CLOCK_WRONG",
      message: `The gateway's certificate is outside its validity by the clock of this host (${code}).`,
    };
  }
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return { code: "WRONG_SERVER_NAME", message };
  if (/ISSUER|SELF_SIGNED|UNABLE_TO_VERIFY|CERT_SIGNATURE|CERT_UNTRUSTED/.test(code)) {
    return { code: "WRONG_CA", message: `The gateway's certificate is not from a trusted authority (${code}).` };
  }
  if (/ALERT|CERTIFICATE/i.test(code)) {
    return { code: "CERTIFICATE_REFUSED", message: `The gateway refuses the certificate of this host: ${message}` };
  }
  return { code: "GATEWAY_UNREACHABLE", message };
}

/** Host and port of "host:port"; IPv6 hosts are in brackets. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, colon).replace(/^\[|\]$/g, "");
  return { host, port: Number(address.slice(colon + 1)) };
}
