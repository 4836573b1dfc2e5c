// The built-in worker and Socket.IO's own server, on Node 20, are sent the same bytes: they give the same answers, keep or
// end the same connections, and close WebSockets with the same codes.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';

import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { Raw } from './lib/raw.mjs';
import { KEY, POLLING, WEBSOCKET, answered, closed, frame, handshake, head, session } from './lib/wire.mjs';

const { path: NODE } = versions.find(({ name }) => name === 'Node 20') ?? versions[0];
const SERVER = fileURLToPath(new URL('lib/npm-server.mjs', import.meta.url));

/** Both servers, and what they have in common: `same(name, ask)` compares what `ask(address)` yields. */
async function both(place) {
  const haft = await place.haft('-w', '1');
  const server = place.child(NODE, SERVER, 'single');
  const [[, address]] = await server.heard(/^listening on (\S+)/);
  const differ = [];
  const same = async (name, ask) => {
    const [ours, theirs] = await Promise.all([haft.address, address].map((each) => ask(each).catch((error) => error.message.slice(0, 60))));
    try {
      assert.deepEqual(ours, theirs);
    } catch {
      differ.push(`${name}: ${JSON.stringify(ours)}, and Node ${JSON.stringify(theirs)}`);
    }
  };
  const end = async () => {
    const { respawned } = await haft.ledger();
    assert.equal(respawned, 0);
    assert.deepEqual(differ, []);
    await haft.stop();
  };
  return { same, end, ours: haft.address };
}

const GET = `GET ${POLLING}&sid=nobody HTTP/1.1`;
const POST = `POST ${POLLING}&sid=nobody HTTP/1.1`;
const chunked = (body, headers = {}) => head(POST, { 'Transfer-Encoding': 'chunked', ...headers }) + body;
const many = (count, length = 1) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`x-${at}`, 'v'.repeat(length)]));

/*
 * Left out, for they differ on purpose: other versions than HTTP/1.0 and 1.1 and unknown transfer codings (Node serves
 * them), absolute targets (Node's path does not match them), HTTP/1.0 with keep-alive (Node closes), PUT to a session (Node
 * answers 500), and a WebSocket with HTTP/1.0 (Node accepts it).
 */

program('heads and bodies', async (place) => {
  const { same, end } = await both(place);
  const cases = {
    'a plain request': head(GET),
    'HTTP/1.1 without Host': head(GET, { Host: undefined }),
    'HTTP/1.1 with an empty Host': head(GET, { Host: '' }),
    'HTTP/1.0 without Host': head(`GET ${POLLING}&sid=nobody HTTP/1.0`, { Host: undefined }),
    'a bare LF after the request line': head(GET).replace('\r\n', '\n'),
    'a bare LF after a header': `${GET}\r\nHost: x\nA: b\r\n\r\n`,
    'a bare LF as the end': `${GET}\r\nHost: x\r\n\n`,
    'bare LFs only': head(GET).replaceAll('\r\n', '\n'),
    'an empty line before': `\r\n${head(GET)}`,
    'a space before the colon': `${GET}\r\nHost : x\r\n\r\n`,
    'a NUL in a value': head(GET, { A: 'a\0b' }),
    'a CR in a value': head(GET, { A: 'a\rb' }),
    'no colon': `${GET}\r\nHost: x\r\nnothing\r\n\r\n`,
    'an empty name': `${GET}\r\nHost: x\r\n: b\r\n\r\n`,
    '90 headers': head(GET, many(90)),
    '150 headers': head(GET, many(150)),
    '900 headers': head(GET, many(900)),
    'headers of 15 KiB': head(GET, many(15, 1024)),
    'headers of 17 KiB': head(GET, many(17, 1024)),
    'a header of 15 KiB': head(GET, { a: 'x'.repeat(15 << 10) }),
    'a header of 17 KiB': head(GET, { a: 'x'.repeat(17 << 10) }),
    'a header of 300 kB': head(GET, { a: 'x'.repeat(300_000) }),
    'an address of 15 KiB': head(`GET ${POLLING}&sid=nobody&a=${'x'.repeat(15 << 10)} HTTP/1.1`),
    'an address of 17 KiB': head(`GET ${POLLING}&sid=nobody&a=${'x'.repeat(17 << 10)} HTTP/1.1`),
    'a version that there is not': head(`GET ${POLLING}&sid=nobody HTTP/1.7`),
    'no HTTP': '\x16\x03\x01 this is no HTTP\r\n\r\n',
    'an unknown method': head(`FOO ${POLLING}&sid=nobody HTTP/1.1`),
    'a method in lower case': head(`get ${POLLING}&sid=nobody HTTP/1.1`),
    'Connection: close': head(GET, { Connection: 'close' }),
    'a body': `${head(POST, { 'Content-Length': 5 })}4abcd`,
    'Content-Length twice, the same': `${head(POST, { 'Content-Length': [5, 5] })}4abcd`,
    'Content-Length twice': `${head(POST, { 'Content-Length': [5, 6] })}4abcd`,
    'Content-Length as a list': `${head(POST, { 'Content-Length': '5, 5' })}4abcd`,
    'Content-Length +5': `${head(POST, { 'Content-Length': '+5' })}4abcd`,
    'Content-Length -5': `${head(POST, { 'Content-Length': '-5' })}4abcd`,
    'Content-Length 5x': `${head(POST, { 'Content-Length': '5x' })}4abcd`,
    'Content-Length and chunked': chunked('5\r\n4abcd\r\n0\r\n\r\n', { 'Content-Length': 5 }),
    'chunked and Content-Length': `${head(POST, { 'Content-Length': 5, 'Transfer-Encoding': 'chunked' })}5\r\n4abcd\r\n0\r\n\r\n`,
    'a transfer coding that is not last': `${head(POST, { 'Transfer-Encoding': 'chunked, gzip' })}0\r\n\r\n`,
    chunked: chunked('5\r\n4abcd\r\n0\r\n\r\n'),
    'chunked, in two': chunked('2\r\n4a\r\n3\r\nbcd\r\n0\r\n\r\n'),
    'a chunk with an extension': chunked('5;a=b\r\n4abcd\r\n0\r\n\r\n'),
    'chunked with a trailer': chunked('5\r\n4abcd\r\n0\r\nA: b\r\n\r\n'),
    'Expect: 100-continue': `${head(POST, { 'Content-Length': 5, Expect: '100-continue' })}4abcd`,
  };
  for (const [name, bytes] of Object.entries(cases)) await same(name, (address) => answered(place, address, bytes));
  await end();
});

program('requests of Engine.IO', async (place) => {
  const { same, end } = await both(place);
  const query = (text) => head(`GET /socket.io/?${text} HTTP/1.1`);
  const cases = {
    'no query': head('GET /socket.io/ HTTP/1.1'),
    'an escaped transport': query('EIO=4&transport=%70olling&sid=nobody'),
    'an escaped name': query('EIO=4&%74ransport=polling&sid=nobody'),
    'an unknown transport': query('EIO=4&transport=grpc'),
    'WebTransport': query('EIO=4&transport=webtransport'),
    'EIO=3': query('EIO=3&transport=polling'),
    'EIO=3 of an unknown session': query('EIO=3&transport=polling&sid=nobody'),
    'no EIO': query('transport=polling'),
    'EIO=5': query('EIO=5&transport=polling'),
    'an unknown session': query('EIO=4&transport=polling&sid=nobody'),
    'an unknown session of 16 characters': query('EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA'),
    'a WebSocket without upgrade': query('EIO=4&transport=websocket'),
    'a WebSocket of an unknown session without upgrade': query('EIO=4&transport=websocket&sid=nobody'),
    'the last transport counts': query('EIO=4&transport=polling&transport=grpc'),
    'POST without a session': `${head(`POST ${POLLING} HTTP/1.1`, { 'Content-Length': 2 })}40`,
    'PUT without a session': head(`PUT ${POLLING} HTTP/1.1`),
    'DELETE without a session': head(`DELETE ${POLLING} HTTP/1.1`),
    'a long POST to an unknown session': `${head(POST, { 'Content-Length': 500_000 })}${'x'.repeat(500_000)}`,
  };
  for (const [name, bytes] of Object.entries(cases)) await same(name, (address) => answered(place, address, bytes));
  const ofSession = {
    'EIO=3': (sid) => query(`EIO=3&transport=polling&sid=${sid}`),
    'another transport': (sid) => query(`EIO=4&transport=websocket&sid=${sid}`),
  };
  for (const [name, bytes] of Object.entries(ofSession)) {
    await same(`${name}, of a session`, async (address) => answered(place, address, bytes(await session(place, address))));
  }
  await same('an escaped session', async (address) => {
    const sid = await session(place, address);
    const escaped = `%${sid.charCodeAt(0).toString(16)}${sid.slice(1)}`;
    return answered(place, address, `${head(`POST ${POLLING}&sid=${escaped} HTTP/1.1`, { 'Content-Length': 2 })}40`);
  });
  await end();
});

program('handshakes of WebSockets', async (place) => {
  const { same, end, ours } = await both(place);
  const close = frame(0x88, Buffer.from([0x03, 0xe8]));
  const cases = {
    'version 12': handshake(WEBSOCKET, { 'Sec-WebSocket-Version': 12 }),
    'no version': handshake(WEBSOCKET, { 'Sec-WebSocket-Version': undefined }),
    'version 8': [handshake(WEBSOCKET, { 'Sec-WebSocket-Version': 8 }), close],
    'no key': handshake(WEBSOCKET, { 'Sec-WebSocket-Key': undefined }),
    'a short key': handshake(WEBSOCKET, { 'Sec-WebSocket-Key': 'abc' }),
    'another key': handshake(WEBSOCKET, { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ=A' }),
    'another protocol': handshake(WEBSOCKET, { Upgrade: 'h2c' }),
    'in capitals': [handshake(WEBSOCKET, { Upgrade: 'WEBSOCKET', Connection: 'keep-alive, UPGRADE' }), close],
    'Connection without upgrade': handshake(WEBSOCKET, { Connection: 'keep-alive' }),
    'Upgrade missing': handshake(WEBSOCKET, { Upgrade: undefined }),
    'POST': handshake(WEBSOCKET, {}, `POST ${WEBSOCKET} HTTP/1.1`),
    'a subprotocol': [handshake(WEBSOCKET, { 'Sec-WebSocket-Protocol': 'b, a' }), close],
    'a bad subprotocol': handshake(WEBSOCKET, { 'Sec-WebSocket-Protocol': 'b,,a' }),
    'an unknown transport': handshake('/socket.io/?EIO=4&transport=grpc'),
    'polling': handshake(POLLING),
    'an unknown session': handshake(`${WEBSOCKET}&sid=nobody`),
    'an unknown session of 16 characters': handshake(`${WEBSOCKET}&sid=AAAAAAAAAAAAAAAA`),
    'an escaped transport': [handshake('/socket.io/?EIO=4&transport=%77ebsocket'), close],
    'a foreign origin': [handshake(WEBSOCKET, { Origin: 'https://evil.example' }), close],
  };
  for (const [name, bytes] of Object.entries(cases)) await same(name, (address) => answered(place, address, bytes));
  const old = head(`GET ${WEBSOCKET} HTTP/1.0`, { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': KEY });
  assert.equal((await answered(place, ours, old)).status, 400, 'HTTP/1.0 cannot be upgraded (RFC 9110, 7.8)');
  await same('EIO=3, of a session', async (address) => {
    return answered(place, address, handshake(`/socket.io/?EIO=3&transport=websocket&sid=${await session(place, address)}`));
  });
  await same('polling, of a session', async (address) => answered(place, address, handshake(`${POLLING}&sid=${await session(place, address)}`)));
  await same('a second one for a session', async (address) => {
    const sid = await session(place, address);
    const first = await Raw.connect(place, address);
    first.write(handshake(`${WEBSOCKET}&sid=${sid}`));
    await first.answer();
    const poll = await Raw.connect(place, address);
    poll.write(head(`GET ${POLLING}&sid=${sid} HTTP/1.1`));
    const during = await answered(place, address, handshake(`${WEBSOCKET}&sid=${sid}`));
    first.write(frame(0x81, '2probe'));
    await poll.answer();
    first.write(frame(0x81, '5'));
    first.write(frame(0x81, '40'));
    const after = await answered(place, address, handshake(`${WEBSOCKET}&sid=${sid}`));
    return { during, after, first: first.ended };
  });
  await end();
});

program('why a WebSocket is closed', async (place) => {
  const { same, end } = await both(place);
  const MAX = 1_000_000;
  const code = (number, reason = '') => Buffer.concat([Buffer.from([number >> 8, number & 255]), Buffer.from(reason)]);
  const cases = {
    'bad UTF-8': [frame(0x81, Buffer.from([0x34, 0xc3, 0x28]))],
    'half a character at the end': [frame(0x81, Buffer.from([0x34, 0xe2, 0x82]))],
    'bad UTF-8 in the second fragment': [frame(0x01, '4'), frame(0x80, Buffer.from([0xff]))],
    'a surrogate': [frame(0x81, Buffer.from([0x34, 0xed, 0xa0, 0x80]))],
    'a reserved bit': [frame(0xc1, '4x')],
    'another reserved bit': [frame(0xa1, '4x')],
    'a reserved opcode': [frame(0x83, 'x')],
    'a reserved control opcode': [frame(0x8b, 'x')],
    'an unmasked frame': [frame(0x81, '4x', { masked: false })],
    'a ping in fragments': [frame(0x09, 'x')],
    'a ping of 126 bytes': [frame(0x89, 'x'.repeat(126))],
    'a continuation of nothing': [frame(0x80, 'x')],
    'a message within a message': [frame(0x01, '4'), frame(0x81, 'x')],
    'a close of one byte': [frame(0x88, 'x')],
    'a close with code 999': [frame(0x88, code(999))],
    'a close with code 1005': [frame(0x88, code(1005))],
    'a close with code 1016': [frame(0x88, code(1016))],
    'a close with code 5000': [frame(0x88, code(5000))],
    'a close with a bad reason': [frame(0x88, Buffer.concat([code(1000), Buffer.from([0xff])]))],
    'a close with code 1000': [frame(0x88, code(1000))],
    'a close with a reason': [frame(0x88, code(4000, 'enough'))],
    'an empty close': [frame(0x88)],
    'a close between fragments': [frame(0x01, '4'), frame(0x88, code(1000))],
    'a message too long': [frame(0x81, '', { length: MAX + 1 })],
    'a message far too long': [frame(0x82, '', { length: 2 ** 40 })],
    'fragments too long': [frame(0x01, '4'.repeat(MAX)), frame(0x80, 'xx')],
    'no packet of Engine.IO': [frame(0x81, 'x')],
    'an empty message': [frame(0x81, '')],
    'a packet of Socket.IO that is none': [frame(0x81, '4x')],
  };
  for (const [name, parts] of Object.entries(cases)) {
    await same(name, (address) => closed(place, address, parts));
    await same(`${name}, after a greeting`, (address) => closed(place, address, [frame(0x81, '40'), ...parts]));
  }
  await end();
});
