import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Fills a folder with the few files of a fresh Debian that a guest command may look at. */
export function unpackSystem(rootfs: string): void {
  for (const folder of ["etc", "root", "tmp", "usr/bin", "var/lib", "run", "home"]) {
    mkdirSync(join(rootfs, folder), { recursive: true });
  }
  chmodSync(join(rootfs, "root"), 0o700);
  chmodSync(join(rootfs, "tmp"), 0o777);
  writeFileSync(
    join(rootfs, "etc/os-release"),
    'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"\n',
  );
  writeFileSync(join(rootfs, "etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
}

/** Writes what Proxmox sets inside a container before each start. */
export function configureGuest(rootfs: string, hostname: string): void {
  mkdirSync(join(rootfs, "etc"), { recursive: true });
  writeFileSync(join(rootfs, "etc/hostname"), `${hostname}\n`);
  writeFileSync(
    join(rootfs, "etc/hosts"),
    `127.0.0.1 localhost\n# --- BEGIN PVE ---\n127.0.1.1 ${hostname}\n# --- END PVE ---\n`,
  );
}
