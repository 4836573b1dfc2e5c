// Answers with the version of HTTP that was spoken and its own identity, on one port: without TLS, and with it HTTP/2
// or HTTP/1.1. What a client speaks is seen by its first byte.

const { readFileSync } = require('fs');
const http = require('http');
const http2 = require('http2');
const net = require('net');

const answer = (request, response) => {
  const say = () => response.end(JSON.stringify({ version: request.httpVersion, tls: Boolean(request.socket.encrypted), pid: process.pid }));
  if (request.url === '/slow') setTimeout(say, 1000);
  else say();
};
const plain = http.createServer(answer);
const secure = http2.createSecureServer({ ...JSON.parse(readFileSync(process.argv[2])), allowHTTP1: true }, answer);

const TLS_HANDSHAKE = 22;
const both = net.createServer((socket) => {
  socket.on('error', () => {});
  socket.once('readable', () => {
    const first = socket.read();
    if (!first) return;
    socket.unshift(first);
    (first[0] === TLS_HANDSHAKE ? secure : plain).emit('connection', socket);
  });
});
secure.on('sessionError', () => {});
(process.argv[3] === 'secure' ? secure : both).listen(3000);
