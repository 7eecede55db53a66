/**
 * Where a Proxmox VE host keeps its programs, its configuration and what its kernel tells. Every path
 * that this agent reads or runs comes from here, so that the same code works on a simulated host.
 */
export interface HostPaths {
  /** The container program. */
  readonly pctPath: string;
  /** The storage program. */
  readonly pvesmPath: string;
  /** The backup program. */
  readonly vzdumpPath: string;
  /** Prints the version of Proxmox VE. */
  readonly pveversionPath: string;
  /** Detaches a mount that a killed `pct` left behind. */
  readonly umountPath: string;
  /** Reads an archive to its end. */
  readonly zstdPath: string;
  /** Ends a container that has no configuration on this host any more. */
  readonly lxcStopPath: string;
  /** The cluster file system (pmxcfs). */
  readonly pveRoot: string;
  /** cgroup v2 hierarchy. */
  readonly cgroupRoot: string;
  /** procfs. */
  readonly procRoot: string;
  /** Network interfaces as sysfs shows them; `<name>/ifindex` tells a recreated one from its former self. */
  readonly netClassRoot: string;
  /** Task logs; `active` lists the running ones. */
  readonly taskLogRoot: string;
  /** Run-time directories of the containers; `<vmid>/rootfs` is the mount point. */
  readonly lxcRoot: string;
  /** Run-time files of Proxmox, e.g. `ct-<vmid>.stderr`. */
  readonly runRoot: string;
}

/** The locations on a real Proxmox VE 8 or 9 host. */
export const PROXMOX_PATHS: HostPaths = {
  pctPath: "/usr/sbin/pct",
  pvesmPath: "/usr/sbin/pvesm",
  vzdumpPath: "/usr/bin/vzdump",
  pveversionPath: "/usr/bin/pveversion",
  umountPath: "/usr/bin/umount",
  zstdPath: "/usr/bin/zstd",
  lxcStopPath: "/usr/bin/lxc-stop",
  pveRoot: "/etc/pve",
  cgroupRoot: "/sys/fs/cgroup",
  procRoot: "/proc",
  netClassRoot: "/sys/class/net",
  taskLogRoot: "/var/log/pve/tasks",
  lxcRoot: "/var/lib/lxc",
  runRoot: "/run/pve",
};
