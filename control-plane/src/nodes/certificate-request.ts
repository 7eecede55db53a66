// The X.509 library resolves its parts by metadata of this polyfill, which has to be there before it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { DomainError } from "@cloudpods/shared/errors";
import { spkiSha256 } from "./certificate-authority.ts";

/** What is taken from a certificate request: its public key, nothing else. */
export interface CertificateRequest {
  readonly der: Buffer;
  readonly publicKey: x509.PublicKey;
  /** Lower-case hex SHA-256 of the key's DER SubjectPublicKeyInfo. */
  readonly spkiSha256: string;
}

const requestBytesMax = 4_096;

/** Reads a PEM request (RFC 2986) for a P-256 key, signed by that key. @throws DomainError `invalid` CSR_INVALID. */
export async function readCertificateRequest(pem: string): Promise<CertificateRequest> {
  const request = parseRequest(pem);
  const { algorithm } = request.publicKey;
  const isP256 = algorithm.name === "ECDSA" && "namedCurve" in algorithm && algorithm.namedCurve === "P-256";
  if (!isP256 || !(await request.verify().catch(() => false))) throw invalidRequest();
  return { der: Buffer.from(request.rawData), publicKey: request.publicKey, spkiSha256: spkiSha256(request.publicKey) };
}

function parseRequest(pem: string): x509.Pkcs10CertificateRequest {
  if (pem.length > requestBytesMax) throw invalidRequest();
  try {
    return new x509.Pkcs10CertificateRequest(x509.PemConverter.decodeFirst(pem));
  } catch (error) {
    throw invalidRequest(error);
  }
}

function invalidRequest(cause?: unknown): DomainError {
  return new DomainError(
    "invalid",
    "CSR_INVALID",
    "The certificate request is not a PKCS#10 request for a P-256 key signed by that key.",
    { cause },
  );
}
