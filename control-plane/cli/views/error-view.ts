import { DomainError } from "@cloudpods/shared/errors";
import { ApiRefusal } from "../errors.ts";

/** What helps with refusals that the command line has a word for. */
const hints: Readonly<Record<string, string>> = {
  FENCING_NOT_CONFIRMED: "Say so with --confirm-fenced; --dry-run tells before what would come back.",
  TENANT_REQUIRED: "Name it with --tenant.",
  CREDENTIAL_EXPIRED: "Sign in again: cloudpods login",
  CREDENTIAL_INVALID: "Sign in again: cloudpods login",
  IDEMPOTENCY_RESULT_NOT_REPLAYABLE: "The first answer was lost on its way: make another one.",
};

/** Signing in would not help: the environment comes before the profile. */
const ofEnvironment: Readonly<Record<string, string>> = {
  CREDENTIAL_EXPIRED: "It is the one of CLOUDPODS_TOKEN.",
  CREDENTIAL_INVALID: "It is the one of CLOUDPODS_TOKEN.",
};

const tenantOrAll = "Name it with --tenant, or list those of all tenants with --all.";

/** What ended a command, in the API's own words where it was the API. */
export function describeError(
  error: unknown,
  command: { readonly hasAll?: boolean; readonly hasTokenOfEnvironment?: boolean } = {},
): string {
  if (error instanceof ApiRefusal) {
    const { detail, error: code, errors = [] } = error.problem;
    const fields = errors.map(({ pointer, detail: what }) => `  ${pointer}: ${what}`);
    const own = command.hasTokenOfEnvironment === true ? ofEnvironment[code] : undefined;
    const hint = code === "TENANT_REQUIRED" && command.hasAll === true ? tenantOrAll : (own ?? hints[code]);
    return [`cloudpods: ${detail} (${code})`, ...fields, ...(hint === undefined ? [] : [`  ${hint}`])].join("\n");
  }
  if (error instanceof DomainError) return `cloudpods: ${error.message} (${error.code})`;
  return `cloudpods: ${error instanceof Error ? error.message : String(error)}`;
}
