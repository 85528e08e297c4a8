// Swaps a line to an eSIM: submits the swap, polls it, sends the QR code again, cancels, and handles errors.
//
// Needs Node 20 or later, and before Node 22.18 a compiler. README.md in this folder says how to run it.

const url = process.env.SIMSWAP_URL!.replace(/\/$/, "");
const token = process.env.SIMSWAP_TOKEN!;

// All times are in seconds. The service itself may take 28 seconds to respond.
const responseTimeout = 30;
const attempts = 5;
const longestPause = 10;
const pollInterval = 5;
const pollLimit = 300;

type SwapRequest = {
  subscriptionId: string;
  eSim: true;
  email: string;
  confirmationCode: string;
};

// The fields that this program uses. API.md lists all fields.
type Activation = {
  id: string;
  status: "INIT" | "BUSY" | "DONE" | "ERROR";
  info: {
    delivery?: "pending" | "sent" | "delivered" | "bounced" | "ambiguous" | "failed";
    failure?: { code: string; message: string };
  };
};

type FieldError = { errorCode: string; fieldName: string; message: string; meta: Record<string, string> };

// A response that is not a 200. `code` is undefined if API Gateway has sent it.
class ApiError extends Error {
  readonly status: number;
  readonly code: string | undefined;
  readonly fields: FieldError[];
  readonly retryAfter: number | undefined;

  constructor(response: Response, body: any) {
    const { errorCode, message, errors } = body.responseStatus ?? {};
    super(`${response.status} ${errorCode ?? "from API Gateway"}: ${message ?? body.message ?? "no message"}`);
    this.status = response.status;
    this.code = errorCode;
    this.fields = errors ?? [];
    this.retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  }

  // The time after which to send the request again, or undefined if that would not help.
  pause(byDefault: number): number | undefined {
    const isTemporary = this.status === 500 || this.status === 503 || (this.status === 429 && !this.code);
    return this.retryAfter ?? (isTemporary ? byDefault : undefined);
  }
}

// Sends a request, again if that may help. All attempts have the same key, so they count as one request.
async function send<T>(method: "GET" | "POST", path: string, key?: string, body?: object): Promise<T> {
  const headers: Record<string, string> = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  if (key) headers["Idempotency-Key"] = key;
  for (let attempt = 1; ; attempt++) {
    let pause: number | undefined = 2 ** (attempt - 1);
    let error: unknown;
    try {
      const signal = AbortSignal.timeout(responseTimeout * 1000);
      const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body), signal });
      if (response.ok) return (await response.json()) as T;
      const refusal = new ApiError(response, (await response.json().catch(() => undefined)) ?? {});
      pause = refusal.pause(pause);
      error = refusal;
    } catch (failure) {
      error = new Error(describe(failure));
    }
    if (pause === undefined || pause > longestPause || attempt === attempts) throw error;
    console.log(`Attempt ${attempt} failed (${error}). The next one follows in ${pause} s.`);
    await sleep(pause);
  }
}

// What to tell a person about a request without a usable response. The cause says why `fetch` has failed.
function describe(failure: any): string {
  if (failure instanceof SyntaxError) return `${url} is not the URL of the service: ${failure.message}`;
  return `${url} cannot be reached: ${failure.cause?.code ?? failure.message}`;
}

function submit(key: string, swap: SwapRequest): Promise<Activation> {
  return send("POST", "/api/SimSwapSubscription", key, swap);
}

async function query(id: string): Promise<Activation> {
  const page = await send<{ results: Activation[] }>("GET", `/api/QueryActivation?id=${encodeURIComponent(id)}`);
  return page.results[0];
}

// Sends the QR code again, to another address if `email` is given.
function resend(key: string, id: string, email?: string): Promise<Activation> {
  return send("POST", `/api/ResendEsim?id=${encodeURIComponent(id)}`, key, { email });
}

function cancel(key: string, id: string): Promise<Activation> {
  return send("POST", `/api/CancelActivation?id=${encodeURIComponent(id)}`, key);
}

// Polls a swap until `isReached` holds for it.
async function pollUntil(id: string, isReached: (swap: Activation) => boolean): Promise<Activation> {
  const deadline = Date.now() + pollLimit * 1000;
  for (;;) {
    const swap = await query(id);
    if (isReached(swap)) return swap;
    if (Date.now() + pollInterval * 1000 > deadline) {
      throw new Error(`The swap is ${swap.status} after ${pollLimit} s. Poll it once a minute from now on.`);
    }
    await sleep(pollInterval);
  }
}

function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

function isOver(swap: Activation): boolean {
  return swap.status === "DONE" || swap.status === "ERROR";
}

function isMailedOrOver(swap: Activation): boolean {
  return (swap.info.delivery ?? "pending") !== "pending" || isOver(swap);
}

// Waits for a response that has to be an error with this status code, and returns the error.
async function expectError(status: number, response: Promise<unknown>): Promise<ApiError> {
  try {
    await response;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    expect(error.status === status, `Expected a ${status}, got ${error.message}`);
    return error;
  }
  throw new Error(`Expected a ${status}, got a 200.`);
}

function expect(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise);
}

async function main(line: string): Promise<void> {
  const request: SwapRequest = {
    subscriptionId: line,
    eSim: true,
    email: "customer@example.com",
    confirmationCode: "8E9!#",
  };

  // A 400 lists all faulty fields at once.
  const faulty = { ...request, email: "", confirmationCode: "12345678901" };
  const invalid = await expectError(400, submit(crypto.randomUUID(), faulty));
  for (const field of invalid.fields) console.log(`Faulty field ${field.fieldName}: ${field.message}`);
  const names = invalid.fields.map((field) => field.fieldName).sort();
  expect(names.join() === "confirmationCode,email", "Expected two faulty fields.");

  // Store the key before you send the request. If your process ends before the response arrives, send the same request
  // with the same key again: the response contains the swap, and no second one begins.
  const key = crypto.randomUUID();
  const accepted = await submit(key, request);
  console.log(`The swap ${accepted.id} is ${accepted.status}.`);
  expect((await submit(key, request)).id === accepted.id, "A repeated request has the same response.");

  // Another request for the line gets a 409 with the id of the open swap, which may have been submitted elsewhere.
  const conflict = await expectError(409, submit(crypto.randomUUID(), request));
  expect(conflict.code === "SwapInProgress", `Expected SwapInProgress, got ${conflict}`);
  const openId = conflict.fields[0].meta.activationId;
  console.log(`The line already has the open swap ${openId}.`);
  expect(openId === accepted.id, "The open swap is another one.");

  const mailed = await pollUntil(accepted.id, isMailedOrOver);
  const delivery = mailed.info.delivery;
  console.log(`The swap is ${mailed.status}, and its e-mail is ${delivery}.`);
  const isSent = delivery === "sent" || delivery === "delivered";
  expect(mailed.status === "BUSY" && isSent, `Expected an e-mail, got ${JSON.stringify(mailed)}`);

  await resend(crypto.randomUUID(), accepted.id);
  console.log("The QR code is sent again.");
  // Another e-mail within a minute gets a 429. `Retry-After` is longer than a program should wait: tell a person.
  const tooSoon = await expectError(429, resend(crypto.randomUUID(), accepted.id));
  expect((tooSoon.retryAfter ?? 0) > longestPause, `Expected a longer Retry-After in ${tooSoon}`);
  console.log("The QR code can be sent again in a minute.");

  // The response to a cancel request may come before the swap has ended.
  await cancel(crypto.randomUUID(), accepted.id);
  const ended = await pollUntil(accepted.id, isOver);
  console.log(`The swap is ${ended.status}: ${ended.info.failure?.message}`);
  expect(ended.info.failure?.code === "cancelled", `Expected the failure code cancelled, got ${JSON.stringify(ended)}`);
}

main(process.argv[2]).catch((error: unknown) => {
  if (error instanceof ApiError) console.error(`${url} has responded with ${error.message}`);
  else console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
