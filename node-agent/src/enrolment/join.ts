import { createPrivateKey } from "node:crypto";
import { rmSync } from "node:fs";
import { AgentError } from "../agent-error.ts";
import { writeDurableFile } from "../durable-file.ts";
import { callControlPlane, expectSuccess, requireText } from "./call-control-plane.ts";
import { makeCertificateRequest, makePrivateKey, requestFromPem, requestToPem } from "./certificate-request.ts";
import { type Identity, identityPaths, isEnrolled, readIfThere, saveIdentity } from "./identity-files.ts";
import { checkIssuedCertificate, pinnedAuthority } from "./issued-certificate.ts";
import { joinProof, parseJoinToken } from "./join-token.ts";
import { retryWithBackoff } from "./retry.ts";

/** What the host says about itself when it joins. */
export interface HostFacts {
  /** SHA-256 (hex) of /etc/machine-id. */
  readonly machineId: string;
  readonly hostname: string;
  /** Name of the host inside Proxmox; empty when it is no hypervisor. */
  readonly pveName: string;
}

/**
 * Enrols the host: makes a key that never leaves it, proves knowledge of the token, and stores the
 * identity only if the authority named by the token signed it. When the answer is lost the next call
 * with the same token repeats the very same request, which the control plane answers in the same way.
 *
 * @throws AgentError ALREADY_ENROLLED, INVALID_JOIN_TOKEN, WRONG_CA, INVALID_CERTIFICATE,
 * CONTROL_PLANE_UNREACHABLE, or the control plane's own code.
 */
export async function joinControlPlane(
  stateDir: string,
  serverUrl: string,
  tokenText: string,
  host: HostFacts,
): Promise<Identity> {
  const token = parseJoinToken(tokenText);
  if (!URL.canParse(serverUrl) || !/^https?:$/.test(new URL(serverUrl).protocol)) {
    throw new AgentError("INVALID_SERVER_URL", `"${serverUrl}" is not an http or https address.`);
  }
  if (isEnrolled(stateDir)) {
    throw new AgentError("ALREADY_ENROLLED", `${stateDir} already holds an identity; remove it to join anew.`);
  }
  const { keyPem, csrPem } = prepareRequest(stateDir, token.tokenId);
  const request = {
    tokenId: token.tokenId,
    csr: csrPem,
    proof: joinProof(token.secret, requestFromPem(csrPem)),
    ...host,
  };
  const answer = await retryWithBackoff(async () =>
    expectSuccess(await callControlPlane(serverUrl, "api/nodes/enroll", request)),
  );
  const certificatePem = requireText(answer, "certificate");
  const nodeId = requireText(answer, "nodeId");
  const authority = pinnedAuthority(requireText(answer, "caBundle"), token.caSpkiSha256);
  checkIssuedCertificate(certificatePem, [authority], keyPem, nodeId);
  const identity: Identity = {
    nodeId,
    serverUrl,
    gatewayAddress: requireText(answer, "gatewayAddress"),
    brokerUrl: requireText(answer, "brokerUrl"),
    keyPem,
    certificatePem,
    // The answer may have travelled in the clear: only the pinned authority is believed now. Others
    // of the bundle come with the first Welcome, which mutual TLS protects.
    caPem: authority.toString(),
  };
  saveIdentity(stateDir, identity);
  const paths = identityPaths(stateDir);
  rmSync(paths.nextKey, { force: true });
  rmSync(paths.joinRequest, { force: true });
  return identity;
}

/** The key and request of an earlier attempt with this token, or new ones, durable before they are sent. */
function prepareRequest(stateDir: string, tokenId: string): { keyPem: string; csrPem: string } {
  const paths = identityPaths(stateDir);
  const earlier = readIfThere(paths.joinRequest);
  const earlierKey = readIfThere(paths.nextKey);
  if (earlier !== undefined && earlierKey !== undefined) {
    const saved: unknown = JSON.parse(earlier);
    if (requireText(saved, "tokenId") === tokenId) {
      return { keyPem: earlierKey, csrPem: requireText(saved, "csr") };
    }
  }
  const keyPem = makePrivateKey();
  const csrPem = requestToPem(makeCertificateRequest(createPrivateKey(keyPem)));
  // The old request goes first: a crash between the writes must not pair it with the new key.
  rmSync(paths.joinRequest, { force: true });
  writeDurableFile(paths.nextKey, keyPem, 0o600);
  writeDurableFile(paths.joinRequest, JSON.stringify({ tokenId, csr: csrPem }), 0o600);
  return { keyPem, csrPem };
}
