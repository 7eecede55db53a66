import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import type { Actor } from "../security/actor.ts";
import type { PlacementRequest } from "./placement-request.ts";
import type { PlacementVerdict } from "./verdict.ts";

/** No node can take a pod. Its details tell customers how many nodes fell out for which reason, and no more. */
export class NoCapacityError extends DomainError {
  readonly request: PlacementRequest;
  readonly verdict: PlacementVerdict;

  constructor(request: PlacementRequest, verdict: PlacementVerdict) {
    super("no-capacity", "NO_CAPACITY", "No node has room for this pod at the moment.", {
      details: { nodes: verdict.reasons },
      retryAfterSeconds: 60,
    });
    this.request = request;
    this.verdict = verdict;
  }

  /** The same refusal with the reasons of each node, for operators. */
  forOperator(): DomainError {
    return new DomainError("no-capacity", this.code, `No node has room for this pod: ${this.verdict.summary}.`, {
      details: { summary: this.verdict.summary, reasons: this.verdict.reasons, nodes: this.verdict.rejected },
      retryAfterSeconds: 60,
      cause: this,
    });
  }
}

/** Keeps what was asked and why there was no place. Call it in a transaction of its own: the order's is rolled back. */
export async function recordPlacementFailure(
  tx: Queryable,
  failure: {
    readonly tenantId: string;
    readonly actor: Actor;
    readonly requestId: string | undefined;
    readonly error: NoCapacityError;
  },
): Promise<void> {
  throw new Error(`cannot keep ${failure.tenantId} ${String(tx)}`);
}
