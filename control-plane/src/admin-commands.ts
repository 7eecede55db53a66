import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readConfig, type Config } from "./config.ts";
import { prepareDatabaseBeside, readMasterKey, type PreparedDatabase } from "./data-directory.ts";
import { declareRestored } from "./nodes/declare-restored.ts";
import { ensureCertificateAuthority } from "./nodes/ensure-certificate-authority.ts";
import { externalBrokerFiles, revocationList } from "./nodes/external-broker.ts";
import { describeRotation } from "./nodes/describe-rotation.ts";
import { followRotation } from "./nodes/follow-rotation.ts";
import { readRotation, rotateAuthority } from "./nodes/rotate-certificate-authority.ts";
import { openDatabase, type Database } from "./platform/database.ts";
import { commandLine } from "./tenancy/author.ts";
import { createUser } from "./tenancy/create-user.ts";
import { setPassword } from "./tenancy/set-password.ts";

/** Runs `work` over the configured database; an embedded one that does not run is started for it. */
export async function withDatabase<T>(config: Config, work: (system: Database) => Promise<T>): Promise<T> {
  return await withPreparedDatabase(config, async (database) => {
    const system = openDatabase({ url: database.systemUrl, applicationName: "cloudpods admin", connectionsMax: 2 });
    try {
      return await work(system);
    } finally {
      await system.close();
    }
  });
}

/** As `withDatabase`, for work that wants to know how the database came up. A signal ends the server too. */
export async function withPreparedDatabase<T>(
  config: Config,
  work: (database: PreparedDatabase) => Promise<T>,
): Promise<T> {
  const preparing = prepareDatabaseBeside(config);
  const end = (): void => {
    // Half a start cannot be undone; a whole one can.
    void preparing.then((database) => database.stop()).finally(() => process.exit(1));
  };
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  for (const signal of signals) process.once(signal, end);
  try {
    const database = await preparing;
    try {
      return await work(database);
    } finally {
      await database.stop();
    }
  } finally {
    for (const signal of signals) process.off(signal, end);
  }
}

/** Makes a user and tells its id. */
export async function makeUser(
  user: Pick<Parameters<typeof createUser>[1], "email" | "password" | "platformRole" | "emailVerified">,
): Promise<void> {
  const { id } = await withDatabase(readConfig(process.env), (system) =>
    system.transaction((tx) => createUser(tx, user)),
  );
  console.log(`Made ${user.email} (${user.platformRole}), id ${id}.`);
}

/** Gives a user another password and tells how many of his sessions it ended. */
export async function changeUsersPassword(wish: { readonly email: string; readonly password: string }): Promise<void> {
  const endedSessions = await withDatabase(readConfig(process.env), (system) =>
    system.transaction((tx) => setPassword(tx, wish, commandLine)),
  );
  console.log(`${wish.email} has the new password. Sessions ended: ${endedSessions}.`);
}

/** Writes what an external broker needs to know us and our hosts. */
export async function writeBrokerFiles({ name, out }: { name: string[]; out: string }): Promise<void> {
  const config = readConfig(process.env);
  const files = await withDatabase(config, async (system) => {
    const authorities = await ensureCertificateAuthority(system, await readMasterKey(config));
    return await externalBrokerFiles(system, authorities, name, new Date());
  });
  for (const [file, content] of Object.entries(files)) await writeFile(join(out, file), content, { mode: 0o600 });
  console.log(`Wrote ${Object.keys(files).join(", ")} to ${out}.`);
}

/** Prints the list of revoked hosts. */
export async function printRevocations(): Promise<void> {
  const config = readConfig(process.env);
  const list = await withDatabase(
    config,
    async (system) =>
      await revocationList(system, await ensureCertificateAuthority(system, await readMasterKey(config)), new Date()),
  );
  console.log(list);
}

/**
 * Takes the next step of a rotation of the certificate authority and tells what the one after it waits for, or takes one
 * after the other.
 * @returns false when it was not at its end by `waitTimeout`
 */
export async function rotateCa(wish: {
  readonly force: boolean;
  readonly brokerIsUpToDate: boolean;
  readonly status: boolean;
  readonly wait?: true;
  /** Milliseconds. */
  readonly waitTimeout: number;
}): Promise<boolean> {
  const config = readConfig(process.env);
  const externalBroker = config.mqttUrl === undefined ? undefined : { isUpToDate: wish.brokerIsUpToDate };
  return await withDatabase(config, async (system) => {
    if (wish.wait === true) {
      const onLine = (line: string): void => console.log(line);
      const options = { externalBroker, deadlineMs: wish.waitTimeout, onLine };
      return await followRotation(system, await readMasterKey(config), options);
    }
    const step = wish.status
      ? ({ ...(await readRotation(system)), done: "nothing", told: 0 } as const)
      : await rotateAuthority(system, await readMasterKey(config), { begins: true, force: wish.force, externalBroker });
    console.log(describeRotation(step).join("\n"));
    return true;
  });
}

/** Says that the database was restored, so that hosts and control plane find together again. */
export async function restored({ reason }: { reason: string }): Promise<void> {
  const epoch = await withDatabase(readConfig(process.env), (system) =>
    system.transaction((tx) => declareRestored(tx, reason)),
  );
  console.log(`The fleet's epoch is ${epoch}. Orders wait until every host has reported.`);
}
