/** Labels of a node or a pod. */
export type Labels = Readonly<Record<string, string>>;

/** What a pod needs of a node. */
export interface PlacementRequest {
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
  /** Absent: any region. */
  readonly region?: string | undefined;
  /** Name of a template that the node must have; absent: the node's own default; null: none is needed. */
  readonly template?: string | null | undefined;
  /** Name of the storage for the root disk; absent: the node's default, or the largest one with room. */
  readonly storage?: string | undefined;
  /** The node must have all of these. */
  readonly nodeLabels?: Labels | undefined;
  /** The node must offer all of these. */
  readonly capabilities?: readonly string[] | undefined;
  /** Ids of the only nodes that come into question; absent: all. */
  readonly only?: readonly string[] | undefined;
  /** Id of the one of them that somebody has named; absent: any of them will do. */
  readonly named?: string | undefined;
  /** Not beside pods of the same tenant that have all of these labels. */
  readonly antiAffinity?: Labels | undefined;
}

/** Where the tenant has pods already, as far as a placement depends on it. */
export interface TenantFootprint {
  /** How many pods by node id; nodes without one are absent. */
  readonly podsByNode: ReadonlyMap<string, number>;
  /** Ids of nodes that hold a pod which the new one must keep away from. */
  readonly conflictingNodes: ReadonlySet<string>;
}
