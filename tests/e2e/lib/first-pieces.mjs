// Requests that are written by hand, in pieces of any size, and what the master's process costs meanwhile.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';

import { to } from './node-requests.mjs';
import { parse } from './metrics.mjs';
import { until, within } from './wait.mjs';

/** A connection whose bytes leave as they are written. */
export async function connect(address, localAddress) {
  const socket = net.connect({ ...to(address), localAddress, noDelay: true });
  await within(60_000, `a connection to ${address}`, once(socket, 'connect'));
  return socket;
}

/** The whole answer to a request that asks for the connection's end, sent in these pieces: `{ status, body }`. */
export async function exchange(address, localAddress, pieces) {
  const socket = await connect(address, localAddress);
  const answer = socket.setEncoding('latin1').toArray();
  // A failure to write shows in the answer, too.
  answer.catch(() => {});
  for (const piece of pieces) {
    await new Promise((resolve, reject) => socket.write(piece, (error) => (error ? reject(error) : resolve())));
    await turn();
  }
  const text = (await within(60_000, 'an answer', answer)).join('');
  const [, status, body] = text.match(/^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n([^]*)$/) ?? [];
  if (!status) throw new Error(`not an answer: ${text.slice(0, 200)}`);
  return { status: Number(status), body };
}

/** The bytes one by one. */
export function single(buffer) {
  return Array.from(buffer, (_, at) => buffer.subarray(at, at + 1));
}

/** The bytes in pieces of random lengths up to `most`. */
export function random(buffer, most) {
  const pieces = [];
  for (let at = 0, length; at < buffer.length; at += length) {
    length = 1 + Math.floor(Math.random() * most);
    pieces.push(buffer.subarray(at, at + length));
  }
  return pieces;
}

/** What a process has used of the CPU, in ticks of 10 ms. */
export function ticks(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** What a process has in memory, in bytes. */
export function resident(pid) {
  return 1024 * Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB$/m)[1]);
}

/** The sum of the samples of one name whose labels have all of `labels`. */
export async function metric(haft, name, labels = '') {
  const found = parse((await haft.get('/metrics')).body).filter((sample) => sample.name === name && sample.labels.includes(labels));
  if (found.length === 0) throw new Error(`no metric ${name}{${labels}}`);
  return found.reduce((sum, { value }) => sum + value, 0);
}

/** Waits until so many connections are held whose first request has not come. */
export function peeking(haft, count, options) {
  return until(`${count} connections to be looked at`, async () => {
    const now = await metric(haft, 'haft_connections_peeking');
    if (now === count) return true;
    throw new Error(`${now}`);
  }, options);
}
