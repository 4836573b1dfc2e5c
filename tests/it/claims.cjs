// A worker that asks haft for what it may not have: what became of each wish goes to the file that the first argument names.
// The others are wishes: `path:MODE:PATH`, `tcp:PORT`, `udp:PORT`, `data:BYTES` and `address:BYTES` (a query of its own).
'use strict';
const dgram = require('node:dgram');
const { appendFileSync } = require('node:fs');
const net = require('node:net');

const [, , file, ...wishes] = process.argv;
let seq = 1 << 20;

/** Asks without Node's help: what it answers, 0 or an error's number. */
function ask(query) {
  return new Promise((resolve) => {
    const own = seq++;
    const heard = (message) => {
      if (message.ack !== own) return;
      process.off('internalMessage', heard);
      resolve(message.errno ?? 0);
    };
    process.on('internalMessage', heard);
    process.send({ cmd: 'NODE_CLUSTER', act: 'queryServer', seq: own, address: null, port: 0, addressType: 4, fd: null, flags: 0, ...query });
  });
}

function fulfil(wish) {
  const [kind, value, path] = wish.split(':');
  return new Promise((resolve) => {
    const said = (error) => resolve(error?.code ?? 'ok');
    if (kind === 'udp') return void dgram.createSocket('udp4').on('error', said).bind(Number(value), '127.0.0.1', said);
    const server = net.createServer().on('error', said);
    if (kind === 'tcp') return void server.listen({ port: Number(value), host: '127.0.0.1' }, said);
    server.listen({ path, readableAll: value === 'all', writableAll: value === 'all' }, said);
  });
}

(async () => {
  const outcomes = [];
  for (const [index, wish] of wishes.entries()) {
    const [kind, value] = wish.split(':');
    const long = 'x'.repeat(Number(value) || 0);
    if (kind === 'data') outcomes.push(await ask({ index: 1000 + index, data: long }));
    else if (kind === 'address') outcomes.push(await ask({ index: 1000 + index, address: long }));
    else outcomes.push(await fulfil(wish));
  }
  appendFileSync(file, `${JSON.stringify(outcomes)}\n`);
  require('node:http').createServer((_, response) => response.end(String(process.pid))).listen(0, '127.0.0.1');
})();
