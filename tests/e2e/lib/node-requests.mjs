// Single requests, each over a TCP connection of its own: from an address, to a port or a Unix socket.

import http from 'node:http';
import https from 'node:https';

import { within } from './wait.mjs';

/** The worker that answers, and through which of its servers: `{ worker: { slot, pid }, name }`. */
export async function answer(options, path = '/haft/page.json') {
  const { status, body } = await request({ ...options, path });
  if (status !== 200) throw new Error(`${status} ${body}`);
  return JSON.parse(body);
}

/** `{ status, body }` of one GET. */
export function request(options) {
  const done = new Promise((resolve, reject) => {
    const asked = http.get({ agent: false, ...options }, (response) => {
      const body = response.setEncoding('utf8').toArray();
      body.then((parts) => resolve({ status: response.statusCode, body: parts.join('') }), reject);
    });
    asked.on('error', reject);
  });
  return within(60_000, `an answer to ${options.path}`, done);
}

/** `127.0.0.1:3000` or `[::1]:3000` as options of a request. */
export function to(address) {
  const [, host, port] = address.match(/^\[?(.*?)\]?:(\d+)$/);
  return { host, port: Number(port) };
}

/** A home whose clients speak TLS and trust every certificate. */
export function secure(home) {
  return { address: home.address, agent: new https.Agent({ keepAlive: false, localAddress: home.address, rejectUnauthorized: false }) };
}
