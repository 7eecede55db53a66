import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import {
  issueNodeCertificate,
  issueReplicaCertificate,
  issueServerCertificate,
  makeAuthority,
  openAuthority,
  type KeyedCertificate,
  type SigningAuthority,
} from "../../control-plane/src/nodes/certificate-authority.ts";

/** A certificate with its key and whom its holder trusts, as TLS options. */
export interface TestIdentity {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
  /** Lower-case hex. */
  readonly serial: string;
}

/** An authority that certifies whatever a test needs, on this machine. */
export interface TestAuthority {
  readonly pem: string;
  server(): Promise<TestIdentity>;
  replica(replicaId: string): Promise<TestIdentity>;
  node(nodeId: string): Promise<TestIdentity>;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** Makes an authority of its own. */
export async function makeTestAuthority(): Promise<TestAuthority> {
  const made = await makeAuthority("test-authority", new Date());
  const authority: SigningAuthority = await openAuthority("test-authority", made.certificate.pem, made.privateKeyPem);
  const asIdentity = ({ pem, privateKeyPem, serial }: Pick<KeyedCertificate, "pem" | "privateKeyPem" | "serial">) => ({
    cert: pem,
    key: privateKeyPem,
    ca: [authority.pem],
    serial,
  });
  return {
    pem: authority.pem,
    server: async () => asIdentity(await issueServerCertificate(authority, ["localhost", "127.0.0.1"], new Date())),
    replica: async (replicaId) => asIdentity(await issueReplicaCertificate(authority, replicaId, new Date())),
    async node(nodeId) {
      const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const publicKey = new x509.PublicKey(await webcrypto.subtle.exportKey("spki", keys.publicKey));
      const certificate = await issueNodeCertificate(authority, nodeId, publicKey, new Date());
      const privateKey = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
      return asIdentity({ ...certificate, privateKeyPem: x509.PemConverter.encode(privateKey, "PRIVATE KEY") });
    },
  };
}
