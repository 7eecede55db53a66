import { status, type ServerDuplexStream } from "@grpc/grpc-js";
import {
  QueryAnswer,
  type CommandResult,
  type ConnectRequest,
  type ConnectResponse,
  type Hello,
  type Welcome,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { isUuid } from "@cloudpods/shared/ids";
import type { Logger } from "pino";
import { recordInventory } from "../nodes/record-inventory.ts";
import { SessionSuperseded } from "../nodes/session-fence.ts";
import { sqlState, type Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { sql } from "../platform/sql.ts";
import type { Admission } from "./admission.ts";
import type { GatewayMetrics } from "./gateway-metrics.ts";
import { createInbox } from "./inbox.ts";
import type { LiveSession } from "./live-session.ts";
import { closeSession, openSession, type SessionSettings } from "./open-session.ts";
import { peerIdentity } from "./peer-identity.ts";
import type { ReadRequest } from "./read-request.ts";
import { SessionEnd, protocolError, statusOf, superseded } from "./session-end.ts";
import { storeAccepted, storeProgress, storeResult, type ReportHooks } from "./store-report.ts";

/** What every session uses. */
export interface SessionDeps {
  readonly db: Database;
  readonly hints: Hints;
  readonly log: Logger;
  readonly metrics: GatewayMetrics;
  readonly settings: SessionSettings;
  readonly hooks: ReportHooks;
  readonly admission: Admission;
  /** By node; at most one session each. */
  readonly sessions: Map<string, LiveSession>;
  /** Looks for commands of a node soon. */
  readonly wake: (nodeId: string) => void;
  /** How long a broken connection may go unnoticed. */
  readonly silenceMs: number;
}

/** One call of an agent. */
export type AgentCall = ServerDuplexStream<ReadRequest, ConnectResponse>;

type AgentMessage = NonNullable<ConnectRequest["message"]>;

const helloDeadlineMs = 10_000;
/** Messages that wait in a stream whose reader is slow; beyond that the reader is presumed dead. */
const unreadMax = 1_000;
const supportedProtocol = 1;

/** Serves one call from its Hello to its end. Whatever happens in it ends this call only. */
export function serveSession(deps: SessionDeps, call: AgentCall): void {
  let session: LiveSession | undefined;
  let isOver = false;
  const deadline = setTimeout(() => end(protocolError("no Hello came in time")), helloDeadlineMs);

  const cleanUp = (reason: string, silentMs: number): void => {
    isOver = true;
    clearTimeout(deadline);
    inbox.close();
    if (session === undefined) {
      deps.metrics.sessionsRefused.inc({ reason });
      return;
    }
    deps.metrics.sessionsEnded.inc({ reason });
    if (deps.sessions.get(session.nodeId) === session) deps.sessions.delete(session.nodeId);
    closeSession(deps.db, session, silentMs).catch((error: unknown) =>
      deps.log.debug({ err: error }, "the end of a session was not noted"),
    );
  };
  const end = (reason: SessionEnd): void => {
    if (isOver) return;
    cleanUp(reason.reason, 0);
    deps.log.info({ nodeId: session?.nodeId, reason: reason.message }, "session ended");
    call.emit("error", statusOf(reason));
  };
  const fail = (error: unknown): void => {
    if (isOver) return;
    const reason = endOf(error);
    if (reason.code === status.INVALID_ARGUMENT) deps.metrics.malformedMessages.inc();
    if (error !== reason && !(error instanceof SessionSuperseded))
      deps.log.error({ err: error, nodeId: session?.nodeId }, "a session failed");
    end(reason);
  };
  const send = (message: NonNullable<ConnectResponse["message"]>): void => {
    if (isOver) return;
    call.write({ message });
    if (call.writableLength > unreadMax)
      end(new SessionEnd(status.RESOURCE_EXHAUSTED, "AGENT_TOO_SLOW", "the agent does not read its messages"));
  };
  const open = async (hello: Hello): Promise<void> => {
    const live = await openLiveSession(deps, call, hello, { send, end });
    session = live;
    // Gone while it was being opened: note that too.
    if (isOver) return await closeSession(deps.db, live, 0);
    deps.sessions.get(live.nodeId)?.end(superseded());
    deps.sessions.set(live.nodeId, live);
    send({ $case: "welcome", value: live.welcome });
    deps.hints.send("node_sessions", live.nodeId);
    deps.wake(live.nodeId);
    if (hello.inventory !== undefined) await recordInventory(deps.db, live, hello.inventory, deps.hooks);
  };
  const begin = async (hello: Hello): Promise<void> => {
    clearTimeout(deadline);
    const leave = await deps.admission.enter();
    try {
      // It may have given up while it waited for its turn.
      if (!isOver) await open(hello);
    } finally {
      leave();
    }
  };
  const inbox = createInbox<AgentMessage>(
    call,
    async (message) => {
      if (message.$case === "hello") return await begin(message.value);
      if (session !== undefined) await handleMessage(deps, session, message);
    },
    fail,
  );
  call.on("data", createReader({ fail, send, put: inbox.put }));
  // An agent that stops and a connection that was found dead look alike: both end the call.
  const lose = (): void => {
    if (!isOver) cleanUp("CONNECTION_LOST", deps.silenceMs);
  };
  call.on("end", () => {
    lose();
    call.end();
  });
  call.on("cancelled", lose);
  // Errors of the transport come here as well; "cancelled" follows.
  call.on("error", () => {});
}

/** Sorts what comes in: Hello first and once, questions for the time are answered at once, the rest is queued. */
function createReader(doors: {
  readonly fail: (error: unknown) => void;
  readonly send: LiveSession["send"];
  readonly put: (message: AgentMessage) => void;
}): (request: ReadRequest) => void {
  let helloSeen = false;
  return (request) => {
    if (request === "malformed") return doors.fail(protocolError("a message is no ConnectRequest"));
    const { message } = request;
    // An operation of a newer agent: what we do not know we need not answer.
    if (message === undefined) return;
    if ((message.$case === "hello") === helloSeen) {
      return doors.fail(protocolError("Hello must be the first message, once"));
    }
    helloSeen = true;
    // Not queued: the agent learns our clock from how long the answer takes.
    if (message.$case === "clockRequest") {
      const { agentMonotonicUs } = message.value;
      return doors.send({ $case: "clockReply", value: { agentMonotonicUs, serverTimeMs: BigInt(Date.now()) } });
    }
    doors.put(message);
  };
}

/** Opens the session of an agent in the database. @throws SessionEnd */
async function openLiveSession(
  deps: SessionDeps,
  call: AgentCall,
  hello: Hello,
  stream: Pick<LiveSession, "send" | "end">,
): Promise<LiveSession & { readonly welcome: Welcome }> {
  const peer = peerIdentity(call);
  if (hello.protocolVersion !== supportedProtocol) {
    throw new SessionEnd(
      status.FAILED_PRECONDITION,
      "PROTOCOL_VERSION",
      `protocol ${hello.protocolVersion} is not spoken here`,
    );
  }
  const { session, welcome } = await openSession(deps.db, deps.settings, peer, hello, deps.sessions.has(peer.nodeId));
  deps.log.info(
    { nodeId: peer.nodeId, epoch: String(session.epoch), agentVersion: hello.agentVersion },
    "session opened",
  );
  return {
    ...session,
    ...stream,
    serial: peer.serial,
    inFlight: new Set(hello.runningCommandIds.filter(isUuid)),
    welcome,
  };
}

async function handleMessage(deps: SessionDeps, session: LiveSession, message: AgentMessage): Promise<void> {
  switch (message.$case) {
    case "accepted":
      requireId(message.value.commandId);
      return await storeAccepted(deps.db, session, message.value);
    case "progress": {
      requireId(message.value.commandId);
      const taskId = await storeProgress(deps.db, session, message.value, deps.hooks);
      if (taskId !== undefined) deps.hints.send("task_events", taskId);
      return;
    }
    case "result":
      return await handleResult(deps, session, message.value);
    case "inventory":
      return void (await recordInventory(deps.db, session, message.value, deps.hooks));
    case "queryAnswer":
      return await storeAnswer(deps, session, message.value);
    case "hello":
    case "clockRequest":
      return;
  }
}

async function handleResult(deps: SessionDeps, session: LiveSession, result: CommandResult): Promise<void> {
  requireId(result.commandId);
  const fate = await storeResult(deps.db, session, result, deps.hooks);
  deps.metrics.results.inc({ fate });
  session.inFlight.delete(result.commandId);
  // Confirmed whatever its fate: the agent repeats a result until then, and repeating would not change it.
  session.send({ $case: "resultStored", value: { commandId: result.commandId } });
  if (fate === "stored") deps.hints.send("commands_finished", result.commandId);
  // There may be room in the window again.
  deps.wake(session.nodeId);
}

async function storeAnswer(deps: SessionDeps, session: LiveSession, answer: QueryAnswer): Promise<void> {
  requireId(answer.queryId);
  const stored = await deps.db.execute(sql`
    UPDATE node_queries SET answer = ${JSON.stringify(QueryAnswer.toJSON(answer))}
    WHERE id = ${answer.queryId} AND node_id = ${session.nodeId} AND answer IS NULL
      AND EXISTS (SELECT FROM node_status s WHERE s.node_id = ${session.nodeId} AND s.session_epoch = ${session.epoch})`);
  if (stored > 0) deps.hints.send("query_answers", answer.queryId);
}

function requireId(id: string): void {
  if (!isUuid(id)) throw protocolError("an id is no UUID");
}

function endOf(error: unknown): SessionEnd {
  if (error instanceof SessionEnd) return error;
  if (error instanceof SessionSuperseded) return superseded();
  const state = sqlState(error);
  // Class 22: a value that no column takes (https://www.postgresql.org/docs/current/errcodes-appendix.html).
  if (state?.startsWith("22") === true || state?.startsWith("23") === true)
    return protocolError("a value is out of range");
  if (state === undefined)
    return new SessionEnd(status.UNAVAILABLE, "DATABASE_UNAVAILABLE", "the message could not be stored");
  return new SessionEnd(status.INTERNAL, "INTERNAL_ERROR", "the message could not be stored");
}
