// One real Socket.IO client and a journal of everything that happened to it.

import { io } from 'socket.io-client';

import { Final, until, within } from './wait.mjs';

/** What to do by default: a patient client that never gives up, with short waits so that tests are quick. */
const DEFAULTS = {
  forceNew: true,
  reconnectionDelay: 100,
  reconnectionDelayMax: 1_000,
  timeout: 20_000,
};

/** How long one acknowledgement may take. Generous: it bounds a hang, it is no claim about speed. */
const ACK_WITHIN = 60_000;

export class Client {
  /** `home` is where it comes from; `options` are those of socket.io-client. */
  constructor(url, home, options = {}) {
    this.home = home;
    /** Why the session ended, once for each time. */
    this.disconnects = [];
    /** Every error of a transport or a connection, as text. */
    this.errors = [];
    /** How often a session was established, the first time included. */
    this.connects = 0;
    this.socket = io(url, { ...DEFAULTS, ...options, agent: home.agent });
    this.socket.on('connect', () => this.connects++);
    this.socket.on('hello', (hello) => (this.greeting = { session: this.socket.id, ...hello }));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
    // The manager learns of every error of an engine, also of one between the engine's handshake and Socket.IO's.
    this.socket.io.on('error', (error) => this.errors.push(explain(error)));
  }

  /** The transport in use: `polling` or `websocket`. */
  get transport() {
    return this.socket.io.engine?.transport?.name;
  }

  /** Resolves when the session is established; rejects with the first error if it is not. */
  connected() {
    if (this.socket.connected) return Promise.resolve(this);
    const outcome = new Promise((resolve, reject) => {
      this.socket.once('connect', () => resolve(this));
      this.socket.once('connect_error', (error) => reject(new Error(explain(error))));
      this.socket.io.once('close', (reason) => reject(new Error(this.errors.at(-1) ?? reason)));
    });
    return within(ACK_WITHIN, `a session for a client at ${this.home.address}`, outcome);
  }

  /** Resolves when the session has moved to WebSocket. */
  upgraded() {
    const { engine } = this.socket.io;
    if (this.transport === 'websocket') return Promise.resolve();
    const done = new Promise((resolve, reject) => {
      engine.once('upgrade', () => resolve());
      engine.once('upgradeError', (error) => reject(new Error(`upgrade: ${explain(error)}`)));
    });
    return within(ACK_WITHIN, `the upgrade of a client at ${this.home.address}`, done);
  }

  /** What the server said first in the present session. */
  async hello() {
    await until(`a hello for a client at ${this.home.address}`, () => {
      this.#mustHaveSession('hello');
      return this.greeting?.session === this.socket.id;
    });
    return this.greeting;
  }

  /** Sends an event and gives all that the server acknowledged it with. Without a session it fails at once. */
  async ask(event, ...args) {
    this.#mustHaveSession(event);
    return new Promise((resolve, reject) => {
      this.socket.timeout(ACK_WITHIN).emit(event, ...args, (error, ...answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  /** All arguments of the next such event in the present session. */
  async next(event) {
    this.#mustHaveSession(event);
    const listeners = {};
    const arrived = new Promise((resolve, reject) => {
      listeners[event] = (...args) => resolve(args);
      listeners.disconnect = (reason) => reject(new Error(`the session ended before ${event}: ${reason}`));
    });
    Object.entries(listeners).forEach(([name, listener]) => this.socket.on(name, listener));
    try {
      return await within(ACK_WITHIN, `an event ${event} for a client at ${this.home.address}`, arrived);
    } finally {
      Object.entries(listeners).forEach(([name, listener]) => this.socket.off(name, listener));
    }
  }

  #mustHaveSession(purpose) {
    if (!this.socket.connected) throw new Final(`no session for ${purpose}: ${this.disconnects.at(-1)}`);
  }

  close() {
    this.socket.disconnect();
  }
}

/** An error of the client as one line; a failed request as `400 Session ID unknown`. */
export function explain(error) {
  const status = error?.description;
  const body = error?.context?.responseText;
  if (typeof status === 'number' && status > 0) return `${status} ${messageOf(body)}`.trim();
  const cause = error?.description?.message ?? error?.context?.statusText?.message;
  return cause ? `${error.message}: ${cause}` : String(error?.message ?? error);
}

function messageOf(body) {
  try {
    return JSON.parse(body).message;
  } catch {
    return String(body ?? '').slice(0, 80);
  }
}
