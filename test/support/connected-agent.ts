import { randomUUID } from "node:crypto";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { agentGatewayService } from "@cloudpods/proto/agent-gateway-service";
import {
  CommandOutcome,
  CommandResult,
  Hello,
  type Command,
  type ConnectRequest,
  type ConnectResponse,
  type Inventory,
  type Welcome,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { EnrolledHost } from "./enrolled-host.ts";
import { until } from "./until.ts";

type Heard = NonNullable<ConnectResponse["message"]>;

/** An agent whose every word the test decides, over real gRPC and mutual TLS. */
export interface ConnectedAgent {
  /** Everything heard, in order. */
  readonly heard: readonly Heard[];
  /** Calls back with each message as it comes. */
  onHeard(callback: (message: Heard) => void): void;
  /** Set when the call is over. */
  fault(): ServiceError | "closed" | undefined;
  welcome(): Promise<Welcome>;
  /** Waits for the call to end with an error; gives the first word of its details. */
  refusal(): Promise<string>;
  say(message: NonNullable<ConnectRequest["message"]>): void;
  /** Bytes that need not be a message. */
  sayBytes(bytes: Buffer): void;
  commands(): Command[];
  /** Waits until a command with this id was heard. */
  command(commandId: string): Promise<Command>;
  /** Reports the success of a command, and waits for the confirmation. */
  succeed(command: Pick<Command, "commandId" | "generation">, changes?: Partial<CommandResult>): Promise<void>;
  close(): void;
}

/** How an agent connects. */
export interface ConnectOptions {
  readonly hello?: Partial<Hello>;
  /** Says nothing by itself. */
  readonly silent?: boolean;
}

/** An inventory of a host with one storage and the template 9000. */
export function smallInventory(changes: Partial<Inventory> = {}): Inventory {
  return {
    known: true,
    observedAtMs: BigInt(Date.now()),
    containers: [],
    storages: [
      {
        storage: "local-lvm",
        type: "lvmthin",
        shared: false,
        totalGb: 500,
        usedGb: 10,
        content: ["rootdir"],
        available: true,
        backend: "",
      },
    ],
    templateVolumeIds: [],
    quorate: true,
    foreignVmids: [],
    sessionEpoch: 0n,
    ...changes,
  };
}

/** Dials the gateway as a host and, unless silent, says Hello. */
export function connectAgent(host: EnrolledHost, port: number, options: ConnectOptions = {}): ConnectedAgent {
  const client = new Client(
    `127.0.0.1:${port}`,
    credentials.createSsl(Buffer.from(host.caPem), Buffer.from(host.keyPem), Buffer.from(host.certificatePem)),
    { "grpc.use_local_subchannel_pool": 1, "grpc.enable_retries": 0 },
  );
  const { path, requestSerialize, responseDeserialize } = agentGatewayService.connect;
  const stream = client.makeBidiStreamRequest<ConnectRequest | Buffer, ConnectResponse>(
    path,
    (message) => (Buffer.isBuffer(message) ? message : requestSerialize(message)),
    responseDeserialize,
  );
  const heard: Heard[] = [];
  const callbacks: ((message: Heard) => void)[] = [];
  let fault: ServiceError | "closed" | undefined;
  stream.on("data", ({ message }: ConnectResponse) => {
    if (message === undefined) return;
    heard.push(message);
    for (const callback of callbacks) callback(message);
  });
  stream.on("error", (error: ServiceError) => (fault ??= error));
  stream.on("end", () => (fault ??= "closed"));
  const say: ConnectedAgent["say"] = (message) => void stream.write({ message });
  const commands = () => heard.flatMap((message) => (message.$case === "command" ? [message.value] : []));
  if (options.silent !== true) {
    const hello = {
      protocolVersion: 1,
      bootId: randomUUID(),
      machineId: host.machineId,
      agentVersion: "0.1.0",
      pveVersion: "9.2.11",
    };
    const capacity = { cpuCores: 32, memoryMb: 65_536 };
    say({
      $case: "hello",
      value: Hello.fromPartial({ ...hello, capacity, inventory: smallInventory(), ...options.hello }),
    });
  }
  return {
    heard,
    onHeard: (callback) => void callbacks.push(callback),
    fault: () => fault,
    welcome: () => until("a Welcome", () => heard.find((message) => message.$case === "welcome")?.value),
    async refusal() {
      const over = await until("the end of the call", () => fault);
      return over === "closed" ? "closed" : (over.details.split(/[: ]/)[0] ?? "");
    },
    say,
    sayBytes: (bytes) => void stream.write(bytes),
    commands,
    command: (commandId) =>
      until(`the command ${commandId}`, () => commands().find((command) => command.commandId === commandId)),
    async succeed({ commandId, generation }, changes = {}) {
      const outcome = CommandOutcome.COMMAND_OUTCOME_SUCCEEDED;
      const already = confirmations(heard, commandId);
      say({
        $case: "result",
        value: CommandResult.fromPartial({
          commandId,
          generation,
          outcome,
          finishedAtMs: BigInt(Date.now()),
          ...changes,
        }),
      });
      await until("the confirmation of a result", () => confirmations(heard, commandId) > already);
    },
    close() {
      stream.cancel();
      client.close();
    },
  };
}

function confirmations(heard: readonly Heard[], commandId: string): number {
  return heard.filter((message) => message.$case === "resultStored" && message.value.commandId === commandId).length;
}
