// A program without Engine.IO, which may leave its primary. With the path of a key and certificate it talks TLS.

const cluster = require('cluster');
const { readFileSync } = require('fs');
const http = require('http');
const https = require('https');

const answer = ({ socket }, response) => response.end(JSON.stringify({ address: socket.remoteAddress }));
const [, , tls] = process.argv;
const server = tls ? https.createServer(JSON.parse(readFileSync(tls)), answer) : http.createServer(answer);
server.listen(3000);

process.on('message', () => {
  cluster.worker.exitedAfterDisconnect = true; // else Node ends it
  process.disconnect();
  // What comes too late, and gets no answer.
  process.emit('internalMessage', { cmd: 'NODE_HAFT', act: 'linger' });
  server.close(() => console.log('alone'));
});
