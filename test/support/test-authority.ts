// The X.509 library resolves its parts by metadata of this polyfill, which has to be there before it.
import "reflect-metadata";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { PublicKey } from "@peculiar/x509";
import {
  type SigningAuthority,
  issueNodeCertificate,
  issueServerCertificate,
  makeAuthority,
  openAuthority,
} from "../../control-plane/src/nodes/certificate-authority.ts";

/** An authority of its own for one test, made by the control plane's code. */
export async function makeTestAuthority(now = new Date()): Promise<SigningAuthority> {
  const id = crypto.randomUUID();
  const { certificate, privateKeyPem } = await makeAuthority(id, now);
  return openAuthority(id, certificate.pem, privateKeyPem);
}

/** A node's certificate for a private key; `now` is the moment of issue, which decides the validity. */
export async function certifyKey(
  authority: SigningAuthority,
  nodeId: string,
  keyPem: string,
  now = new Date(),
): Promise<string> {
  const spki = createPublicKey(createPrivateKey(keyPem)).export({ type: "spki", format: "der" });
  const { pem } = await issueNodeCertificate(authority, nodeId, new PublicKey(spki), now);
  return pem;
}

/** Certificate and key of a gateway that is dialled under the given names. */
export async function certifyServer(
  authority: SigningAuthority,
  names: readonly string[] = ["127.0.0.1"],
): Promise<{ readonly certificatePem: string; readonly keyPem: string }> {
  const { pem, privateKeyPem } = await issueServerCertificate(authority, names, new Date());
  return { certificatePem: pem, keyPem: privateKeyPem };
}
