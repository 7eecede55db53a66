import type { Labels } from "../scheduling/placement-request.ts";

/** Where a customer wants a pod to sit. */
export interface PlacementWish {
  /** Labels that the host must have. */
  readonly nodeLabels?: Labels | undefined;
  /** Not on a host with a pod of the same tenant that has all of these labels. */
  readonly antiAffinity?: Labels | undefined;
}
