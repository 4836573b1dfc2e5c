// The chat page. It shows which worker serves this client, what becomes of the connection, and the rooms.
import { io } from "/haft/client.js";
import { make } from "/haft/make.js";

const $ = (id) => document.getElementById(id);
const KEPT = 200;

/** What a browser may refuse to keep (a private window). */
const memory = {
  get: (key) => { try { return localStorage.getItem(`haft.${key}`) ?? ""; } catch { return ""; } },
  set: (key, value) => { try { localStorage.setItem(`haft.${key}`, value); } catch { /* not kept */ } },
};

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;

/* ---- what happened ---- */

function happened(kind, title, details = "", move = []) {
  const now = new Date();
  const item = make("li", { "data-kind": kind },
    make("time", { text: now.toLocaleTimeString([], { hour12: false }), datetime: now.toISOString() }),
    make("strong", { text: title }));
  if (details) item.append(make("p", { text: details }));
  if (move.length) {
    item.append(make("p", { className: "move" }, ...move.flatMap(([label, worker]) =>
      [make("span", { className: "label", text: label }), " ", make("span", { className: "worker-name", text: worker }), " "])));
  }
  $("timeline").prepend(item);
  $("nothing-yet").hidden = true;
  while ($("timeline").children.length > KEPT) $("timeline").lastChild.remove();
}

function state(name, text) {
  $("state").dataset.state = name;
  $("state-text").textContent = text;
}

/* ---- the worker that serves ---- */

let worker = null; // the last one that sent hello
let lost = null; // when the connection was lost
let progress = { first: "none", greeted: false, upgraded: null }; // of the present connection

const name = (w) => `slot ${w.slot} · pid ${w.pid}`;

function comparison(before, now) {
  if (before.slot !== now.slot) return ["warn", "Back, at another slot", "The table of workers has changed, or the address has."];
  if (before.pid === now.pid) return ["good", "Back at the same worker", "The same process as before."];
  const how = before.generation === now.generation ? "The process before it has ended." : `Generation ${before.generation} gave way to ${now.generation}.`;
  return ["good", "Back at the same slot, served by a new process", how];
}

function greeted(socket, hello) {
  const before = worker;
  worker = hello;
  document.documentElement.style.setProperty("--hue", String((262 + hello.slot * 137.508) % 360));
  $("slot").textContent = hello.slot;
  $("slot-words").textContent = "The worker in this slot serves your session.";
  $("host").textContent = hello.host;
  $("pid").textContent = hello.pid;
  $("kill").textContent = `kill -9 ${hello.pid}`;
  $("generation").textContent = hello.generation;
  $("sid").textContent = socket.io.engine.id;
  $("socket-id").textContent = socket.id;
  $("client").textContent = hello.client ?? "a Unix socket";
  if (before) {
    const [kind, title, details] = comparison(before, hello);
    const away = lost ? ` Away for ${((performance.now() - lost) / 1000).toFixed(1)}\u00a0s.` : "";
    happened(kind, title, details + away, [["before", name(before)], ["now", name(hello)]]);
  } else {
    happened("good", "Connected", `over ${spoken(progress.first)}`, [["by", name(hello)]]);
  }
  lost = null;
  progress.greeted = true;
  progress.upgraded?.();
}

/* ---- transport ---- */

const spoken = (transport) => (transport === "websocket" ? "WebSocket" : "HTTP long-polling");
const transportOf = (socket) => socket.io.engine?.transport?.name ?? "none";

function transport(now, words) {
  $("transport").dataset.transport = now;
  $("transport-words").textContent = words;
  let past = now !== "none";
  for (const step of $("transport").querySelectorAll("li")) {
    const is = step.dataset.step === now;
    past &&= !is;
    step.className = is ? "now" : past ? "past" : "";
    if (is) step.setAttribute("aria-current", "step"); else step.removeAttribute("aria-current");
  }
}

/** Called as soon as the engine has opened: an upgrade can be done before the namespace is joined. */
function watchTransport(socket, transports) {
  const engine = socket.io.engine;
  const started = performance.now();
  const first = engine.transport.name;
  const mine = (progress = { first, greeted: false, upgraded: null });
  const upgrades = first === "polling" && transports.includes("websocket");
  transport(first, upgrades ? "started; the upgrade to WebSocket is under way" : "from the start, without an upgrade");
  engine.once("upgrade", (to) => {
    const took = Math.round(performance.now() - started);
    transport(to.name, `upgraded after ${took} ms`);
    if (socket.connected) state("up", `connected · ${spoken(to.name)}`);
    // Shown after the greeting, even if the upgrade was faster.
    mine.upgraded = () => happened("good", `Upgraded to ${spoken(to.name)}`, `after ${took} ms, at the same worker`);
    if (mine.greeted) mine.upgraded();
  });
  engine.once("upgradeError", () => {
    transport("polling", "the upgrade failed; long-polling goes on");
    happened("warn", "The upgrade failed", "Long-polling goes on.");
  });
}

/* ---- rooms ---- */

const rooms = new Map(); // name -> { members, at: [{ host, slot, members }], messages: [], unread }
let current = null;

function note(room, text) {
  keep(room, { note: text });
}

function keep(room, message) {
  const entry = rooms.get(room);
  if (!entry) return;
  entry.messages.push(message);
  if (entry.messages.length > KEPT) entry.messages.shift();
  if (room === current) {
    $("messages").append(bubble(message));
    while ($("messages").children.length > KEPT) $("messages").firstChild.remove();
    $("messages").scrollTop = $("messages").scrollHeight;
  } else if (!message.note) {
    entry.unread += 1;
    drawTabs();
  }
}

function bubble(message) {
  if (message.note) return make("li", { className: "note", text: message.note });
  const item = make("li", message.mine ? { className: "mine" } : {});
  if (!message.mine) {
    item.append(make("span", { className: "from", text: message.from }, make("span", { className: "place", text: ` · ${place(message)}` })));
  }
  item.append(make("span", { text: message.text }));
  if (message.mine) item.append(make("span", { className: "fate", text: message.fate }));
  message.node = item;
  return item;
}

function drawTabs() {
  $("tabs").replaceChildren(...[...rooms].map(([room, entry]) => {
    const tab = make("button", { type: "button", text: room, "aria-pressed": String(room === current) });
    if (entry.unread) tab.append(make("span", { className: "count", text: entry.unread, "aria-label": `${entry.unread} unread` }));
    tab.addEventListener("click", () => show(room));
    return tab;
  }));
}

/** Where a member is; the host is named if it is another one. */
function place({ host, slot }) {
  if (slot === null) return "outside haft";
  return host === worker?.host ? `slot ${slot}` : `host ${host}, slot ${slot}`;
}

function drawMembers() {
  const entry = rooms.get(current);
  const where = entry?.at.map((at) => `${place(at)}: ${at.members}`).join(", ");
  $("members").textContent = entry ? `${plural(entry.members, "member", "members")}${where ? ` (${where})` : ""}` : "join a room to talk";
}

function show(room) {
  current = room;
  const entry = rooms.get(room);
  if (entry) entry.unread = 0;
  $("room-name").textContent = room ?? "No room";
  $("messages").replaceChildren(...(entry?.messages ?? []).map(bubble));
  $("messages").scrollTop = $("messages").scrollHeight;
  $("leave").disabled = $("send").disabled = !entry;
  drawTabs();
  drawMembers();
}

/** Asks the server; what it refuses is shown, and `null` returned. */
async function ask(socket, event, data) {
  $("refused").textContent = "";
  let answer;
  try {
    answer = await socket.timeout(8000).emitWithAck(event, data);
  } catch {
    $("refused").textContent = socket.connected ? "No answer within 8 seconds." : "Not connected just now; try again when the connection is back.";
    return null;
  }
  if (answer.ok) return answer;
  $("refused").textContent = `Refused: ${answer.error}.`;
  return null;
}

/** Joins a room, again after a reconnection or under a new name; `words` say so in the room. */
async function join(socket, room, words) {
  const called = $("name-input").value.trim();
  const answer = await ask(socket, "join", called ? { room, name: called } : { room });
  if (!answer) return;
  if (!rooms.has(answer.room)) rooms.set(answer.room, { members: 0, at: [], messages: [], unread: 0 });
  rooms.get(answer.room).members = answer.members;
  $("name-input").placeholder = answer.name;
  note(answer.room, `${words ?? "You joined as"} ${answer.name}, on slot ${worker.slot}.`);
  if (words) drawMembers(); else show(answer.room);
}

async function send(socket, room, text) {
  const message = { mine: true, text, fate: "sending" };
  keep(room, message);
  const answer = await ask(socket, "message", { room, text });
  const others = answer ? answer.members - 1 - answer.missed : 0;
  message.fate = answer ? `acknowledged · to ${plural(others, "other", "others")}` : "not delivered";
  message.node?.querySelector(".fate").replaceChildren(message.fate);
  return answer !== null;
}

/* ---- round trip ---- */

async function echo(socket, bytes) {
  const sent = crypto.getRandomValues(new Uint8Array(bytes));
  const start = performance.now();
  const back = new Uint8Array(await socket.timeout(8000).emitWithAck("echo", sent));
  const took = (performance.now() - start).toFixed(1);
  const same = back.length === sent.length && back.every((byte, i) => byte === sent[i]);
  $("round-trip").textContent = same ? `${took} ms` : "came back changed";
  return { took, same };
}

/* ---- the connection ---- */

const REASONS = {
  "transport close": "The server, or something on the way, closed it.",
  "transport error": "It broke.",
  "ping timeout": "The server's heartbeat did not come.",
  "forced close": "You broke it.",
  "io server disconnect": "The server sent this client away.",
  "io client disconnect": "This page closed it.",
};

function connect(facts) {
  const socket = io({ path: facts.path, transports: facts.transports, reconnectionDelay: 500, reconnectionDelayMax: 4000 });
  let attempts = 0;

  socket.on("connect", () => {
    attempts = 0;
    state("up", `connected · ${spoken(transportOf(socket))}`);
  });
  socket.io.on("open", () => watchTransport(socket, facts.transports));
  socket.on("hello", async (hello) => {
    greeted(socket, hello);
    echo(socket, 1024).catch(() => {});
    if (rooms.size === 0) return join(socket, decodeURIComponent(location.hash.slice(1)).trim() || "lobby");
    for (const room of [...rooms.keys()]) await join(socket, room, "You are back as");
  });
  socket.on("disconnect", (reason) => {
    lost = performance.now();
    state("down", "connection lost");
    transport("none", "not connected");
    happened("bad", `Connection lost: ${reason}`, REASONS[reason] ?? "");
    for (const room of rooms.keys()) note(room, "The connection was lost.");
  });
  socket.on("connect_error", (error) => {
    state("down", "no answer");
    if (attempts < 2 || attempts % 10 === 0) happened("bad", "No answer", error.message);
  });
  socket.io.on("reconnect_attempt", (attempt) => {
    attempts = attempt;
    state("waiting", `trying again · ${attempt}`);
    if (attempt <= 2 || attempt % 10 === 0) happened("warn", `Trying again, attempt ${attempt}`);
  });
  socket.on("message", ({ room, from, text, host, slot }) => keep(room, { from, text, host, slot }));
  socket.on("members", ({ room, members, at = [] }) => {
    const entry = rooms.get(room);
    if (entry) Object.assign(entry, { members, at });
    if (room === current) drawMembers();
  });
  return socket;
}

/** Puts a command onto the clipboard; where a browser forbids that, it is selected. */
async function copy(button) {
  const command = $(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  } catch {
    getSelection().selectAllChildren(command);
  }
}

function listen(socket, limits) {
  $("room-input").maxLength = limits.room;
  $("name-input").maxLength = limits.name;
  $("message-input").maxLength = limits.text;
  $("name-input").value = memory.get("name").slice(0, limits.name);

  $("break").addEventListener("click", () => socket.io.engine?.close());
  for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", () => copy(button));
  $("echo").addEventListener("click", async () => {
    try {
      const { took, same } = await echo(socket, 65536);
      happened(same ? "good" : "bad", "Echo of 64 KiB, binary", same ? `back unchanged after ${took} ms` : "came back changed");
    } catch {
      happened("bad", "Echo of 64 KiB, binary", "no answer");
    }
  });
  $("join-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await join(socket, $("room-input").value);
    $("room-input").value = "";
  });
  $("leave").addEventListener("click", async () => {
    const room = current;
    if (!(await ask(socket, "leave", { room }))) return;
    rooms.delete(room);
    show(rooms.keys().next().value ?? null);
  });
  $("name-input").addEventListener("change", async () => {
    memory.set("name", $("name-input").value.trim());
    if (current && $("name-input").value.trim()) await join(socket, current, "You are now");
  });
  $("message-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = $("message-input").value;
    $("message-input").value = "";
    if (current && !(await send(socket, current, text))) $("message-input").value ||= text;
  });
}

async function start() {
  const answer = await fetch("/haft/page.json");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const facts = await answer.json();
  for (const step of $("transport").querySelectorAll("li")) step.hidden = !facts.transports.includes(step.dataset.step);
  $("version").textContent = facts.version;
  $("path").textContent = facts.path;
  $("other-slot").hidden = !facts.sessions;
  $("same-slot").hidden = $("session-flag").hidden = facts.sessions;
  $("scope-all").hidden = !facts.shared;
  $("scope-own").hidden = facts.shared;
  listen(connect(facts), facts.limits);
}

show(null);
start().catch((error) => {
  state("down", "no answer");
  $("trouble").hidden = false;
  $("trouble").textContent = `This page could not start: ${error.message}. Load it again.`;
});
