import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";

interface Figures {
  readonly nodes: readonly {
    readonly name: string;
    readonly state: string;
    readonly pods: bigint;
    readonly memory: string;
    readonly spool: bigint | null;
    readonly lagSeconds: number | null;
  }[];
  readonly pods: string;
  readonly tasks: string;
  readonly samples: bigint;
}

/** Redraws one screen every second until stopped; on anything but a terminal it prints a line every 10 s. */
export function startLiveScreen(db: Database, heading: readonly string[]): { stop(): void } {
  const isTerminal = process.stdout.isTTY;
  const draw = async (): Promise<void> => {
    const figures = await readFigures(db);
    if (!isTerminal) {
      console.log(summary(figures));
      return;
    }
    process.stdout.write(`\x1b[H\x1b[2J${[...heading, "", ...lines(figures)].join("\n")}\n`);
  };
  // A second without figures while the database is busy is shown as the second before.
  const timer = setInterval(() => void draw().catch(() => {}), isTerminal ? 1_000 : 10_000);
  return { stop: () => clearInterval(timer) };
}

function summary(figures: Figures): string {
  const online = figures.nodes.filter((node) => node.state === "online").length;
  const lagSeconds = Math.max(0, ...figures.nodes.map((node) => node.lagSeconds ?? 0));
  return [
    `nodes ${online}/${figures.nodes.length} online`,
    `pods ${figures.pods}`,
    `tasks ${figures.tasks}`,
    `samples ${figures.samples} stored, ${batchesWaiting(figures)} batches on their way`,
    `lag ${lagSeconds.toFixed(0)} s`,
  ].join(" · ");
}

function batchesWaiting({ nodes }: Figures): bigint {
  return nodes.reduce((sum, node) => sum + (node.spool ?? 0n), 0n);
}

function lines(figures: Figures): string[] {
  return [
    "NODE            STATE      PODS  MEMORY PROMISED    SPOOL  LAG",
    ...figures.nodes.map((node) =>
      [
        node.name.padEnd(15),
        node.state.padEnd(10),
        String(node.pods).padStart(4),
        node.memory.padStart(18),
        String(node.spool ?? "-").padStart(8),
        node.lagSeconds === null ? "   -" : `${node.lagSeconds.toFixed(0)} s`.padStart(5),
      ].join(" "),
    ),
    "",
    `Pods     ${figures.pods}`,
    `Tasks    ${figures.tasks}`,
    `Samples  ${figures.samples} stored and acknowledged, ${batchesWaiting(figures)} batches on their way`,
    "",
    "Ctrl-C ends everything.",
  ];
}

async function readFigures(db: Database): Promise<Figures> {
  const nodes = await db.query<Figures["nodes"][number]>(sql`
    SELECT n.name, s.state, (SELECT count(*) FROM cloud_pods p WHERE p.node_id = n.id AND p.status <> 'deleted') AS pods,
      c.memory_allocated_mb || ' / ' || c.memory_allocatable_mb || ' MB' AS memory, s.spool_depth AS spool,
      extract(epoch FROM now() - s.spool_oldest_at)::float AS "lagSeconds"
    FROM nodes n JOIN node_status s ON s.node_id = n.id JOIN node_capacity c ON c.node_id = n.id WHERE n.removed_at IS NULL ORDER BY n.name`);
  const [row] = await db.query<{ pods: string | null; tasks: string | null; samples: bigint }>(sql`
    SELECT (SELECT string_agg(count || ' ' || status, ', ') FROM (SELECT status, count(*) FROM cloud_pods GROUP BY status ORDER BY status) x) AS pods,
      (SELECT string_agg(count || ' ' || state, ', ') FROM (SELECT state, count(*) FROM cloud_pod_provisioning_tasks GROUP BY state ORDER BY state) x) AS tasks,
      (SELECT count(*) FROM cloud_pod_usage_samples) AS samples`);
  return { nodes, pods: row?.pods ?? "none yet", tasks: row?.tasks ?? "none yet", samples: row?.samples ?? 0n };
}
