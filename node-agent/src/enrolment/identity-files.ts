import { type KeyObject, X509Certificate, createPrivateKey, createPublicKey } from "node:crypto";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { AgentError, codeOf, messageOf } from "../agent-error.ts";
import { renameDurably, writeDurableFile } from "../durable-file.ts";

/** Who this host is and where its control plane is. The private key is in `keyPem`: never log it. */
export interface Identity extends IdentityFacts {
  readonly keyPem: string;
  readonly certificatePem: string;
  /** Every authority that the agent trusts, PEM. */
  readonly caPem: string;
}

/** The part of an identity that is kept in `identity.json`. */
export interface IdentityFacts {
  /** Node id (UUID), the common name of the certificate. */
  readonly nodeId: string;
  /** Base URL of the control plane's HTTP API, for renewal. */
  readonly serverUrl: string;
  /** gRPC gateway, "host:port". */
  readonly gatewayAddress: string;
  /** MQTT broker, "mqtts://host:port". */
  readonly brokerUrl: string;
}

/** Paths of everything that identifies the host inside the state directory. */
export function identityPaths(stateDir: string) {
  return {
    facts: join(stateDir, "identity.json"),
    key: join(stateDir, "key.pem"),
    nextKey: join(stateDir, "key.next.pem"),
    certificate: join(stateDir, "cert.pem"),
    nextCertificate: join(stateDir, "cert.next.pem"),
    ca: join(stateDir, "ca.pem"),
    joinRequest: join(stateDir, "join-request.json"),
  } as const;
}

/** Whether the host was enrolled. */
export function isEnrolled(stateDir: string): boolean {
  return existsSync(identityPaths(stateDir).facts);
}

/**
 * Reads the identity, after finishing a change of key that a crash interrupted.
 *
 * @throws AgentError NOT_ENROLLED when there is none, IDENTITY_UNREADABLE when its files are damaged.
 */
export function loadIdentity(stateDir: string): Identity {
  const paths = identityPaths(stateDir);
  if (!existsSync(paths.facts)) {
    throw new AgentError("NOT_ENROLLED", `No identity in ${stateDir}: run "cloudpods-agent join" first.`);
  }
  finishKeyChange(stateDir);
  try {
    const facts = parseFacts(readFileSync(paths.facts, "utf8"));
    const identity = {
      ...facts,
      keyPem: readFileSync(paths.key, "utf8"),
      certificatePem: readFileSync(paths.certificate, "utf8"),
      caPem: readFileSync(paths.ca, "utf8"),
    };
    if (!certificateBelongsToKey(identity.certificatePem, identity.keyPem)) {
      throw new Error("the certificate is not for the private key");
    }
    return identity;
  } catch (error) {
    throw new AgentError("IDENTITY_UNREADABLE", `The identity in ${stateDir} is damaged: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Stores a first identity. `identity.json` comes last: it says that the rest is complete. */
export function saveIdentity(stateDir: string, identity: Identity): void {
  const paths = identityPaths(stateDir);
  const { keyPem, certificatePem, caPem, ...facts } = identity;
  writeDurableFile(paths.key, keyPem, 0o600);
  writeDurableFile(paths.certificate, certificatePem, 0o644);
  writeDurableFile(paths.ca, caPem, 0o644);
  writeDurableFile(paths.facts, `${JSON.stringify(facts, null, 2)}\n`, 0o644);
}

/** Replaces the trusted authorities; returns whether anything changed. */
export function saveTrustedAuthorities(stateDir: string, caPem: string): boolean {
  const path = identityPaths(stateDir).ca;
  if (readFileSync(path, "utf8").trim() === caPem.trim()) return false;
  writeDurableFile(path, caPem, 0o644);
  return true;
}

/** Replaces where the broker or gateway is; the rest of the facts stay. */
export function saveAddresses(
  stateDir: string,
  addresses: Partial<Pick<IdentityFacts, "gatewayAddress" | "brokerUrl">>,
): void {
  const path = identityPaths(stateDir).facts;
  const facts = parseFacts(readFileSync(path, "utf8"));
  const changed = { ...facts, ...addresses };
  if (changed.brokerUrl === facts.brokerUrl && changed.gatewayAddress === facts.gatewayAddress) return;
  writeDurableFile(path, `${JSON.stringify(changed, null, 2)}\n`, 0o644);
}

/**
 * Puts a renewed certificate and the key that waits in `key.next.pem` into force. The certificate is
 * made durable first; from then on `finishKeyChange` completes the change after any crash.
 */
export function changeKey(stateDir: string, certificatePem: string): void {
  writeDurableFile(identityPaths(stateDir).nextCertificate, certificatePem, 0o644);
  finishKeyChange(stateDir);
}

function finishKeyChange(stateDir: string): void {
  const paths = identityPaths(stateDir);
  const certificate = readIfThere(paths.nextCertificate);
  if (certificate === undefined) return;
  const nextKey = readIfThere(paths.nextKey);
  if (nextKey !== undefined && certificateBelongsToKey(certificate, nextKey)) {
    renameDurably(paths.nextKey, paths.key);
    renameDurably(paths.nextCertificate, paths.certificate);
  } else if (certificateBelongsToKey(certificate, readFileSync(paths.key, "utf8"))) {
    renameDurably(paths.nextCertificate, paths.certificate);
  } else {
    rmSync(paths.nextCertificate);
  }
}

/** Whether a certificate was issued for the public half of a private key. */
export function certificateBelongsToKey(certificatePem: string, keyPem: string): boolean {
  const certified = new X509Certificate(certificatePem).publicKey;
  return spkiOf(certified).equals(spkiOf(createPublicKey(createPrivateKey(keyPem))));
}

/** DER SubjectPublicKeyInfo of a public key. */
export function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: "spki", format: "der" });
}

/** Splits a bundle into its certificates. @throws when one cannot be parsed. */
export function certificatesIn(bundlePem: string): X509Certificate[] {
  const blocks = bundlePem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((pem) => new X509Certificate(pem));
}

/** Text of a file, undefined when it does not exist. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function parseFacts(text: string): IdentityFacts {
  const value: unknown = JSON.parse(text);
  const field = (name: string): string => {
    const found =
      typeof value === "object" && value !== null ? Object.getOwnPropertyDescriptor(value, name)?.value : undefined;
    if (typeof found !== "string" || found === "") throw new Error(`identity.json has no ${name}`);
    return found;
  };
  return {
    nodeId: field("nodeId"),
    serverUrl: field("serverUrl"),
    gatewayAddress: field("gatewayAddress"),
    brokerUrl: field("brokerUrl"),
  };
}
