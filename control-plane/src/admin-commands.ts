import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import type { Config } from "./config.ts";
import { prepareDatabaseBeside, readMasterKey, type PreparedDatabase } from "./data-directory.ts";
import { declareRestored } from "./nodes/declare-restored.ts";
import { ensureCertificateAuthority } from "./nodes/ensure-certificate-authority.ts";
import { externalBrokerFiles, revocationList } from "./nodes/external-broker.ts";
import { openDatabase, type Database } from "./platform/database.ts";

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

/** Adds what concerns the fleet as a whole: an external broker, revocations, a restored database. */
export function addFleetCommands(
  admin: Command,
  guarded: (work: (config: Config) => Promise<void>) => Promise<void>,
): void {
  admin
    .command("broker-files")
    .description("write ca.pem, cert.pem, key.pem and crl.pem for an external broker")
    .requiredOption("--name <host...>", "names and addresses under which the broker is reached")
    .requiredOption("--out <directory>")
    .action((options: { name: string[]; out: string }) =>
      guarded(async (config) => {
        const files = await withDatabase(config, async (system) => {
          const authorities = await ensureCertificateAuthority(system, await readMasterKey(config));
          return await externalBrokerFiles(system, authorities, options.name, new Date());
        });
        for (const [name, content] of Object.entries(files))
          await writeFile(join(options.out, name), content, { mode: 0o600 });
        console.log(`Wrote ${Object.keys(files).join(", ")} to ${options.out}.`);
      }),
    );
  admin
    .command("crl")
    .description("print the list of revoked host certificates, for an external broker; valid for a week")
    .action(() =>
      guarded(async (config) => {
        const list = await withDatabase(
          config,
          async (system) =>
            await revocationList(
              system,
              await ensureCertificateAuthority(system, await readMasterKey(config)),
              new Date(),
            ),
        );
        console.log(list);
      }),
    );
  admin
    .command("declare-restored")
    .description("say that the database was restored from a backup or lost commits in a failover")
    .requiredOption("--reason <text>")
    .action((options: { reason: string }) =>
      guarded(async (config) => {
        const epoch = await withDatabase(config, (system) =>
          system.transaction((tx) => declareRestored(tx, options.reason)),
        );
        console.log(`The fleet's epoch is ${epoch}. Orders wait until every host has reported.`);
      }),
    );
}
