// The page /local: sends what a person does to the API and to the routes under /local, and polls for what has become of
// it. Text from responses is only ever set as text, never as HTML.

const POLL_EVERY = 1000;
const SWAPS_SHOWN = 25;

// What a caller can do about an open swap. `fields` are those of the request's body.
const ACTIONS = {
  cancel: { path: "CancelActivation", fields: [] },
  resend: { path: "ResendEsim", fields: ["email"], title: "Resend the QR code", about: "Sends the same QR code again." },
  renew: {
    path: "RenewEsim",
    fields: ["email", "confirmationCode"],
    title: "Renew the QR code",
    about: "Sends a new QR code for the same eSIM. The old one stops working.",
  },
  report: {
    path: "ReportInstalled",
    fields: ["witness", "note"],
    title: "Report that the eSIM is installed",
    about: "Use this if the SM-DP+ has not reported the installation.",
  },
};

const byId = (id) => document.getElementById(id);
const within = (id, selector) => byId(id).querySelector(selector);
const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);
// `2026-11-22 17:38:42`, in the time zone of the browser; Swedish writes dates like this.
const date = (time) => new Date(time).toLocaleString("sv");
const clock = (time) => date(time).split(" ")[1];

let callers = [];
let lines = [];
let freeSims = [];
let mails = [];
// The last version of the swaps for which the lines and the free SIMs were loaded.
let loadedFor = "";

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** Sends a request and returns its status code and its body, parsed if it is JSON. */
async function send(method, path, body, headers = {}) {
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return {
    status: response.status,
    ok: response.ok,
    body: isJson ? JSON.parse(text) : text,
    replayed: response.headers.has("Idempotency-Replayed"),
    retryAfter: response.headers.get("Retry-After"),
  };
}

async function load(path) {
  const response = await send("GET", path);
  if (!response.ok) throw new Error(explain(response));
  return response.body;
}

/** Sends a request to the API as the chosen caller. Tokens expire after an hour, so a 401 is retried with a new one. */
async function call(method, path, body) {
  const attempt = () => send(method, path, body, { Authorization: `Bearer ${callers[byId("caller").value].token}` });
  const response = await attempt();
  if (response.status !== 401) return response;
  callers = await load("/local/tokens");
  return attempt();
}

/** What a response says, as text. */
function explain({ status, ok, body, replayed, retryAfter }) {
  const error = body.responseStatus;
  if (error) {
    // A single fault has the message of the whole.
    const faults = (error.errors ?? []).filter((fault) => fault.message !== error.message);
    const retry = retryAfter ? ` Retry after ${retryAfter} s.` : "";
    const whole = `${status} ${error.errorCode}: ${error.message}${retry}`;
    return [whole, ...faults.map((fault) => `${fault.fieldName}: ${fault.message}`)].join("\n");
  }
  if (ok && body.id) return `${status}: the swap is ${body.status}.${replayed ? " The request counts as a repeat." : ""}`;
  if (ok && body.iccid) return `${status}: the phone has installed the eSIM ${body.iccid}.`;
  return `${status}: ${body.message ?? body}`;
}

/** Shows the response to what a person did, once it arrives. */
async function answer(output, request) {
  output.className = "";
  output.textContent = "…";
  try {
    const response = await request;
    output.className = response.ok ? "good" : "bad";
    output.textContent = explain(response);
  } catch (error) {
    output.className = "bad";
    output.textContent = `no response: ${error.message}`;
  }
}

// Begin a swap.

const swapForm = byId("swap");
const chosenLine = () => lines.find((line) => line.id === swapForm.subscriptionId.value);

function showLines() {
  // Built once and updated afterwards, so that the focus and the choice stay. An operator may remove a line.
  if (byId("lines").childElementCount !== lines.length) {
    byId("lines").replaceChildren(...lines.map((line) => {
      const row = fromTemplate("line");
      row.querySelector("input").value = line.id;
      return row;
    }));
    swapForm.subscriptionId.value = lines[0].id;
    showChosenLine();
  }
  lines.forEach((line, index) => {
    const row = byId("lines").children[index];
    const owner = line.reseller ? `${line.customer} of ${line.reseller}` : line.customer;
    row.querySelector("strong").textContent = line.phoneNumber;
    row.querySelector(".tag").textContent = line.blocker ?? "";
    row.querySelector("small").textContent = `${line.network}, ${owner}, ${line.currentSim}`;
  });
}

function showChosenLine() {
  swapForm.email.value = chosenLine().email ?? "";
  showCards();
}

function showCards() {
  const { network, reseller } = chosenLine();
  const cards = freeSims.filter((sim) => sim.network === network && sim.reseller === reseller && sim.formFactor !== "eSIM");
  const chosen = swapForm.newSimCardNumber.value;
  const options = cards.map((sim) => new Option(`${sim.iccid}, ${sim.formFactor}`, sim.iccid, false, sim.iccid === chosen));
  swapForm.newSimCardNumber.replaceChildren(...options);
}

function showStock() {
  const networks = [...new Set(lines.map((line) => line.network))];
  byId("stock").replaceChildren(...networks.map((network) => {
    const free = freeSims.filter((sim) => sim.network === network);
    const esims = free.filter((sim) => sim.formFactor === "eSIM").length;
    const row = element("tr");
    const title = element("th", network);
    title.scope = "row";
    row.append(title, element("td", esims), element("td", free.length - esims));
    return row;
  }));
}

byId("lines").addEventListener("change", showChosenLine);
swapForm.addEventListener("change", () => {
  byId("esim").hidden = swapForm.kind.value !== "esim";
  byId("card").hidden = swapForm.kind.value !== "card";
});
swapForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const { subscriptionId, kind, email, confirmationCode, newSimCardNumber } = Object.fromEntries(new FormData(swapForm));
  const body = kind === "esim"
    ? { subscriptionId, eSim: true, email, confirmationCode }
    : { subscriptionId, newSimCardNumber: newSimCardNumber ?? "" };
  answer(swapForm.querySelector("output"), call("POST", "/api/SimSwapSubscription", body));
});

// The swaps, and what can be done about them.

/** `{a: 1, b: {c: 2}}` as `[["a", 1], ["b.c", 2]]`. */
function flatten(object, prefix = "") {
  return Object.entries(object).flatMap(([name, value]) =>
    typeof value === "object" ? flatten(value, `${prefix}${name}.`) : [[prefix + name, value]]);
}

function showSwap(card, swap) {
  const isOpen = swap.status === "INIT" || swap.status === "BUSY";
  const line = swap.phoneNumber ?? swap.subscriptionId;
  if (card.dataset.status && card.dataset.status !== swap.status) {
    byId("news").textContent = `The swap of ${line} is ${swap.status}.`;
  }
  card.dataset.status = swap.status;
  card.querySelector("h3").textContent = `${line} to ${swap.info.eSim ? "an eSIM" : "a card"}`;
  card.querySelector(".status").textContent = swap.status;
  card.querySelector(".status").className = `status ${swap.status}`;
  card.querySelector("p").textContent = [swap.id, clock(swap.createdAt), swap.info.failure?.code].filter(Boolean).join(", ");
  const facts = flatten(swap.info).filter(([name]) => name !== "eSim");
  facts.forEach((fact) => { if (fact[0].endsWith("At")) fact[1] = date(fact[1]); });
  if (swap.providerOrderNumber) facts.push(["providerOrderNumber", swap.providerOrderNumber]);
  card.querySelector("dl").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  for (const button of card.querySelectorAll("button")) {
    button.hidden = !isOpen || (!swap.info.eSim && button.dataset.action !== "cancel");
  }
  card.querySelector("ol").replaceChildren(...swap.timeline.map((entry) => {
    const row = element("li");
    const times = entry.count ? ` ×${entry.count}` : "";
    const what = element("span", `${entry.what}${times}`);
    if (entry.detail) what.append(" ", element("small", entry.detail));
    row.append(element("time", clock(entry.at)), element("span", entry.by), what);
    return row;
  }));
}

function newSwapCard(id) {
  const card = fromTemplate("activation");
  card.id = `swap-${id}`;
  card.querySelector(".actions").addEventListener("click", async ({ target }) => {
    const action = ACTIONS[target.dataset.action];
    if (!action) return;
    const body = await fieldsOf(action);
    if (!body) return;
    const path = `/api/${action.path}?id=${encodeURIComponent(id)}`;
    answer(card.querySelector("output"), call("POST", path, action.fields.length ? body : undefined));
  });
  return card;
}

function showSwaps(swaps) {
  const shown = new Set(swaps.map((swap) => `swap-${swap.id}`));
  [...byId("swaps").children].filter((card) => !shown.has(card.id)).forEach((card) => card.remove());
  // Oldest first, so that each new card is put before those of older swaps. No card moves.
  for (const swap of swaps.toReversed()) {
    let card = byId(`swap-${swap.id}`);
    if (!card) {
      card = newSwapCard(swap.id);
      const latest = swap === swaps[0];
      if (latest) byId("swaps").querySelectorAll("details").forEach((details) => { details.open = false; });
      card.querySelector("details").open = latest;
      byId("swaps").prepend(card);
    }
    const text = JSON.stringify(swap);
    if (card.shownText !== text) showSwap(card, swap);
    card.shownText = text;
  }
}

/** The body that a person composes in the dialog for an action; `undefined` if the dialog is closed without sending. */
function fieldsOf({ title, about, fields }) {
  if (!fields.length) return {};
  const dialog = document.querySelector("dialog");
  const form = dialog.querySelector("form");
  form.reset();
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = about;
  for (const label of dialog.querySelectorAll("label")) {
    label.hidden = !fields.includes(label.querySelector("input, select").name);
  }
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const filled = [...new FormData(form)].filter(([name, value]) => fields.includes(name) && value);
      resolve(dialog.returnValue ? Object.fromEntries(filled) : undefined);
    }, { once: true });
  });
}

// The e-mails, and the phone.

const phoneForm = byId("phone");

function showMails() {
  for (const mail of mails.toReversed()) {
    if (byId(`mail-${mail.id}`)) continue;
    const shown = fromTemplate("mail");
    shown.id = `mail-${mail.id}`;
    shown.querySelector("strong").textContent = mail.subject;
    shown.querySelector("small").textContent = `to ${mail.to}, ${clock(mail.sentAt)}`;
    shown.querySelector("a").href = `/local/mail/${mail.id}`;
    shown.querySelector("iframe").title = `The e-mail “${mail.subject}” to ${mail.to}`;
    shown.addEventListener("toggle", () => {
      const frame = shown.querySelector("iframe");
      if (shown.open && !frame.src) frame.src = `/local/mail/${mail.id}.html`;
    });
    shown.querySelector("button").addEventListener("click", async () => {
      byId("scan").value = mail.id;
      await scan();
      phoneForm.confirmationCode.focus();
    });
    byId("mails").prepend(shown);
    const option = new Option(`the e-mail to ${mail.to}, ${clock(mail.sentAt)}`, mail.id);
    byId("scan").options[0].after(option);
  }
}

async function scan() {
  const id = byId("scan").value;
  // The line is in the plain text. It is shorter than the lines that the encoding breaks.
  const code = id && (await load(`/local/mail/${id}`)).match(/^LPA:1\$\S+/m);
  phoneForm.activationCode.value = code ? code[0] : "";
}

byId("scan").append(new Option("no e-mail: type the code", ""));
byId("scan").addEventListener("change", scan);
phoneForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const { activationCode, confirmationCode } = phoneForm;
  const body = { activationCode: activationCode.value.trim(), confirmationCode: confirmationCode.value };
  answer(phoneForm.querySelector("output"), send("POST", "/local/phone/install", body));
});

// The callers, the failures, and the polling.

byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(callers[byId("caller").value].token);
  byId("copied").textContent = "Copied";
  setTimeout(() => { byId("copied").textContent = ""; }, 2000);
});
byId("caller").addEventListener("change", () => byId("swaps").replaceChildren());

async function showFailures() {
  const response = await send("GET", "/local/failures");
  if (!response.ok) return;
  const none = [element("dt", "none"), element("dd", "--smdp-failures, --network-failures and --mail-failures make the peers fail.")];
  const rows = response.body.flatMap(({ option, value, what }) => [element("dt", `${option} ${value}`), element("dd", what)]);
  within("failures", "dl").replaceChildren(...(rows.length ? rows : none));
  byId("failures").hidden = false;
}

async function refresh() {
  const swaps = await call("GET", `/api/QueryActivation?include=timeline&take=${SWAPS_SHOWN}`);
  if (!swaps.ok) throw new Error(explain(swaps));
  mails = await load("/local/mail");
  showMails();
  showSwaps(swaps.body.results);
  const version = swaps.body.results.map((swap) => swap.id + swap.modifiedAt).join();
  if (version !== loadedFor || !lines.length) {
    [lines, freeSims] = await Promise.all([load("/local/lines"), load("/local/sims")]);
    loadedFor = version;
    showLines();
    showCards();
    showStock();
  }
}

async function poll() {
  try {
    if (!callers.length) {
      callers = await load("/local/tokens");
      byId("caller").append(...callers.map(({ role, holder }, index) => new Option(`${role} ${holder ?? ""}`, index)));
      await showFailures();
    }
    if (!document.hidden) await refresh();
    byId("offline").hidden = true;
  } catch (error) {
    console.warn(error);
    byId("offline").hidden = false;
  }
  setTimeout(poll, POLL_EVERY);
}

poll();
