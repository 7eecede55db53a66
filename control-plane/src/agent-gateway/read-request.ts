import { ConnectRequest } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** A message, or the fact that bytes were none. */
export type ReadRequest = ConnectRequest | "malformed";

/**
 * Decodes a message without ever throwing: gRPC would answer an exception with an anonymous INTERNAL.
 * NUL characters are dropped from all texts, because PostgreSQL stores none.
 */
export function readRequest(bytes: Buffer): ReadRequest {
  try {
    const request = ConnectRequest.decode(bytes);
    dropNul(request);
    return request;
  } catch {
    return "malformed";
  }
}

/** Walks the members of a decoded message, which is a tree of plain objects, arrays and scalars. */
function dropNul(value: object): void {
  for (const [name, member] of Object.entries(value)) {
    if (typeof member === "string") {
      if (member.includes("\0")) Object.assign(value, { [name]: member.replaceAll("\0", "") });
    } else if (typeof member === "object" && member !== null) dropNul(member);
  }
}
