import { DomainError, type ErrorKind } from "@cloudpods/shared/errors";
import {
  ApiRefusal,
  InterruptedError,
  NotSignedInError,
  TaskFailedError,
  UnreachableError,
  UsageError,
} from "./errors.ts";

/** What each exit code of the program says; the table of the help. */
export const exitCodes = {
  ok: { code: 0, meaning: "done" },
  unexpected: { code: 1, meaning: "something unexpected, or a proof that failed" },
  usage: { code: 2, meaning: "the command line is wrong" },
  notFound: { code: 3, meaning: "there is no such thing" },
  refused: { code: 4, meaning: "refused: not valid, in the wrong state or in conflict" },
  notAllowed: { code: 5, meaning: "not signed in, or not allowed" },
  noCapacity: { code: 6, meaning: "no capacity, quota or budget left" },
  unreachable: { code: 7, meaning: "unreachable, overloaded or too slow" },
  taskFailed: { code: 8, meaning: "the task failed or was cancelled, or a host was not emptied" },
  // EX_CONFIG of sysexits.h: starting again will not help.
  configuration: { code: 78, meaning: "the control plane's configuration is wrong" },
  interrupted: { code: 130, meaning: "interrupted; work that was begun goes on" },
} as const;

const ofKind: Readonly<Record<ErrorKind, number>> = {
  invalid: exitCodes.refused.code,
  unauthenticated: exitCodes.notAllowed.code,
  forbidden: exitCodes.notAllowed.code,
  "not-found": exitCodes.notFound.code,
  "already-exists": exitCodes.refused.code,
  conflict: exitCodes.refused.code,
  "wrong-state": exitCodes.refused.code,
  "precondition-failed": exitCodes.refused.code,
  "rate-limited": exitCodes.unreachable.code,
  "quota-exceeded": exitCodes.noCapacity.code,
  "no-capacity": exitCodes.noCapacity.code,
  unavailable: exitCodes.unreachable.code,
};

/** The exit code for what ended a command. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof ApiRefusal) return ofAnswer(error.problem.status, error.problem.title);
  if (error instanceof DomainError) return ofKind[error.kind];
  if (error instanceof UsageError) return exitCodes.usage.code;
  if (error instanceof NotSignedInError) return exitCodes.notAllowed.code;
  if (error instanceof UnreachableError) return exitCodes.unreachable.code;
  if (error instanceof InterruptedError) return exitCodes.interrupted.code;
  if (error instanceof TaskFailedError) return exitCodes.taskFailed.code;
  // Its class comes with the server, which most commands do not load.
  if (error instanceof Error && error.name === "ConfigError") return exitCodes.configuration.code;
  return exitCodes.unexpected.code;
}

/** A refusal's status; the title tells what shares its status with something else. */
function ofAnswer(status: number, title: string): number {
  if (title === "Quota exceeded" || title === "No capacity") return exitCodes.noCapacity.code;
  if (status === 404) return exitCodes.notFound.code;
  if (status === 401 || status === 403) return exitCodes.notAllowed.code;
  if (status === 429 || (status >= 502 && status <= 504)) return exitCodes.unreachable.code;
  return status >= 400 && status < 500 ? exitCodes.refused.code : exitCodes.unexpected.code;
}
