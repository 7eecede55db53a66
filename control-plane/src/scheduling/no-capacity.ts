import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { PlacementRequest } from "./placement-request.ts";
import type { PlacementVerdict } from "./verdict.ts";

/** No node can take a pod, or its own node not what it shall become. Its details tell customers how many nodes fell out for which reason, and no more. */
export class NoCapacityError extends DomainError {
  readonly request: PlacementRequest;
  readonly verdict: PlacementVerdict;

  constructor(
    request: PlacementRequest,
    verdict: PlacementVerdict,
    message = namedRefusal(request, verdict) ?? "No node has room for this pod at the moment.",
  ) {
    super("no-capacity", "NO_CAPACITY", message, {
      details: { nodes: verdict.reasons },
      retryAfterSeconds: 60,
    });
    this.request = request;
    this.verdict = verdict;
  }

  /** The same refusal with the reasons of each node, for operators. */
  forOperator(): DomainError {
    return new DomainError("no-capacity", this.code, `${this.message} ${this.verdict.summary}.`, {
      details: { summary: this.verdict.summary, reasons: this.verdict.reasons, nodes: this.verdict.rejected },
      retryAfterSeconds: 60,
      cause: this,
    });
  }
}

/** Whoever has named a host wants to know what is wrong with that one. */
function namedRefusal({ named }: PlacementRequest, { rejected }: PlacementVerdict): string | undefined {
  const refused = rejected.find(({ nodeId }) => nodeId === named);
  return refused === undefined ? undefined : `${refused.node} cannot take this pod: ${refused.reason}.`;
}

/**
 * Keeps what was asked and why there was no place, with a row of the audit log. Call it in a transaction of
 * its own: that of the order is rolled back.
 */
export async function recordPlacementFailure(
  tx: Queryable,
  failure: {
    readonly tenantId: string;
    readonly actor: Actor;
    readonly requestId: string | undefined;
    readonly error: NoCapacityError;
  },
): Promise<void> {
  const { tenantId, actor, requestId, error } = failure;
  const { request, verdict } = error;
  const id = newId();
  await tx.execute(sql`
    INSERT INTO placement_failures (id, tenant_id, request, verdicts, summary)
    VALUES (${id}, ${tenantId}, ${JSON.stringify(request)}, ${JSON.stringify(verdict)}, ${verdict.summary})`);
  await recordAudit(tx, {
    actor,
    requestId,
    tenantId,
    action: "placement.fail",
    targetType: "placement_failure",
    targetId: id,
    detail: { summary: verdict.summary },
  });
}
