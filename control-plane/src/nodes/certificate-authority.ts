// The X.509 library resolves its parts by metadata of this polyfill, which has to be there before it.
import "reflect-metadata";
import { createHash, randomBytes, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";

/** A certificate authority that can sign. */
export interface SigningAuthority {
  readonly id: string;
  readonly pem: string;
  /** Lower-case hex SHA-256 of the DER SubjectPublicKeyInfo; join tokens pin it. */
  readonly spkiSha256: string;
  readonly signingKey: webcrypto.CryptoKey;
}

/** A certificate as it is stored and handed out. */
export interface IssuedCertificate {
  readonly pem: string;
  /** Lower-case hex, without leading zeros. */
  readonly serial: string;
  /** Lower-case hex SHA-256 of the DER SubjectPublicKeyInfo. */
  readonly spkiSha256: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** A certificate with the private key that belongs to it. */
export interface KeyedCertificate extends IssuedCertificate {
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string;
}

const dayMs = 86_400_000;
const authorityLifeMs = 10 * 365 * dayMs;
const nodeLifeMs = 30 * dayMs;
const serverLifeMs = 7 * dayMs;
/** Peers whose clocks are this far behind still accept a new certificate. */
const backdatedMs = 5 * 60_000;
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** Makes an authority with a key of its own: P-256, self-signed, for end entities only. */
export async function makeAuthority(
  id: string,
  now: Date,
): Promise<{ certificate: IssuedCertificate; privateKeyPem: string }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const validity = {
    notBefore: new Date(now.getTime() - backdatedMs),
    notAfter: new Date(now.getTime() + authorityLifeMs),
  };
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=CloudPods ${id.slice(-12)}`,
    keys,
    ...validity,
    serialNumber: newSerial(),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: describeCertificate(certificate), privateKeyPem: await exportPrivateKey(keys.privateKey) };
}

/** An authority from its stored certificate and its opened PKCS#8 key. */
export async function openAuthority(id: string, pem: string, privateKeyPem: string): Promise<SigningAuthority> {
  const der = x509.PemConverter.decodeFirst(privateKeyPem);
  const signingKey = await webcrypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
  return { id, pem, signingKey, spkiSha256: describeCertificate(new x509.X509Certificate(pem)).spkiSha256 };
}

/**
 * The key of another authority in a certificate signed by this one: proof for whoever knows this one, until this one ends.
 * Nobody builds a chain with it, which the path length of this one forbids.
 */
export async function vouchFor(authority: SigningAuthority, pem: string): Promise<string> {
  const [parent, other] = [new x509.X509Certificate(authority.pem), new x509.X509Certificate(pem)];
  const certificate = await x509.X509CertificateGenerator.create({
    subject: other.subjectName,
    issuer: parent.subjectName,
    publicKey: other.publicKey,
    signingKey: authority.signingKey,
    signingAlgorithm: algorithm,
    serialNumber: newSerial(),
    notBefore: other.notBefore,
    notAfter: parent.notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(other.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(parent.publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

/** Certificate of a host: CN = its id, client authentication only, 30 days. */
export async function issueNodeCertificate(
  authority: SigningAuthority,
  nodeId: string,
  publicKey: x509.PublicKey,
  now: Date,
): Promise<IssuedCertificate> {
  return await issue(
    authority,
    { commonName: nodeId, publicKey, usage: x509.ExtendedKeyUsage.clientAuth, lifeMs: nodeLifeMs, names: [] },
    now,
  );
}

/**
 * Certificate of a gateway or broker for the given host names and addresses, with a new key. 7 days, since
 * replicas renew their own; a broker of somebody else gets a longer one.
 */
export async function issueServerCertificate(
  authority: SigningAuthority,
  names: readonly string[],
  now: Date,
  lifeMs: number = serverLifeMs,
): Promise<KeyedCertificate> {
  const [commonName] = names;
  if (commonName === undefined) throw new Error("a server certificate needs a name");
  return await issueWithNewKey(authority, { commonName, usage: x509.ExtendedKeyUsage.serverAuth, lifeMs, names }, now);
}

/** PEM of the list of certificates that no longer count, for brokers that are not ours; valid for a week. */
export async function makeRevocationList(
  authority: SigningAuthority,
  revoked: readonly { readonly serial: string; readonly revokedAt: Date }[],
  now: Date,
): Promise<string> {
  const list = await x509.X509CrlGenerator.create({
    issuer: new x509.X509Certificate(authority.pem).subject,
    thisUpdate: now,
    nextUpdate: new Date(now.getTime() + serverLifeMs),
    entries: revoked.map(({ serial, revokedAt }) => ({ serialNumber: serial, revocationDate: revokedAt })),
    signingAlgorithm: algorithm,
    signingKey: authority.signingKey,
  });
  // The label that OpenSSL reads (RFC 7468, 6); the library's own is another one.
  return `${x509.PemConverter.encode(list.rawData, "X509 CRL")}\n`;
}

/**
 * Certificate with which a replica of the control plane dials a broker, 7 days. All replicas have the same
 * name, because the access list of an external broker is a file that cannot know each of them.
 */
export async function issueReplicaCertificate(authority: SigningAuthority, now: Date): Promise<KeyedCertificate> {
  return await issueWithNewKey(
    authority,
    { commonName: "control-plane", usage: x509.ExtendedKeyUsage.clientAuth, lifeMs: serverLifeMs, names: [] },
    now,
  );
}

interface Wanted {
  readonly commonName: string;
  readonly usage: x509.ExtendedKeyUsage;
  readonly lifeMs: number;
  readonly names: readonly string[];
}

async function issueWithNewKey(authority: SigningAuthority, wanted: Wanted, now: Date): Promise<KeyedCertificate> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await issue(
    authority,
    { ...wanted, publicKey: new x509.PublicKey(await spkiOf(keys.publicKey)) },
    now,
  );
  return { ...certificate, privateKeyPem: await exportPrivateKey(keys.privateKey) };
}

async function issue(
  authority: SigningAuthority,
  wanted: Wanted & { readonly publicKey: x509.PublicKey },
  now: Date,
): Promise<IssuedCertificate> {
  const parent = new x509.X509Certificate(authority.pem);
  const alternativeNames = wanted.names.map((name) => ({
    type: isIP(name) === 0 ? ("dns" as const) : ("ip" as const),
    value: name,
  }));
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [wanted.commonName] }],
    issuer: parent.subjectName,
    publicKey: wanted.publicKey,
    signingKey: authority.signingKey,
    signingAlgorithm: algorithm,
    serialNumber: newSerial(),
    notBefore: new Date(now.getTime() - backdatedMs),
    notAfter: new Date(now.getTime() + wanted.lifeMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([wanted.usage], true),
      await x509.SubjectKeyIdentifierExtension.create(wanted.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(parent.publicKey),
      ...(alternativeNames.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternativeNames)]),
    ],
  });
  return describeCertificate(certificate);
}

function describeCertificate(certificate: x509.X509Certificate): IssuedCertificate {
  return {
    pem: `${certificate.toString("pem")}\n`,
    serial: certificate.serialNumber.toLowerCase(),
    spkiSha256: spkiSha256(certificate.publicKey),
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
  };
}

/** Lower-case hex SHA-256 of a public key's DER SubjectPublicKeyInfo. */
export function spkiSha256(publicKey: x509.PublicKey): string {
  return createHash("sha256").update(Buffer.from(publicKey.rawData)).digest("hex");
}

/** 126 random bits; the first byte is neither zero nor negative, so every library prints the same digits. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

async function spkiOf(publicKey: webcrypto.CryptoKey): Promise<ArrayBuffer> {
  return await webcrypto.subtle.exportKey("spki", publicKey);
}

async function exportPrivateKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY")}\n`;
}
