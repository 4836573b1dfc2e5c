// The other side of node-ledger-server.cjs: what the workers have written, and clients that know where they come from.

import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';

/** What each worker has written: `[{ pid, accepted: [ADDRESS:PORT], confirmed }]`. */
export function ledgers(folder) {
  return readdirSync(folder).map((name) => {
    const lines = readFileSync(join(folder, name), 'utf8').split('\n');
    const accepted = lines.filter((line) => line.startsWith('+')).map((line) => line.slice(2));
    return { pid: Number(name), accepted, confirmed: lines.filter((line) => line === '!').length };
  });
}

/** One request over a connection of its own: `{ from, answer }` or `{ from, error }`; `from` is absent if it never connected. */
export function ask({ host, port, path }, localAddress) {
  return new Promise((resolve) => {
    let from;
    const request = http.get({ host, port, path, localAddress, agent: false, timeout: 60_000 }, (response) => {
      response.setEncoding('utf8').toArray().then(([answer]) => resolve({ from, answer }), failed);
    });
    const failed = (error) => resolve({ from, error: error.code ?? error.message });
    request.on('error', failed);
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('socket', (socket) => {
      socket.once('connect', () => (from = `${socket.localAddress}:${socket.localPort}`));
    });
  });
}

/** Numbers in [0, 1) that a seed decides (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
