import { generateKeyPairSync, X509Certificate } from "node:crypto";
import {
  issueReplicaCertificate,
  makeRevocationList,
  type SigningAuthority,
} from "../../control-plane/src/nodes/certificate-authority.ts";
import { certifyKey, certifyServer } from "./test-authority.ts";

/** TLS options of one side of a connection to a broker; all PEM. */
export interface BrokerSideTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
}

/** What a broker of somebody else needs besides: the PEM list of revoked certificates. */
export interface ExternalBrokerTls extends BrokerSideTls {
  readonly crl: string;
}

/** Certificate and revocation list of a broker that is not ours; `revoked`: serials in lower-case hex. */
export async function externalBrokerTls(
  authority: SigningAuthority,
  revoked: readonly string[] = [],
): Promise<ExternalBrokerTls> {
  const now = new Date();
  const entries = revoked.map((serial) => ({ serial, revokedAt: now }));
  return { ...(await brokerTls(authority)), crl: await makeRevocationList(authority, entries, now) };
}

/** The broker's own certificate, for this machine. */
export async function brokerTls(authority: SigningAuthority): Promise<BrokerSideTls> {
  const { certificatePem, keyPem } = await certifyServer(authority, ["127.0.0.1", "localhost"]);
  return { cert: certificatePem, key: keyPem, ca: [authority.pem] };
}

/** A replica's client certificate. */
export async function replicaTls(authority: SigningAuthority): Promise<BrokerSideTls> {
  const { pem, privateKeyPem } = await issueReplicaCertificate(authority, new Date());
  return { cert: pem, key: privateKeyPem, ca: [authority.pem] };
}

/** A host's client certificate with a new key, and its serial in lower-case hex. */
export async function hostTls(
  authority: SigningAuthority,
  nodeId: string,
): Promise<BrokerSideTls & { readonly serial: string }> {
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" })
    .privateKey.export({ type: "pkcs8", format: "pem" })
    .toString();
  const cert = await certifyKey(authority, nodeId, key);
  return { cert, key, ca: [authority.pem], serial: new X509Certificate(cert).serialNumber.toLowerCase() };
}
