import { DomainError } from "@cloudpods/shared/errors";

/** ETag of a resource's version. */
export function etagOf(version: number): string {
  return `"${version}"`;
}

/**
 * Refuses a write that was decided on an older version.
 * @throws DomainError `precondition-failed` VERSION_MISMATCH when If-Match names another version.
 */
export function checkVersion(ifMatch: number | undefined, version: number): void {
  if (ifMatch === undefined || ifMatch === version) return;
  throw new DomainError(
    "precondition-failed",
    "VERSION_MISMATCH",
    `The resource is at version ${version}, not ${ifMatch}.`,
    {
      details: { version },
    },
  );
}

/**
 * The version in an If-Match header; undefined when absent or `*`.
 * @throws DomainError `precondition-failed` for a tag that no version of ours has.
 */
export function parseIfMatch(header: string | undefined): number | undefined {
  if (header === undefined || header.trim() === "*") return undefined;
  const match = /^(?:W\/)?"?(\d{1,10})"?$/.exec(header.trim());
  if (match === null) {
    throw new DomainError(
      "precondition-failed",
      "VERSION_MISMATCH",
      "If-Match does not name a version of this resource.",
    );
  }
  return Number(match[1]);
}
