import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { namesOf, type ExtraVolumes } from "../pods/extra-volumes.ts";
import type { Pod } from "../pods/pod.ts";
import { requireRoom, requireUsable, type Backup, type UsableBackup } from "./backup.ts";
import { hostsSeeing, notReachable } from "./backup-storage.ts";
import { requireBackable } from "./request-backup.ts";

/**
 * Requires that a pod can be restored where it is from a backup of its own. Whoever goes on to restore it has locked both.
 * @throws DomainError `POD_WRONG_STATE`, `BACKUP_NOT_AVAILABLE`, `BACKUP_DAMAGED`, `BACKUP_NOT_REACHABLE`, `DISK_TOO_SMALL`,
 *   `STORAGE_FULL`
 */
export async function requireRestorable(tx: Queryable, pod: Pod, backup: Backup): Promise<UsableBackup> {
  requireBackable(pod);
  requireUsable(backup);
  requireRoom(backup, pod.diskGb);
  if (!(await hostsSeeing(tx, backup)).includes(pod.nodeId ?? "")) throw notReachable(backup);
  await requireRoomBeside(tx, pod);
  return backup;
}

/**
 * Requires that nothing goes with a pod's container but what its backups hold, as its host has told last. What is added
 * later the host refuses itself. @throws DomainError `MORE_THAN_A_POD`
 */
export function requireNothingBesides(parts: ExtraVolumes | undefined): void {
  if (parts === undefined) return;
  throw new DomainError(
    "wrong-state",
    "MORE_THAN_A_POD",
    `The pod's container has ${namesOf(parts)}, which no backup holds and a restore in place would remove. ` +
      "Have them removed on the host, or restore the backup as a new pod.",
    { details: { parts: parts.keys } },
  );
}

/**
 * Requires room for a second disk of the pod: Proxmox makes the new one before it removes the old one, and for want of
 * room it gives the container up all the same. A container that the host has lost is not to be given up.
 * @throws DomainError `STORAGE_FULL`
 */
export async function requireRoomBeside(
  tx: Queryable,
  { id, generation, diskGb, containerMissingSince }: Pod,
): Promise<void> {
  if (containerMissingSince !== null) return;
  const [full] = await tx.query<{ name: string; freeGb: number }>(sql`
    SELECT s.name, greatest(0, s.total_gb - s.used_gb) AS "freeGb" FROM node_claims k JOIN storages s ON s.id = k.storage_id
    WHERE k.pod_id = ${id} AND k.generation = ${generation} AND s.total_gb > 0 AND s.total_gb - s.used_gb < ${diskGb}`);
  if (full === undefined) return;
  const { name, freeGb } = full;
  throw new DomainError(
    "conflict",
    "STORAGE_FULL",
    `A restore in place needs ${diskGb} GB beside the pod's disk until that is replaced, and the storage ${name} of its host has ${freeGb} GB left. ` +
      "The backup can be restored as a new pod.",
    { details: { storage: name, freeGb, neededGb: diskGb } },
  );
}
