import type { Queryable } from "../platform/database.ts";
import type { FleetSnapshot } from "./fleet-snapshot.ts";

/** The fleet as this process last saw it; shared by all placements of the process. Make one in compose. */
export interface FleetView {
  /** A snapshot that is at most a moment old, read through `tx` when there is none. */
  recent(tx: Queryable): Promise<FleetSnapshot>;
  /** A snapshot whose reading began after this call. Calls at the same time share one. */
  fresh(tx: Queryable): Promise<FleetSnapshot>;
}
