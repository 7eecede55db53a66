import { Server, ServerCredentials, status } from "@grpc/grpc-js";
import { agentGatewayService } from "@cloudpods/proto/agent-gateway-service";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { listenTls, type ServerTls } from "../platform/tls-listener.ts";
import { createAdmission } from "./admission.ts";
import { gatewayMetrics } from "./gateway-metrics.ts";
import type { LiveSession } from "./live-session.ts";
import type { SessionSettings } from "./open-session.ts";
import { readRequest } from "./read-request.ts";
import { createRounds } from "./run-rounds.ts";
import { serveSession, type AgentCall, type SessionDeps } from "./serve-session.ts";
import { SessionEnd } from "./session-end.ts";
import type { ReportHooks } from "./store-report.ts";

/** What the gateway needs. */
export interface AgentGatewayOptions {
  /** The owner's login. */
  readonly db: Database;
  readonly hints: Hints;
  readonly log: Logger;
  readonly registry: Registry;
  readonly tls: ServerTls;
  /** Address to listen on. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly settings: SessionSettings;
  readonly hooks: ReportHooks;
  /** How many sessions may begin at once, default 10: each holds a connection of the database, which others need too. */
  readonly openingMax?: number;
  /** How many agents may wait for that, default 200. */
  readonly waitingMax?: number;
  /** Between two looks for what no hint announced, default 5 s. */
  readonly pollMs?: number;
}

/** A running gateway. */
export interface AgentGateway {
  readonly port: number;
  /** Agents connected here. */
  sessionCount(): number;
  /** Uses a new certificate or new authorities for connections made from now on. */
  updateTls(tls: ServerTls): void;
  /** Sends all agents to other replicas and stops listening, within 5 s. */
  stop(): Promise<void>;
}

/** A dead connection is noticed after the sum of both. */
const keepaliveMs = 5_000;
const keepaliveTimeoutMs = 4_000;
const stopDeadlineMs = 5_000;
/** Shorter than agents wait for their Welcome. */
const admissionWaitMs = 15_000;
const messageBytesMax = 8 * 1024 * 1024;

const service = {
  connect: { ...agentGatewayService.connect, requestDeserialize: readRequest },
};

/** Starts the server that agents dial. Any number of replicas may run one over the same database. */
export async function startAgentGateway(options: AgentGatewayOptions): Promise<AgentGateway> {
  const sessions = new Map<string, LiveSession>();
  const metrics = gatewayMetrics(options.registry, () => sessions.size);
  const { db, hints, log, settings } = options;
  const onDropped = (reason: string, count: number): void => metrics.reportsDropped.inc({ reason }, count);
  const { brokerUrl } = settings;
  const rounds = createRounds({ db, hints, log, metrics, sessions, brokerUrl, pollMs: options.pollMs ?? 5_000 });
  const admission = createAdmission(
    { openingMax: options.openingMax ?? 10, waitingMax: options.waitingMax ?? 200, waitMs: admissionWaitMs },
    Math.random,
  );
  const deps: SessionDeps = {
    db,
    hints,
    log,
    metrics,
    settings,
    hooks: { ...options.hooks, onDropped },
    sessions,
    admission,
    wake: rounds.wake,
    silenceMs: keepaliveMs + keepaliveTimeoutMs,
  };
  const server = new Server({
    "grpc.keepalive_time_ms": keepaliveMs,
    "grpc.keepalive_timeout_ms": keepaliveTimeoutMs,
    "grpc.max_receive_message_length": messageBytesMax,
    "grpc.max_send_message_length": messageBytesMax,
  });
  server.addService(service, { connect: (call: AgentCall) => serveSession(deps, call) });
  // TLS is ours, so that its handshakes have their turns; gRPC is given what came of them.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = await listenTls({
    tls: options.tls,
    host: options.host,
    port: options.port,
    alpnProtocol: "h2",
    onConnection: (socket) => injector.injectConnection(socket),
    onRefused: (reason) => metrics.sessionsRefused.inc({ reason }),
    mayBegin: () => !admission.isCrowded(),
  });
  rounds.start();
  return {
    port: listener.port,
    sessionCount: () => sessions.size,
    updateTls: listener.updateTls,
    async stop() {
      await rounds.stop();
      for (const session of sessions.values()) {
        session.end(new SessionEnd(status.UNAVAILABLE, "GATEWAY_STOPPING", "this gateway stops; dial again"));
      }
      listener.close();
      await new Promise<void>((resolve) => {
        const force = setTimeout(() => server.forceShutdown(), stopDeadlineMs);
        server.tryShutdown(() => {
          clearTimeout(force);
          resolve();
        });
      });
    },
  };
}
