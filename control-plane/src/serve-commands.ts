import { withPreparedDatabase } from "./admin-commands.ts";
import { startControlPlane } from "./compose.ts";
import { readConfig } from "./config.ts";
import { createLog } from "./platform/log.ts";

/** Runs the control plane until a signal ends it. */
export async function serve({ roles }: { readonly roles?: string }): Promise<void> {
  const config = readConfig({ ...process.env, ...(roles === undefined ? {} : { CLOUDPODS_ROLES: roles }) });
  const log = createLog({ level: config.logLevel });
  const starting = startControlPlane(config, log);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.once(signal, () => {
      log.info({ signal }, "stopping");
      // Half a start cannot be undone; a whole one can, the embedded server included.
      starting
        .then((controlPlane) => controlPlane.stop())
        .then(
          () => process.exit(0),
          (error: unknown) => {
            log.error({ err: error }, "not everything stopped in time");
            process.exit(1);
          },
        );
    });
  }
  await starting;
}

/** Brings the database's schema up to date and tells what that took. */
export async function migrate(): Promise<void> {
  const applied = await withPreparedDatabase(readConfig(process.env), async (database) => database.applied);
  console.log(applied.length === 0 ? "The schema is up to date." : `Applied: ${applied.join(", ")}`);
}
