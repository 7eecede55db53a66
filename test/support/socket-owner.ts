import { readFileSync, readdirSync, readlinkSync } from "node:fs";

/** Whether a process holds the TCP connection (IPv4) that comes from this port of the machine. */
export function ownsPort(pid: number, port: number): boolean {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  // Columns: slot, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
  const rows = readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1);
  const inodes = rows
    .map((row) => row.trim().split(/\s+/))
    .filter(([, local]) => local?.endsWith(`:${hexPort}`) === true)
    .map((columns) => columns[9]);
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const target = readLink(`/proc/${pid}/fd/${fd}`);
      return inodes.some((inode) => target === `socket:[${inode}]`);
    });
  } catch {
    return false; // it has ended
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed by now
  }
}
