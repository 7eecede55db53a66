/**
 * The closed set of reasons for which a Proxmox program fails. Exit codes carry no meaning there
 * (Perl leaks whatever errno was set), so the text on stderr decides.
 */
export type PctErrorCode = (typeof RULES)[number]["code"] | "UNKNOWN_ERROR";

/** A failure of `pct`, `pvesm` or `vzdump`. */
export interface PctError {
  readonly code: PctErrorCode;
  /** The line that decided, at most 400 characters. */
  readonly message: string;
  /** Whether the same invocation can succeed later without anybody changing something. */
  readonly retryable: boolean;
}

/**
 * Texts of PVE 8 and 9, most specific first: the first rule with a matching line wins, because a
 * general line ("unable to create CT 101 - …") often quotes the specific one.
 */
const RULES = [
  {
    code: "PMXCFS_DOWN",
    retryable: true,
    text: /ipcc_send_rec\[\d+\] failed|Unable to load access control list|Transport endpoint is not connected/u,
  },
  {
    code: "NO_QUORUM",
    retryable: true,
    text: /no quorum|\.conf(?:\.tmp\.\d+)?' - Permission denied/u,
  },
  {
    code: "STORAGE_LOCK_TIMEOUT",
    retryable: true,
    text: /cfs-lock '.*' error: got lock request timeout|-locked command timed out/u,
  },
  { code: "LOCK_TIMEOUT", retryable: true, text: /can't (?:lock file|acquire lock) '.*' - got timeout/u },
  { code: "LOCKED", retryable: true, text: /CT is locked \([a-z-]+\)/u },
  { code: "NOT_LOCKED", retryable: false, text: /no lock found trying to remove/u },
  { code: "ALREADY_EXISTS", retryable: false, text: /(?:CT|VM) \d+ already exists on node/u },
  { code: "ALREADY_RUNNING", retryable: false, text: /CT \d+ already running/u },
  {
    code: "STILL_RUNNING",
    retryable: true,
    text: /unable to destroy CT \d+ - container is running|can't overwrite running container|if the CT is running/u,
  },
  {
    code: "NOT_RUNNING",
    retryable: false,
    text: /(?:CT|VM) \d+ not running|container '\d+' not running|can only push files to a running CT/u,
  },
  {
    code: "LINKED_CLONE_UNSUPPORTED",
    retryable: false,
    text: /Linked clone feature for '.*' is not available|not allowed for linked clones/u,
  },
  { code: "LINKED_CLONE_NOT_MOVABLE", retryable: false, text: /can't migrate local volume '.*': clone of '/u },
  { code: "SNAPSHOT_NOT_MOVABLE", retryable: false, text: /can't migrate local volume '.*': non-migratable snapshot/u },
  { code: "CLONE_SOURCE_RUNNING", retryable: false, text: /Full clone of a running container/u },
  { code: "SHRINK_REFUSED", retryable: false, text: /unable to shrink disk size/u },
  { code: "SAME_SIZE", retryable: false, text: /disk is already at specified size/u },
  {
    code: "STORAGE_FULL",
    retryable: false,
    text: /No space left on device|not enough (?:free )?space|insufficient free space|free space in thin pool .* reached threshold|out of space|Disk quota exceeded/iu,
  },
  {
    code: "STORAGE_UNAVAILABLE",
    retryable: true,
    text: /storage '.*' is (?:disabled|not available|not online)/u,
  },
  {
    code: "STORAGE_UNSUITABLE",
    retryable: false,
    text: /does not support container directories|wrong content type/u,
  },
  {
    code: "STORAGE_MISSING",
    retryable: false,
    text: /storage '.*' does not exist|no such storage/u,
  },
  { code: "TEMPLATE_MISSING", retryable: false, text: /volume '.*' does not exist/u },
  {
    code: "IS_TEMPLATE",
    retryable: false,
    text: /can't start a CT if it's a template|a template to a template|snapshot if it's a template/u,
  },
  { code: "PROTECTED", retryable: false, text: /protection mode enabled|cannot remove protected volume/u },
  { code: "USED_IN_HA", retryable: false, text: /used in HA resources/u },
  { code: "STILL_CLONED", retryable: false, text: /still in use by linked clones?/u },
  { code: "BRIDGE_MISSING", retryable: false, text: /bridge '.*' does not exist/u },
  { code: "SHUTDOWN_TIMEOUT", retryable: true, text: /container did not stop/u },
  { code: "CONFIG_CHANGED", retryable: true, text: /detected modified configuration/u },
  { code: "HOTPLUG_FAILED", retryable: true, text: /unable to hotplug/u },
  { code: "SNAPSHOT_UNSUPPORTED", retryable: false, text: /snapshot feature is not available/u },
  { code: "SNAPSHOT_EXISTS", retryable: false, text: /snapshot name '.*' already used/u },
  { code: "SNAPSHOT_MISSING", retryable: false, text: /snapshot '.*' does not exist/u },
  { code: "NODE_MISSING", retryable: false, text: /no such cluster node/u },
  {
    code: "MIGRATION_FAILED",
    retryable: false,
    text: /migration (?:aborted|problems)|can't migrate/u,
  },
  { code: "BACKUP_FAILED", retryable: false, text: /Backup of VM \d+ failed|^job errors/u },
  { code: "START_FAILED", retryable: false, text: /startup for container '\d+' failed/u },
  { code: "CONFIG_MISSING", retryable: false, text: /Configuration file '.*' does not exist/u },
  {
    code: "INVALID_ARGUMENT",
    retryable: false,
    text: /Parameter verification failed|unable to parse option|not enough arguments|unknown command|invalid format|unable to (?:modify read-only|delete required) option|unknown option|no options specified/u,
  },
  { code: "INTERRUPTED", retryable: true, text: /received interrupt|unexpected status/u },
  { code: "OUTPUT_LOST", retryable: true, text: /broken pipe/iu },
] as const satisfies readonly { code: string; retryable: boolean; text: RegExp }[];

const MESSAGE_LIMIT = 400;

/**
 * Reads the reason out of what a failed program wrote. stderr decides; where it only quotes an exit
 * code ("command 'tar …' failed"), the reason was printed to stdout by the program behind it.
 */
export function classifyPctError(stderr: string, stdout = ""): PctError {
  const error = classifyText(stderr);
  if (error.code !== "UNKNOWN_ERROR") return error;
  const cause = classifyText(stdout);
  return cause.code === "UNKNOWN_ERROR" ? error : cause;
}

function classifyText(stderr: string): PctError {
  const lines = stderr
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  for (const rule of RULES) {
    const line = lines.find((candidate) => rule.text.test(candidate));
    if (line !== undefined) {
      return { code: rule.code, message: line.slice(0, MESSAGE_LIMIT), retryable: rule.retryable };
    }
  }
  const message = lines.at(-1) ?? "the program failed without saying why";
  return { code: "UNKNOWN_ERROR", message: message.slice(0, MESSAGE_LIMIT), retryable: false };
}

/**
 * Failures that programs report although they exit with 0: `resize`, `template`, `push` and `pull`
 * do not look at the status of their workers.
 */
export function hiddenFailure(output: string): string | undefined {
  const line = output
    .split("\n")
    .map((text) => text.trim())
    .find((text) =>
      /^command '.*' failed: exit code \d+|Failed to update the container's filesystem|^failed to /u.test(text),
    );
  return line?.slice(0, MESSAGE_LIMIT);
}
