// An ordinary program of Node, which knows nothing of clusters: `node server.cjs`. Sessions that polled only once are
// forgotten soon.

const http = require('node:http');

const { app, page } = require('../e2e/lib/node-app.cjs');

const server = http.createServer(page('chaos'));
app(server, { pingInterval: 2_000, pingTimeout: 3_000 });
server.listen(3000, '127.0.0.1');
// A stopped process stands for one that hangs. Only to a stopped one does the kernel send this when its parent dies.
process.on('SIGHUP', () => {});
