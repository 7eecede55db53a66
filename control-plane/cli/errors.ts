/** The part of a problem document (RFC 9457) that people and scripts are shown. */
export interface ShownProblem {
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** Stable upper-case code. */
  readonly error: string;
  readonly errors?: readonly { readonly pointer: string; readonly detail: string }[] | undefined;
}

/** The control plane refused a request. */
export class ApiRefusal extends Error {
  override readonly name = "ApiRefusal";
  readonly problem: ShownProblem;
  /** The document as it came. */
  readonly text: string;
  readonly retryAfterMs: number | undefined;

  constructor(problem: ShownProblem, text: string, retryAfterMs: number | undefined) {
    super(problem.detail);
    this.problem = problem;
    this.text = text;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The control plane did not answer, or a deadline passed. */
export class UnreachableError extends Error {
  override readonly name = "UnreachableError";
  /** Asking again may help. */
  readonly isPassing: boolean;

  constructor(message: string, isPassing = true, cause?: unknown) {
    super(message, { cause });
    this.isPassing = isPassing;
  }
}

/** The command line asks for something that cannot be meant. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** There is no credential for the control plane that was named. */
export class NotSignedInError extends Error {
  override readonly name = "NotSignedInError";
}

/** Whoever ran the command has pressed Ctrl-C; the message says what becomes of what was begun. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
}

/** A task that was waited for failed or was cancelled. */
export class TaskFailedError extends Error {
  override readonly name = "TaskFailedError";
}
