import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { classifyPctError, hiddenFailure } from "./classify-pct-error.ts";

describe("errors of the Proxmox programs", () => {
  it.each([
    ["Configuration file 'nodes/pve1/lxc/999.conf' does not exist", "CONFIG_MISSING", false],
    ["CT 999 not running", "NOT_RUNNING", false],
    ["VM 999 not running", "NOT_RUNNING", false],
    ["container '103' not running!", "NOT_RUNNING", false],
    ["CT 100 already exists on node 'pve2'", "ALREADY_EXISTS", false],
    ["unable to create CT 100: VM 100 already exists on node 'pve2'", "ALREADY_EXISTS", false],
    ["CT is locked (snapshot-delete)", "LOCKED", true],
    ["no lock found trying to remove any lock", "NOT_LOCKED", false],
    [
      "trying to acquire lock...\ncan't lock file '/run/lock/lxc/pve-config-500.lock' - got timeout",
      "LOCK_TIMEOUT",
      true,
    ],
    [
      "unable to create CT 520 - cfs-lock 'storage-shared' error: got lock request timeout",
      "STORAGE_LOCK_TIMEOUT",
      true,
    ],
    ["cfs-lock 'storage-shared' error: no quorum!", "NO_QUORUM", true],
    ["cluster not ready - no quorum?", "NO_QUORUM", true],
    ["unable to open file '/etc/pve/nodes/pve1/lxc/302.conf.tmp.781' - Permission denied", "NO_QUORUM", true],
    [
      "ipcc_send_rec[1] failed: Connection refused\nUnable to load access control list: Connection refused",
      "PMXCFS_DOWN",
      true,
    ],
    ["CT 102 already running", "ALREADY_RUNNING", false],
    ["unable to shrink disk size", "SHRINK_REFUSED", false],
    ["disk is already at specified size", "SAME_SIZE", false],
    ["storage 'nostor' does not exist", "STORAGE_MISSING", false],
    ["storage 'x' is not available on node 'n'", "STORAGE_UNAVAILABLE", true],
    ["unable to create CT 101 - volume 'local:vztmpl/nope.tar.gz' does not exist", "TEMPLATE_MISSING", false],
    ["Linked clone feature for 'local:101/base-101-disk-0.raw' is not available", "LINKED_CLONE_UNSUPPORTED", false],
    ["can't remove CT 110 - protection mode enabled", "PROTECTED", false],
    ["unable to destroy CT 102 - container is running", "STILL_RUNNING", true],
    ["bridge 'vmbr7' does not exist", "BRIDGE_MISSING", false],
    ["container did not stop", "SHUTDOWN_TIMEOUT", true],
    ["detected modified configuration - file changed by other user? Try again.", "CONFIG_CHANGED", true],
    [
      "400 Parameter verification failed.\ncpulimit: unable to hotplug cpulimit: closing file '/sys/fs/cgroup/lxc/100/cpu.max' failed - Invalid argument\npct set <vmid> [OPTIONS]",
      "HOTPLUG_FAILED",
      true,
    ],
    ["Unknown option: bogus\n400 unable to parse option", "INVALID_ARGUMENT", false],
    ["400 not enough arguments", "INVALID_ARGUMENT", false],
    ["clone failed: received interrupt", "INTERRUPTED", true],
    ["broken pipe", "OUTPUT_LOST", true],
    ["snapshot feature is not available", "SNAPSHOT_UNSUPPORTED", false],
    ["unable to create image: No space left on device", "STORAGE_FULL", false],
    ["startup for container '1' failed", "START_FAILED", false],
    ["something that nobody has seen", "UNKNOWN_ERROR", false],
  ])("%s is %s", (stderr, code, retryable) => {
    expect(classifyPctError(`${stderr}\n`)).toMatchObject({ code, retryable });
  });

  it("the program behind the failure may have printed the reason to stdout", () => {
    const stdout = "tar: ./usr/lib: Cannot write: No space left on device\n";
    const stderr = "unable to create CT 1 - command 'tar xpf - --zstd' failed: exit code 2\n";
    expect(classifyPctError(stderr, stdout).code).toBe("STORAGE_FULL");
  });

  it("any text has a code and a bounded message of one line", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 2000 }), fc.string({ maxLength: 2000 }), (stderr, stdout) => {
        const { code, message } = classifyPctError(stderr, stdout);
        expect(code).toMatch(/^[A-Z_]+$/u);
        expect(message.length).toBeLessThanOrEqual(400);
        expect(message).not.toContain("\n");
      }),
    );
  });

  it("finds what a program hides behind exit code 0", () => {
    expect(hiddenFailure("x\ncommand '/usr/bin/qemu-img resize a' failed: exit code 1\n")).toContain("qemu-img");
    expect(hiddenFailure("Failed to update the container's filesystem: e2fsck\n")).toContain("filesystem");
    expect(hiddenFailure("Resizing the filesystem\n")).toBeUndefined();
  });
});
