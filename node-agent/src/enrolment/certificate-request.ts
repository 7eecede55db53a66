import { type KeyObject, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { spkiOf } from "./identity-files.ts";

/** Makes a P-256 private key as PKCS#8 PEM. */
export function makePrivateKey(): string {
  const { privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  return privateKey;
}

/** ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758, 3.2), as an AlgorithmIdentifier. */
const ecdsaWithSha256 = Buffer.from("300a06082a8648ce3d040302", "hex");

/**
 * DER certificate request (RFC 2986) for a P-256 key: version 0, no subject, no attributes. The
 * authority takes nothing but the public key from a request, so there is nothing else to say; and
 * this one fixed form spares the resident agent an X.509 library.
 */
export function makeCertificateRequest(privateKey: KeyObject): Buffer {
  const version = der(0x02, Buffer.from([0]));
  const emptySubject = der(0x30);
  const noAttributes = der(0xa0);
  const info = der(0x30, version, emptySubject, spkiOf(createPublicKey(privateKey)), noAttributes);
  const signature = sign("sha256", info, privateKey);
  const noUnusedBits = Buffer.from([0]);
  return der(0x30, info, ecdsaWithSha256, der(0x03, noUnusedBits, signature));
}

/** PEM of a DER certificate request (RFC 7468, 7). */
export function requestToPem(csrDer: Uint8Array): string {
  const lines =
    Buffer.from(csrDer)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join("\n")}\n-----END CERTIFICATE REQUEST-----\n`;
}

/** DER of a PEM certificate request. */
export function requestFromPem(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----/g, ""), "base64");
}

/** One DER element: tag, length (short or long form, X.690 8.1.3), content. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content]);
  const length = Buffer.from(content.length.toString(16).padStart(content.length > 0xff ? 4 : 2, "0"), "hex");
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, content]);
}
