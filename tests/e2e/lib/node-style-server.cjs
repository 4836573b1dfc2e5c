// One server for each of the packages (and the classic script) that pass connections between processes: each style used as
// its README says, primary and worker. `node node-style-server.cjs STYLE [COUNT PORT]`; haft runs the worker's side only.

const cluster = require('node:cluster');
const http = require('node:http');
const net = require('node:net');

const { app, page } = require('./node-app.cjs');

const [style, count = 4, port = 0] = process.argv.slice(2);
const workers = Number(count);

const styles = {
  // Node's own round robin: no stickiness.
  plain() {
    if (!cluster.isPrimary) return serve().listen(port, '127.0.0.1');
    cluster.schedulingPolicy = cluster.SCHED_RR;
    let waiting = workers;
    cluster.on('listening', () => --waiting === 0 && ready());
    for (let index = 0; index < workers; index++) cluster.fork();
  },

  classic() {
    const message = 'sticky-session:connection';
    if (cluster.isPrimary) return byAddress(message);
    const server = serve();
    server.listen(0, 'localhost');
    take((given) => given === message, server);
  },

  'sticky-session'() {
    const server = serve();
    if (!require('sticky-session').listen(server, port, { workers })) server.once('listening', ready);
  },

  'sticky-cluster'() {
    require('sticky-cluster')((done) => done(serve()), { concurrency: workers, port });
    if (cluster.isPrimary) ready();
  },

  'sticky-listen'() {
    if (cluster.isPrimary) return byAddress({ msg: 'sticky:balance', payload: null });
    require('sticky-listen').listen(serve());
  },

  'socketio-sticky-session'() {
    require('socketio-sticky-session')({ num: workers }, serve).listen(port, ready);
  },

  'socket.io-sticky-2'() {
    viaSocketIo('@socket.io/sticky');
  },

  'socket.io-sticky-1'() {
    viaSocketIo('sticky-1');
  },

  // No package's: a message of one's own.
  own() {
    if (cluster.isPrimary) return byAddress({ take: ['this'] });
    take((given) => given?.take?.[0] === 'this', serve());
  },
};

function serve() {
  const server = http.createServer(page(style));
  server.io = app(server);
  return server;
}

function take(mine, server) {
  process.on('message', (message, connection) => {
    if (connection && mine(message)) server.emit('connection', connection);
  });
}

function viaSocketIo(name) {
  const { setupMaster, setupPrimary = setupMaster, setupWorker } = require(name);
  if (!cluster.isPrimary) return setupWorker(serve().io);
  const server = http.createServer();
  setupPrimary(server);
  cluster.setupPrimary({ serialization: 'advanced' });
  for (let index = 0; index < workers; index++) cluster.fork();
  server.listen(port, ready);
}

function byAddress(message) {
  const all = Array.from({ length: workers }, () => cluster.fork());
  const balance = (connection) => {
    const letters = [...(connection.remoteAddress ?? '')];
    const hash = letters.reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, 7);
    all[hash % workers].send(message, connection);
  };
  net.createServer({ pauseOnConnect: true }, balance).listen(port, ready);
}

function ready() {
  console.log(`primary ${process.pid} is ready`);
}

styles[style]();
