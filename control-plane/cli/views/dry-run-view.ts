import { DomainError } from "@cloudpods/shared/errors";
import type { AnswerOf } from "../api/endpoints.ts";

type DryRun = AnswerOf<"previewCreate">;
type Ordered = Pick<DryRun, "quota" | "placement" | "price">;

/** What would happen, in words, with the host's own command lines. */
export function renderDryRun({ quota, placement, commands, commandsReason, dnsRecords, price }: DryRun): string {
  return [
    ...orderLines({ quota, placement, price }),
    ...(dnsRecords.length === 0 ? [] : [`DNS:   ${dnsRecords.map((record) => JSON.stringify(record)).join(", ")}`]),
    ...(commands === null
      ? [`The host's commands are not known: ${commandsReason}`]
      : ["The host would run:", ...commands.map((line) => `  ${line}`)]),
    "Nothing was changed.",
  ].join("\n");
}

/** What an order or a change would come to. */
export function orderLines({ quota, placement, price }: Ordered): string[] {
  return [
    ...(quota === null ? [] : [`Quota: ${quota.allowed ? "allows it" : (quota.message ?? "does not allow it")}`]),
    ...(placement === null ? [] : [`Place: ${placement.node ?? "none"}; ${placement.summary}`]),
    ...(price === null ? [] : [`Price: ${price.amount} ${price.currency} per ${price.per}`]),
  ];
}

/** @throws DomainError of the kind that the real request would be refused with */
export function requirePossible({ quota, placement }: Pick<DryRun, "quota" | "placement">): void {
  if (quota?.allowed === false)
    throw new DomainError("quota-exceeded", "QUOTA_EXCEEDED", quota.message ?? "The quota would be exceeded.");
  if (placement?.node === null)
    throw new DomainError("no-capacity", "NO_CAPACITY", `No node has room for it: ${placement.summary}.`);
}
