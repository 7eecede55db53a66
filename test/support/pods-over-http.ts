import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { makePerson, send, type Person, type Sent } from "./people.ts";
import { PodWorkbench } from "./pod-workbench.ts";
import { buildWholeTestApp, type WholeTestApp } from "./whole-app.ts";

/** A pod as far as tests read its answer. */
interface ShownPod {
  readonly id: string;
  readonly vmid: number;
  readonly version: number;
}

/** A workbench that is asked over HTTP, by an operator and by the owner of each test's tenant. */
export class PodsOverHttp extends PodWorkbench {
  #app: WholeTestApp | undefined;
  #operator: Person | undefined;
  #customer: Person | undefined;

  constructor() {
    super();
    beforeAll(async () => {
      this.#app = await buildWholeTestApp(this.db);
      this.#operator = await this.person({ platformRole: "OPERATOR" });
    });
    afterAll(() => this.#app?.close());
    beforeEach(async () => {
      this.#customer = await this.person({ tenants: { [this.tenantId]: "owner" } });
    });
  }

  get app(): WholeTestApp["app"] {
    return made(this.#app).app;
  }

  get operator(): Person {
    return made(this.#operator);
  }

  get customer(): Person {
    return made(this.#customer);
  }

  person(wish: Parameters<typeof makePerson>[2]): Promise<Person> {
    return makePerson(this.db, this.app, wish);
  }

  /** Asks as a person, below /api/cloud-pods. */
  ask(
    who: Person,
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Sent> {
    return send(this.app, method, `/api/cloud-pods${path}`, {
      headers: { ...who.headers, ...headers },
      body,
    });
  }

  /** The pod of an answer 202, once its task is done. */
  async done(answer: Sent): Promise<ShownPod> {
    expect(answer.status, answer.text).toBe(202);
    const { pod, task } = JSON.parse(answer.text);
    expect(answer.headers.get("location")).toBe(`/api/tasks/${task.id}`);
    expect(await this.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
    return JSON.parse((await this.ask(this.operator, "GET", `/${pod.id}`)).text);
  }

  /** Orders a small pod and waits until it runs. */
  async running(wish: object = {}): Promise<ShownPod> {
    return await this.done(
      await this.ask(this.customer, "POST", "/order", { planCode: "STARTER", hostname: "shop", ...wish }),
    );
  }
}

function made<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("used outside of a test");
  return value;
}
