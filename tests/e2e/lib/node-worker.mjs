// A Node program as a worker, with this program as its primary: what haft does, message by message and by hand.

import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import v8 from 'node:v8';

import { Child } from './child.mjs';
import { until } from './wait.mjs';

/** The preload in one file, put together as haft does it (`src/node/preload.rs`). */
export const PRELOAD = joined(new URL('../../../src/node/', import.meta.url));

function joined(folder) {
  const names = readFileSync(new URL('preload.rs', folder), 'utf8').matchAll(/include_str!\("(preload\/[^"]+)"\)/g);
  const parts = Array.from(names, ([, name]) => readFileSync(new URL(name, folder), 'utf8'));
  const place = realpathSync(mkdtempSync(join(tmpdir(), 'haft-preload-')));
  process.on('exit', () => rmSync(place, { recursive: true, force: true }));
  const file = join(place, 'haft-preload.cjs');
  writeFileSync(file, parts.join('\n'));
  return file;
}

/** What haft sets for the worker of slot 2 and generation 7 under session affinity. */
export const ENVIRONMENT = {
  HAFT_SLOT: '2',
  HAFT_GENERATION: '7',
  HAFT_WORKER: '9',
  HAFT_WORKERS: '4',
  HAFT_TAG_KEY: 'aae24849842d7082b66f57ce8270bd04da2c39ffb97df22803c270983032c4e5',
  NODE_OPTIONS: `--require ${PRELOAD}`,
};

export class NodeWorker {
  /** Starts a program, which listens once; a variable that is undefined is left out. */
  constructor(place, node, args, { env = {}, serialization = 'json', byMessage } = {}) {
    const { NODE_OPTIONS: _, ...inherited } = process.env;
    this.child = new Child(node, args, {
      cwd: place.folder,
      serialization,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...inherited, NODE_UNIQUE_ID: '9', ...ENVIRONMENT, ...env },
    });
    place.children.push(this.child);
    /** What the preload has said, and what the program has. */
    this.said = [];
    this.messages = [];
    /** The address that goes with each connection from now on. */
    this.told = undefined;
    this.byMessage = byMessage;
    this.seq = 0;
    this.unanswered = new Map();
    const { process: worker } = this.child;
    worker.on('internalMessage', (message) => this.#hear(message));
    worker.on('message', (message) => this.messages.push(message));
    worker.on('error', () => {}); // it left while something was sent
    this.#addressesInto(worker);
    this.clients = net.createServer({ pauseOnConnect: true }, (socket) => this.#handOver(socket));
    place.atEnd(() => {
      this.clients.close();
      // A worker that has left does not answer any more.
      this.unanswered.forEach((socket) => socket.destroy());
    });
  }

  /** Where its clients connect to, once the program listens. */
  async url() {
    await until(`${this.child.name} listens`, () => (this.child.mustRun(), this.listens));
    if (!this.clients.listening) await new Promise((done) => this.clients.listen(0, '127.0.0.1', done));
    return `http://127.0.0.1:${this.clients.address().port}`;
  }

  /** Says something as haft does. */
  say(message) {
    this.child.process.send(message);
  }

  /** Asks the program something and gives its answer. */
  async ask(command) {
    this.say({ command });
    const answered = () => this.messages.find((message) => message.command === command);
    const { answer } = await until(`an answer to ${command}`, () => (this.child.mustRun(), answered()));
    this.messages = this.messages.filter((message) => message.command !== command);
    return answer;
  }

  /** Lets it finish, and gives `{ code, signal }` of its end. */
  async disconnect() {
    this.say({ cmd: 'NODE_CLUSTER', act: 'disconnect', seq: this.seq++ });
    return until(`the end of ${this.child.name}`, () => this.child.how);
  }

  #hear(message) {
    // This primary gives no lane.
    if (message.cmd === 'NODE_HAFT' && message.act !== 'lane') this.said.push(message);
    if (message.cmd !== 'NODE_CLUSTER') return;
    const { ack, act, seq } = message;
    if (act === 'queryServer') {
      this.key = `server ${seq}`;
      const sockname = { address: '127.0.0.1', family: 'IPv4', port: message.port || 3000 };
      const answer = { errno: null, key: this.key, ack: seq, data: message.data, sockname };
      this.say({ cmd: 'NODE_CLUSTER', ...answer, seq: this.seq++ });
    }
    if (act === 'listening') this.listens = true;
    if (ack !== undefined) this.unanswered.get(ack)?.destroy();
  }

  #handOver(socket) {
    const { process: worker } = this.child;
    socket.server = null; // or Node would have the worker count the sockets
    if (this.byMessage) return worker.send(this.byMessage, socket);
    const seq = this.seq++;
    this.unanswered.set(seq, socket);
    worker.send({ cmd: 'NODE_CLUSTER', act: 'newconn', key: this.key, seq }, socket._handle);
  }

  /** Node writes by itself what goes with a descriptor, without haft's field: that is added on the way out. */
  #addressesInto(worker) {
    const values = Object.getOwnPropertySymbols(worker).map((symbol) => worker[symbol]);
    const channel = values.find((value) => typeof value?.writeUtf8String === 'function');
    const { writeUtf8String, writeBuffer } = channel;
    const added = (message) => ({ ...message, haft: this.told });
    const isHandle = (handle) => handle !== undefined && handle !== null && this.told;
    channel.writeUtf8String = (request, text, handle) => {
      const line = isHandle(handle) ? `${JSON.stringify(added(JSON.parse(text)))}\n` : text;
      return writeUtf8String.call(channel, request, line, handle);
    };
    channel.writeBuffer = (request, frame, handle) => {
      if (!isHandle(handle)) return writeBuffer.call(channel, request, frame, handle);
      const body = v8.serialize(added(v8.deserialize(frame.subarray(4))));
      const length = Buffer.alloc(4);
      length.writeUInt32BE(body.length);
      return writeBuffer.call(channel, request, Buffer.concat([length, body]), handle);
    };
  }
}
