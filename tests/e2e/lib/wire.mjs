// What a server makes of bytes: its answers, how its WebSockets end, and whether it keeps the connection. For comparing
// servers with each other.

import { Raw } from './raw.mjs';
import { until } from './wait.mjs';

export const POLLING = '/socket.io/?EIO=4&transport=polling';
export const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';
export const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';

/** A head as bytes; `undefined` leaves a header out. */
export function head(line, headers = {}) {
  const lines = Object.entries({ Host: 'x', ...headers }).filter(([, value]) => value !== undefined);
  return `${line}\r\n${lines.flatMap(([name, value]) => [value].flat().map((each) => `${name}: ${each}\r\n`)).join('')}\r\n`;
}

export function handshake(path = WEBSOCKET, headers = {}, line = `GET ${path} HTTP/1.1`) {
  return head(line, { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': KEY, ...headers });
}

/** A frame as a client sends it. */
export function frame(first, payload = '', { masked = true, length } = {}) {
  const body = Buffer.from(payload);
  const said = length ?? body.length;
  const mask = Buffer.from([1, 2, 3, 4]);
  const sizes = said < 126 ? [said] : said < 65536 ? [126, said >> 8, said & 255] : [127, ...bytesOf(said)];
  sizes[0] |= masked ? 0x80 : 0;
  const data = masked ? body.map((byte, at) => byte ^ mask[at % 4]) : body;
  return Buffer.concat([Buffer.from([first, ...sizes]), masked ? mask : Buffer.alloc(0), data]);
}

function bytesOf(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return [...bytes];
}

/** A polling session. */
export async function session(place, address) {
  const raw = await Raw.connect(place, address);
  raw.write(head(`GET ${POLLING} HTTP/1.1`, { Connection: 'close' }));
  const { body } = await raw.answer();
  return JSON.parse(body.toString().slice(1)).sid;
}

/** One answer to these bytes, and whether the connection is of use afterwards: `{ status, body, version, ends }`. */
export async function answered(place, address, bytes) {
  const raw = await Raw.connect(place, address);
  await raw.writeParts([bytes].flat());
  const first = await raw.answer();
  if (first.status === 100) Object.assign(first, await raw.answer(), { continued: true });
  if (first.status === 101) return { status: 101, code: await closeCode(raw), protocol: first.headers['sec-websocket-protocol'] };
  raw.write(head(`GET ${POLLING}&sid=nobody HTTP/1.1`));
  const ends = await until('another answer or the end', () => (raw.ended && 'ends') || (/^HTTP/.test(raw.received) && 'stays'));
  raw.close();
  const isOfEngine = /^\{"code"|^[A-Z][a-zA-Z -]+$/.test(first.body);
  const outcome = { status: first.status, version: first.headers['sec-websocket-version'], continued: first.continued, ends };
  return { ...outcome, body: isOfEngine ? `${first.body}` : undefined };
}

/** The code of the close frame that comes, after whatever else; `none` if the connection ends without. */
export async function closeCode(raw) {
  return until('a close frame or the end', () => {
    for (const { first, payload } of frames(raw.received)) {
      if ((first & 0x0f) === 8) return payload.length < 2 ? 'empty' : payload.readUInt16BE(0);
    }
    return raw.ended && 'none';
  });
}

/** How a WebSocket ends to which these frames are sent. */
export async function closed(place, address, parts, path = WEBSOCKET) {
  const raw = await Raw.connect(place, address);
  raw.write(handshake(path));
  const { status } = await raw.answer();
  if (status !== 101) throw new Error(`${status}`);
  raw.write(Buffer.concat(parts));
  const code = await closeCode(raw);
  raw.close();
  return code;
}

/** The whole frames of a server at the front. */
function frames(bytes) {
  const found = [];
  for (let at = 0; at + 2 <= bytes.length; ) {
    const short = bytes[at + 1] & 0x7f;
    const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
    if (bytes.length < at + 2 + extra) break;
    const length = extra === 0 ? short : extra === 2 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2));
    const end = at + 2 + extra + length;
    if (bytes.length < end) break;
    found.push({ first: bytes[at], payload: bytes.subarray(at + 2 + extra, end) });
    at = end;
  }
  return found;
}
