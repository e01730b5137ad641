/** A hand-written OpenAI-compatible server on the loopback interface: answers, and every way of not answering. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Asked {
  readonly model: string;
  readonly seed: number;
  readonly messages: readonly { readonly content: string }[];
  readonly [key: string]: unknown;
}

/** What to do with the n-th request (from 0) for this body. */
export type Behaviour = (body: Asked, n: number, response: ServerResponse, request: IncomingMessage) => void;

export interface TestServer {
  readonly baseUrl: string;
  readonly seen: Asked[];
  readonly headers: IncomingMessage["headers"][];
  /** Requests being answered at the same time, at most. */
  mostAtOnce: number;
  behave: Behaviour;
  /** Answers GET /models; by default there is no such route. */
  models: (response: ServerResponse) => void;
  /** So often asked. */
  listed: number;
  close(): Promise<void>;
}

export const say = (
  response: ServerResponse,
  text: string,
  usage: object | undefined = { prompt_tokens: 100, completion_tokens: 20 },
): void => {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ choices: [{ message: { role: "assistant", content: text } }], usage }));
};

export const fail = (
  response: ServerResponse,
  status: number,
  message: string,
  headers: Record<string, string> = {},
): void => {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ error: { message } }));
};

export const list = (response: ServerResponse, names: readonly string[]): void => {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ object: "list", data: names.map((id) => ({ id, object: "model" })) }));
};

export async function startServer(behave: Behaviour): Promise<TestServer> {
  let atOnce = 0;
  const models = (response: ServerResponse): void => fail(response, 404, "no such route");
  const test: TestServer = { baseUrl: "", seen: [], headers: [], mostAtOnce: 0, behave, models, listed: 0, close };
  const server: Server = createServer((request, response) => {
    atOnce++;
    test.mostAtOnce = Math.max(test.mostAtOnce, atOnce);
    response.on("close", () => atOnce--);
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      if (request.method === "GET") {
        test.listed++;
        test.headers.push(request.headers);
        test.models(response);
        return;
      }
      const body = JSON.parse(Buffer.concat(parts).toString("utf8")) as Asked;
      test.seen.push(body);
      test.headers.push(request.headers);
      test.behave(body, test.seen.length - 1, response, request);
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return Object.assign(test, { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1` });

  async function close(): Promise<void> {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
}
