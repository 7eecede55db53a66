import { z } from "@hono/zod-openapi";
import { uuid } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { findNodeId } from "../nodes/find-node.ts";
import { toTaskView } from "../tasks/task-view.ts";
import { adoptPod } from "./adopt-pod.ts";
import type { PodHints } from "./pod-hints.ts";
import { acceptedView, toPodView } from "./pod-view.ts";

/** Takes over containers that were on a host before. */
export function registerAdoptRoute(routes: RouteTable, hints: PodHints): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/admin/adopt",
    summary: "Make a container that nobody manages a tenant's pod, as it is",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    idempotent: true,
    request: {
      body: z.strictObject({
        node: z.string().min(1).max(255).openapi({ description: "Name or id of the host." }),
        vmid: z.number().int().min(100).max(999_999_999),
        tenantId: uuid,
        planCode: z
          .string()
          .min(1)
          .max(60)
          .optional()
          .openapi({ description: "Only where the container has the plan's size; absent: paid by use." }),
        name: z.string().min(1).max(100).optional(),
      }),
      example: { node: "pve1", vmid: 555, tenantId: "019a0000-0000-7000-8000-000000000001" },
    },
    responses: { 202: acceptedView },
    async handler({ body }, ctx) {
      const { pod, task } = await ctx.inSystem(async (tx) => {
        const { node, ...adoption } = body;
        const nodeId = await findNodeId(tx, node);
        return await adoptPod(tx, { actor: ctx.actor, requestId: ctx.requestId }, { ...adoption, nodeId });
      });
      ctx.afterCommit(() => hints.workQueued(task.id, pod.nodeId));
      return {
        status: 202,
        headers: { location: `/api/tasks/${task.id}` },
        body: { pod: toPodView(pod), task: toTaskView(task) },
      };
    },
  });
}
