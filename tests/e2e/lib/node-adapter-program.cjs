// What the programs with @socket.io/cluster-adapter do: a client can make them reach all clients, on every worker, in
// each way that the adapter has.

/** Answers `{ error }` or `{ value }`. */
const answered = (promise, done) => promise.then((value) => done({ value }), ({ message }) => done({ error: message }));

exports.serveOn = (io) => {
  io.on('connection', (socket) => {
    socket.emit('hello', { pid: process.pid });
    socket.on('broadcast', (payload, done) => (io.emit('all', payload), done()));
    socket.on('to room', (room, payload, done) => (io.to(room).emit('all', payload), done()));
    socket.on('join', (room, done) => (socket.join(room), done()));
    socket.on('ask', (payload, done) => answered(io.timeout(10_000).emitWithAck('question', payload), done));
    socket.on('sockets', (done) => answered(io.fetchSockets().then((all) => all.map(({ id }) => id)), done));
    socket.on('side', (payload, done) => answered(io.serverSideEmitWithAck('side', payload), done));
  });
  io.on('side', (payload, answer) => answer({ pid: process.pid, payload }));
};
