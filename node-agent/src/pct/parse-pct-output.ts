/** One line of `pvesm status`. */
export interface StorageStatus {
  readonly storage: string;
  readonly available: boolean;
  readonly totalKib: bigint;
  readonly usedKib: bigint;
}

/** Parses `pvesm status`: name, type, status, total, used and available KiB, percentage. */
export function parseStorageStatus(stdout: string): StorageStatus[] {
  return stdout.split("\n").flatMap((line) => {
    const [, storage, status, total, used] =
      /^(\S+)\s+\S+\s+(active|inactive|disabled)\s+(\d+|N\/A)\s+(\d+|N\/A)\s/u.exec(`${line} `) ?? [];
    if (storage === undefined || total === undefined || used === undefined) return [];
    return [
      {
        storage,
        available: status === "active",
        totalKib: total === "N/A" ? 0n : BigInt(total),
        usedKib: used === "N/A" ? 0n : BigInt(used),
      },
    ];
  });
}

/** First global IPv4 address in the output of `ip -4 -o addr show dev eth0`, without prefix. */
export function parseInterfaceAddress(stdout: string): string | undefined {
  for (const line of stdout.split("\n")) {
    const address = /\sinet (\d{1,3}(?:\.\d{1,3}){3})\/\d{1,2}\s/u.exec(line)?.[1];
    if (address !== undefined && !/ scope (?:host|link)\b/u.test(line)) return address;
  }
  return undefined;
}

/** Version in the output of `pveversion`: "pve-manager/9.2.11/… (running kernel: …)". */
export function parsePveVersion(stdout: string): string | undefined {
  return /^pve-manager\/([0-9][0-9A-Za-z.~+-]*)/u.exec(stdout)?.[1];
}
