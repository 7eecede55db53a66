import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { PodWorkbench } from "../../../test/support/pod-workbench.ts";
import { sql } from "../platform/sql.ts";
import { scalePod } from "./scale-pod.ts";

const bench = new PodWorkbench();
const resources = { cores: 1, memoryMb: 1_024, diskGb: 10 };

test("nobody orders or scales to what has no price in his currency, and pays nothing for it", async () => {
  const pod = await bench.activePod();
  await bench.db.system.execute(sql`UPDATE tenants SET currency = 'EUR' WHERE id = ${bench.tenantId}`);
  const scale = (planCode: string) => bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { planCode }));
  const refused = (planCode: string | null) => ({ code: "NOT_PRICED", details: { planCode, currency: "EUR" } });
  await expect(bench.order()).rejects.toMatchObject(refused("CLOUD_POD_STARTER"));
  await expect(bench.order({ resources })).rejects.toMatchObject(refused(null));
  await expect(scale("PREMIUM")).rejects.toMatchObject(refused("CLOUD_POD_PREMIUM"));
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
    VALUES (${newId()}, 'CLOUD_POD_PREMIUM', 'EUR', 5, tstzrange(now() - interval '1 minute', NULL))`);
  await scale("PREMIUM");
});
