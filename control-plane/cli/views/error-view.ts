import { DomainError, type ErrorKind } from "@cloudpods/shared/errors";
import {
  ApiRefusal,
  InterruptedError,
  NotSignedInError,
  TaskFailedError,
  UnreachableError,
  UsageError,
} from "../errors.ts";

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

/** Part of a problem document that tells of what it is. */
interface Nature {
  /** The API's, where it would have answered so. */
  readonly status?: number;
  readonly title: string;
  readonly error: string;
}

/** What is looked up here is refused as the API would. */
const ofKind: Partial<Readonly<Record<ErrorKind, Omit<Nature, "error">>>> = {
  "not-found": { status: 404, title: "Not found" },
  conflict: { status: 409, title: "Conflict" },
};

/** What ended a command, for scripts: a problem of the API as it came, and everything else in its form; one line. */
export function errorAsJson(error: unknown): string {
  if (error instanceof ApiRefusal && isObject(error.text)) return error.text;
  const nature = natureOf(error);
  const detail = error instanceof Error ? error.message : String(error);
  return JSON.stringify({ type: `urn:cloudpods:error:${nature.error}`, ...nature, detail, message: detail });
}

function natureOf(error: unknown): Nature {
  if (error instanceof ApiRefusal) {
    const { status, title, error: code } = error.problem;
    return { status, title, error: code };
  }
  if (error instanceof DomainError) return { title: "Refused", ...ofKind[error.kind], error: error.code };
  if (error instanceof NotSignedInError) return { status: 401, title: "Not signed in", error: "CREDENTIAL_MISSING" };
  if (error instanceof UsageError) return { title: "Wrong command line", error: "COMMAND_LINE_INVALID" };
  if (error instanceof UnreachableError) return { title: "No answer in time", error: "UNREACHABLE" };
  if (error instanceof TaskFailedError) return { title: "Not done", error: "TASK_FAILED" };
  if (error instanceof InterruptedError) return { title: "Interrupted", error: "INTERRUPTED" };
  return { title: "Unexpected", error: "UNEXPECTED" };
}

/** Not so where something between us and the control plane has answered. */
function isObject(text: string): boolean {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null;
  } catch {
    return false;
  }
}
