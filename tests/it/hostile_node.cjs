// A Node program with one bad process, the first one of slot 0: asked for /break/HOW, it answers and then breaks the rules
// of its channel to haft, so.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const isBad = process.env.HAFT_SLOT === '0' && process.env.HAFT_WORKER === '1';

/** The channel's descriptor: what Node was started with, since it shows it to nobody. */
const CHANNEL = Number(fs.readFileSync('/proc/self/environ', 'latin1').match(/(?:^|\0)NODE_CHANNEL_FD=(\d+)/)[1]);

/** Writes to the channel, however long it takes and without reading anything meanwhile. */
function write(text) {
  const bytes = Buffer.from(text, 'latin1');
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(CHANNEL, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

const ways = {
  'no-json': () => write('this is no message\n'),
  bytes: () => write(`${String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte))}\n`),
  'empty-lines': () => write('\n\n\n'),
  ack: () => write('{"cmd":"NODE_HANDLE_ACK"}\n'),
  nack: () => write('{"cmd":"NODE_HANDLE_NACK"}\n'),
  reply: () => write('{"cmd":"NODE_CLUSTER","ack":99999,"accepted":true}\n'),
  values: () => write('[]\nnull\n7\n"a"\n{}\n{"cmd":7}\n{"cmd":"NODE_CLUSTER","act":"nothing"}\n'),
  huge: () => write(`"${'x'.repeat(65 << 20)}"\n`),
  half: () => (write('{"cmd":"NODE_'), process.disconnect()),
  disconnect: () => process.disconnect(),
  descriptors: (socket) => {
    // Each waits until the one before was acknowledged.
    for (let count = 0; count < 20; count++) process.send({ count }, socket, { keepOpen: true });
  },
};

http.createServer((request, response) => {
  const how = ways[request.url.slice('/break/'.length)];
  response.end(String(process.pid), () => isBad && how && setTimeout(how, 0, request.socket));
}).listen(3000);
