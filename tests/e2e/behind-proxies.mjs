// Real proxies in front of haft: the application sees the client's address, and that address decides the worker.

import assert from 'node:assert/strict';

import { who } from './lib/app.mjs';
import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { fetchText } from './lib/fetch.mjs';
import { file } from './lib/files.mjs';
import { Home } from './lib/home.mjs';
import { beside, program } from './lib/program.mjs';
import { haproxy, nginx } from './lib/proxies.mjs';
import { Raw } from './lib/raw.mjs';
import { Final, until } from './lib/wait.mjs';

const TRUSTED = ['--trusted-proxy', '127.0.0.1'];
const NODE = ['--', 'node', file('session-server.cjs')];
/** What nginx does unless it is configured to use a connection for several requests. */
const CLOSE = 'proxy_set_header Connection $connection_upgrade;';

const header = (name) => ['--client-ip-header', name, ...TRUSTED];

for (const [name, ...command] of [['the built-in worker'], ['a program of Node', ...NODE]]) {
  program(`${name} sees clients through nginx and HAProxy`, async (place) => {
    const [forwardedFor, realIp, forwarded, proxied] = await Promise.all(
      [header('x-forwarded-for'), header('x-real-ip'), header('forwarded'), ['--proxy-protocol', ...TRUSTED]].map((flags) => {
        return place.haft('-w', '3', ...flags, ...command);
      }),
    );
    const ways = {
      ...(await nginx(place, {
        http: {
          'X-Forwarded-For': `proxy_pass ${forwardedFor.url}; ${CLOSE} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`,
          'X-Real-IP': `proxy_pass ${realIp.url}; ${CLOSE} proxy_set_header X-Real-IP $remote_addr;`,
          Forwarded: `proxy_pass ${forwarded.url}; ${CLOSE} proxy_set_header Forwarded $forwarded_for;`,
        },
        stream: { proxy_protocol: `proxy_pass ${proxied.address}; proxy_protocol on;` },
      })),
      ...(await haproxy(place, {
        'send-proxy': `  mode tcp\n  server haft ${proxied.address} send-proxy`,
        // Its checks of health come with LOCAL.
        'send-proxy-v2': `  mode tcp\n  server haft ${proxied.address} send-proxy-v2 check check-send-proxy inter 500ms`,
        forwardfor: `  mode http\n  option forwardfor\n  server haft ${forwardedFor.address}`,
      })),
    };
    const slots = [];
    for (const [way, address] of Object.entries(ways)) {
      const all = await crowd(place, `http://${address}`, { addresses: 6, each: 2 });
      await assertAllStuck(all).catch((error) => Promise.reject(new Error(`${way}: ${error.message}`, { cause: error })));
      for (const { client, home } of all.members) {
        const { handshake } = await client.hello();
        if (command.length > 0) assert.equal(handshake, home.address, `${way}: handshake.address`);
        client.close();
      }
      slots.push(all.members.map(({ worker }) => worker.slot));
    }
    slots.forEach((some) => assert.deepEqual(some, slots[0], 'a client has its slot, whichever way it comes'));
    assert.ok(new Set(slots[0]).size > 1, 'more than one slot has clients');

    for (const haft of [forwardedFor, realIp, forwarded, proxied]) {
      const { taken, absent, malformed } = await told(haft);
      assert.ok(taken >= 12, `${taken} were told their client`);
      // The check whether the proxy listens sends nothing; then there is neither header nor request.
      assert.deepEqual([absent, malformed], [0, 0]);
      await haft.stop();
    }
  });

  program(`${name} sees clients of IPv6, and behind two proxies`, async (place) => {
    const proxied = await place.haft('-w', '2', '--proxy-protocol', ...TRUSTED, ...command);
    const listed = await place.haft('-w', '2', ...header('x-forwarded-for'), ...command);
    const inner = await nginx(place, {
      http: { inner: `proxy_pass ${listed.url}; ${CLOSE} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;` },
    });
    const outer = await haproxy(place, {
      send_proxy_v2_6: `  mode tcp\n  server haft ${proxied.address} send-proxy-v2`,
      send_proxy_6: `  mode tcp\n  server haft ${proxied.address} send-proxy`,
      twice: `  mode http\n  option forwardfor\n  server nginx ${inner.inner}`,
    });
    for (const [way, home] of [['send_proxy_v2_6', new Home('::1')], ['send_proxy_6', new Home('::1')], ['twice', new Home('127.0.3.3')]]) {
      // What the client says of itself counts for nothing.
      const extraHeaders = { 'X-Forwarded-For': '203.0.113.9' };
      const client = await place.client(`http://${outer[way]}`, home, { extraHeaders }).connected();
      await client.upgraded();
      const { client: seen, handshake } = await client.hello();
      assert.equal(seen.slice(0, seen.lastIndexOf(':')).replace(/[[\]]/g, ''), home.address, way);
      if (command.length > 0) assert.equal(handshake, home.address, way);
    }
    await proxied.stop();
    await listed.stop();
  });

  program(`${name}: headers of untrusted peers are ignored, and malformed ones are counted`, async (place) => {
    const flags = ['--proxy-protocol', ...header('x-forwarded-for')];
    const haft = await place.haft('-w', '2', '--affinity', 'session', ...flags, ...command);
    const ask = async (from, proxyHeader, forwardedFor) => {
      const raw = await Raw.connect(place, haft.address, { localAddress: from });
      const lines = [`GET ${HANDSHAKE} HTTP/1.1`, 'Host: h', 'Connection: close', ...forwardedFor.map((value) => `X-Forwarded-For: ${value}`)];
      raw.write(`${proxyHeader}${lines.join('\r\n')}\r\n\r\n`);
      return (await raw.answer()).status;
    };
    const v1 = 'PROXY TCP4 203.0.113.9 203.0.113.10 4711 80\r\n';
    const counts = async () => ({ ...(await told(haft, 'proxy')), ...prefixed(await told(haft, 'client_ip')) });
    const none = { taken: 0, absent: 0, malformed: 0, headersTaken: 0, headersAbsent: 0, headersMalformed: 0 };
    assert.deepEqual(await counts(), none);

    // A stranger's word counts for nothing; its PROXY header goes to the worker, to which it is no request.
    assert.equal(await ask('127.0.0.9', '', ['198.51.100.1']), 200);
    assert.equal(await ask('127.0.0.9', v1, []), 400);
    assert.deepEqual(await counts(), none);
    await haft.child.heard(/PROXY header.*not one of --trusted-proxy/);

    // What a trusted peer says badly is an error for no client, whose address is not known then.
    assert.equal(await ask('127.0.0.1', '', ['198.51.100.1, nobody']), 200);
    assert.equal(await ask('127.0.0.1', '', ['unknown']), 200);
    assert.equal(await ask('127.0.0.1', '', []), 200);
    assert.deepEqual(await counts(), { ...none, absent: 3, headersAbsent: 1, headersMalformed: 2 });
    // Of a list the right-most hop counts that is no proxy of ours, whatever is left of it.
    assert.equal(await ask('127.0.0.1', '', ['nobody', '198.51.100.1, 127.0.0.1']), 200);
    // A broken PROXY header is skipped, and so is one of a version that there is not.
    assert.equal(await ask('127.0.0.1', 'PROXY TCP4 here there 1 2\r\n', []), 200);
    assert.equal(await ask('127.0.0.1', 'PROXY TCP4 here there 1 2\n', []), 200);
    assert.equal(await ask('127.0.0.1', '\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x04what', []), 200);
    // A PROXY header's client is not trusted unless it is a proxy itself: what it says is not even looked at.
    assert.equal(await ask('127.0.0.1', v1, ['nobody']), 200);
    assert.equal(await ask('127.0.0.1', v1.replace('203.0.113.9', '127.0.0.1'), ['198.51.100.1']), 200);
    assert.deepEqual(await counts(), { ...none, taken: 2, absent: 4, malformed: 3, headersTaken: 2, headersAbsent: 4, headersMalformed: 2 });
    assert.equal((await haft.ledger()).refused, 0);
    await haft.stop();
  });
}

const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';

for (const [name, ...command] of [['the built-in worker'], ['a program of Node', ...NODE]]) {
  program(`${name}: sessions stick behind proxies that use a connection for one client only, as the documentation has them`, async (place) => {
    const haft = await place.haft('-w', '3', '--affinity', 'session', ...header('x-forwarded-for'), ...command);
    const ways = {
      // No `keepalive` in the upstream block.
      ...(await nginx(place, {
        upstreams: `upstream haft { server ${haft.address}; }`,
        http: { nginx: `proxy_pass http://haft; ${CLOSE} proxy_set_header X-Forwarded-For $remote_addr;` },
      })),
      ...(await haproxy(place, {
        haproxy: `  mode http\n  option forwardfor\n  option http-server-close\n  http-reuse never\n  server haft ${haft.address}`,
      })),
    };
    const clients = Object.values(ways).flatMap((way) => Array.from({ length: 24 }, (_, index) => {
      const home = new Home(`127.0.4.${index % 4}`);
      return place.client(`http://${way}`, home, { transports: index % 3 ? ['polling'] : ['polling', 'websocket'] });
    }));
    await Promise.all(clients.map((client) => client.connected()));
    for (let round = 0; round < 5; round++) {
      for (const client of clients) assert.deepEqual(await client.ask('echo', round), [round]);
    }
    for (const { connects, disconnects, errors } of clients) assert.deepEqual([connects, disconnects, errors], [1, [], []]);
    const workers = new Set(await Promise.all(clients.map(async (client) => (await who(client)).slot)));
    assert.equal(workers.size, 3, 'sessions are with all workers');
    clients.forEach((client) => client.close());
    const { refused, respawned } = await haft.ledger();
    assert.deepEqual([refused, respawned], [0, 0]);
    await haft.stop();
  });
}

/** More than haft looks at when it suspects a proxy. */
const MORE = 60;

beside('without the flags for its proxy haft logs once which flags to use', async (place) => {
  let isOver = false;
  place.atEnd(() => (isOver = true));
  const [forwarded, proxied] = [await place.haft('-w', '2'), await place.haft('-w', '2')];
  const { http } = await nginx(place, {
    http: { http: `proxy_pass ${forwarded.url}; ${CLOSE} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;` },
  });
  const { tcp } = await haproxy(place, { tcp: `  mode tcp\n  server haft ${proxied.address} send-proxy` });
  const home = new Home('127.0.0.1');
  const ask = async () => {
    await fetchText(`http://${http}/haft/page.json`, home);
    // To a worker that does not expect it, a PROXY header is no request.
    await fetchText(`http://${tcp}/haft/page.json`, home).catch(() => {});
  };
  const warning = /haft is behind a proxy/;
  const lines = (haft) => haft.child.lines.filter((line) => warning.test(line));
  // It takes a hundred clients within a minute, and one more after it.
  await until('both to say that they are behind a proxy', async () => {
    if (isOver) throw new Final('the other tests are over');
    await ask();
    return lines(forwarded).length > 0 && lines(proxied).length > 0;
  }, { within: 200_000, every: 200 });
  for (let count = 0; count < MORE; count++) await ask();
  for (const [haft, header, flags] of [
    [forwarded, 'x-forwarded-for', '--client-ip-header x-forwarded-for --trusted-proxy 127.0.0.1'],
    [proxied, 'PROXY headers', '--proxy-protocol --trusted-proxy 127.0.0.1'],
  ]) {
    const [line, ...others] = lines(haft);
    assert.deepEqual(others, [], 'it is said once');
    assert.ok(line.includes('WARN') && line.includes(`have the address 127.0.0.1 and bring ${header}:`), line);
    assert.ok(line.endsWith(`Use ${flags} alarm="one_address"`), line);
    await haft.stop();
  }
});

/** The outcomes of what proxies stated: `{ taken, absent, malformed }` of PROXY headers or of others. */
async function told(haft, kind) {
  const counts = async (name) => haft.counts(`haft_${name}_headers_total`, 'outcome');
  if (kind) return counts(kind);
  const [one, other] = [await counts('proxy'), await counts('client_ip')];
  return Object.fromEntries(Object.keys(one).map((outcome) => [outcome, one[outcome] + other[outcome]]));
}

function prefixed({ taken, absent, malformed }) {
  return { headersTaken: taken, headersAbsent: absent, headersMalformed: malformed };
}
