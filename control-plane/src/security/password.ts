import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { DomainError } from "@cloudpods/shared/errors";

const argon2Async = promisify(argon2);

// OWASP's "Password Storage Cheat Sheet": argon2id with 19 MiB, two passes, one lane.
const memoryKib = 19_456;
const passes = 2;
const lanes = 1;
const saltBytes = 16;
const hashBytes = 32;

// A hash costs about 30 ms of one core and 19 MiB: so many at a time, and so many who wait.
const runningMax = 2;
const waitingMax = 64;

/** Fewest and most characters of a password; the upper bound keeps hashing cheap. */
export const passwordLength = { min: 12, max: 256 } as const;

let running = 0;
const waiting: (() => void)[] = [];

/**
 * The argon2id hash of a password as a PHC string (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
 * @throws DomainError `unavailable` SIGN_IN_BUSY when too many are waiting for theirs.
 */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(saltBytes);
  const hash = await derive(password, { memoryKib, passes, lanes, salt, hashBytes });
  return `$argon2id$v=19$m=${memoryKib},t=${passes},p=${lanes}$${base64(salt)}$${base64(hash)}`;
}

/**
 * Whether the password belongs to the PHC string. Without one (an unknown user) it takes the same time and
 * is false, so that the time does not tell who has an account.
 *
 * @throws DomainError `unavailable` SIGN_IN_BUSY; Error when the string is not an argon2id PHC string.
 */
export async function verifyPassword(password: string, phc: string | undefined): Promise<boolean> {
  const { hash, ...parameters } = phc === undefined ? nobody : parsePhc(phc);
  const derived = await derive(password, { ...parameters, hashBytes: hash.length });
  return timingSafeEqual(derived, hash) && phc !== undefined;
}

interface Parameters {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
  readonly salt: Buffer;
}

const nobody: Parameters & { readonly hash: Buffer } = {
  memoryKib,
  passes,
  lanes,
  salt: Buffer.alloc(saltBytes),
  hash: Buffer.alloc(hashBytes),
};

function parsePhc(phc: string): Parameters & { readonly hash: Buffer } {
  const match = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/.exec(phc);
  if (match === null) throw new Error("a stored password hash is not an argon2id PHC string");
  const [, memory, time, parallel, salt = "", hash = ""] = match;
  return {
    memoryKib: Number(memory),
    passes: Number(time),
    lanes: Number(parallel),
    salt: Buffer.from(salt, "base64"),
    hash: Buffer.from(hash, "base64"),
  };
}

async function derive(password: string, parameters: Parameters & { readonly hashBytes: number }): Promise<Buffer> {
  await enter();
  try {
    return await argon2Async("argon2id", {
      message: password.normalize("NFKC"),
      nonce: parameters.salt,
      parallelism: parameters.lanes,
      memory: parameters.memoryKib,
      passes: parameters.passes,
      tagLength: parameters.hashBytes,
    });
  } finally {
    leave();
  }
}

async function enter(): Promise<void> {
  if (running < runningMax) {
    running++;
    return;
  }
  if (waiting.length >= waitingMax) {
    throw new DomainError("unavailable", "SIGN_IN_BUSY", "Too many people are signing in at this moment.", {
      retryAfterSeconds: 1,
    });
  }
  await new Promise<void>((resolve) => waiting.push(resolve));
}

/** Hands the place on to who has waited longest, or frees it. */
function leave(): void {
  const next = waiting.shift();
  if (next === undefined) running--;
  else next();
}

/** PHC strings have base64 without padding. */
function base64(bytes: Buffer): string {
  return bytes.toString("base64").replaceAll("=", "");
}
