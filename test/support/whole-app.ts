import { registerRoutes } from "../../control-plane/src/compose-routes.ts";
import { ensureCertificateAuthority } from "../../control-plane/src/nodes/ensure-certificate-authority.ts";
import { deadLetterMetrics } from "../../control-plane/src/ops/dead-letter-metrics.ts";
import { openHints } from "../../control-plane/src/platform/hints.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import { createMetrics } from "../../control-plane/src/platform/metrics.ts";
import { masterKey } from "../../control-plane/src/platform/sealing.ts";
import { podSagas } from "../../control-plane/src/pods/pod-sagas.ts";
import { openStorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import type { TestDatabase } from "./postgres.ts";
import { buildTestApp, type TestApp } from "./test-app.ts";

/** An app with every route of the control plane. */
export interface WholeTestApp extends TestApp {
  close(): Promise<void>;
}

/** Builds the app with the routes that the composition registers, over parts that need no host. */
export async function buildWholeTestApp(db: TestDatabase): Promise<WholeTestApp> {
  const log = createLog({ level: "silent" });
  const hints = openHints({ url: db.systemUrl, log });
  const authorities = await ensureCertificateAuthority(db.system, masterKey(Buffer.alloc(32, 7)));
  const fleet = createFleetView();
  const storePool = openStorePool(db.systemUrl, 2);
  const metrics = createMetrics();
  const built = buildTestApp(db, {
    metrics,
    register: (routes) =>
      registerRoutes(routes, {
        hints,
        fleet,
        sagas: podSagas(fleet),
        issuing: {
          authorities,
          addresses: async () => ({ gatewayAddress: "localhost:7443", brokerUrl: "mqtts://localhost:8883" }),
        },
        defaultRegion: "local",
        masterKey: masterKey(Buffer.alloc(32, 7)),
        webhookRules: { allowPrivate: false },
        sampleIntervalMs: 60_000,
        secureCookies: true,
        storePool,
        deadLetterMetrics: deadLetterMetrics(metrics, db.system, log),
      }),
  });
  return {
    ...built,
    async close() {
      await Promise.all([hints.close(), storePool.close()]);
    },
  };
}
