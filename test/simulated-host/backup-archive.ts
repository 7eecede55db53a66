import { chmodSync, lstatSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { CommandFailure } from "./failure.ts";
import { namesIn } from "./files.ts";

/** What a backup holds: the configuration, the firewall rules and the files of the root. */
export interface BackupContent {
  vmid: number;
  /** Text of the configuration at the time of the backup. */
  config: string;
  firewall: string | null;
  sizeBytes: number;
  usedBytes: number;
  files: BackupFile[];
}

interface BackupFile {
  path: string;
  mode: number;
  /** Base64 of a file's bytes, the target of a link, or null for a folder. */
  content: string | null;
  isLink: boolean;
}

/** First bytes of the unpacked archive, so that a damaged or foreign file is told apart. */
const MAGIC = "simulated-vzdump-1\n";

/** Packs a backup in the form that the file's name asks for: `.zst`, `.gz` or plain. */
export function packBackup(name: string, content: BackupContent): Uint8Array {
  const plain = Buffer.from(MAGIC + JSON.stringify(content), "utf8");
  // As the zstd program writes it: with a checksum of the content.
  if (name.endsWith(".zst")) return zstdCompressSync(plain, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  return name.endsWith(".gz") ? gzipSync(plain) : plain;
}

/** Unpacks a backup. @throws CommandFailure when it is damaged, as tar says it */
export function unpackBackup(bytes: Uint8Array): BackupContent {
  let text: string;
  try {
    text = decompress(bytes).toString("utf8");
  } catch {
    throw new CommandFailure("command 'tar xpf - --zstd --totals' failed: exit code 2");
  }
  if (!text.startsWith(MAGIC)) throw new CommandFailure("archive does not contain any configuration");
  // `packBackup` is the only writer of this form, and the magic and the checksum say that it is whole.
  return JSON.parse(text.slice(MAGIC.length)) as BackupContent;
}

function decompress(bytes: Uint8Array): Buffer {
  const [first, second] = bytes;
  if (first === 0x28 && second === 0xb5) return zstdDecompressSync(bytes);
  if (first === 0x1f && second === 0x8b) return gunzipSync(bytes);
  return Buffer.from(bytes);
}

/** All files below a root, in an order that makes folders first. */
export function collectFiles(root: string, below = ""): BackupFile[] {
  return namesIn(join(root, below)).flatMap((name) => {
    const path = join(below, name);
    const full = join(root, path);
    const stat = lstatSync(full);
    const mode = stat.mode & 0o7777;
    if (stat.isSymbolicLink()) return { path, mode, content: readlinkSync(full), isLink: true };
    if (stat.isDirectory()) {
      return [{ path, mode, content: null, isLink: false }, ...collectFiles(root, path)];
    }
    const content = readFileSync(full).toString("base64");
    return stat.isFile() ? { path, mode, content, isLink: false } : [];
  });
}

/** Writes files of a backup below a root. */
export function spreadFiles(root: string, files: BackupFile[]): void {
  for (const { path, mode, content, isLink } of files) {
    const full = join(root, path);
    mkdirSync(content === null ? full : dirname(full), { recursive: true });
    if (isLink) symlinkSync(content ?? "", full);
    else if (content !== null) writeFileSync(full, Buffer.from(content, "base64"));
    if (!isLink) chmodSync(full, mode);
  }
}
