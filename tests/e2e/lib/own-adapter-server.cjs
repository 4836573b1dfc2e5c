// Socket.IO with an adapter for several servers: `node own-adapter-server.cjs KIND URL`. It listens as a program of one
// process does, and a client can have it run any line of Socket.IO's, as node-rooms-program.cjs has it.

const { createServer } = require('node:http');
const { Server } = require('socket.io');

const [, , kind, url] = process.argv;

/** Each way that the adapters' own documentation has. */
const ADAPTERS = {
  async redis() {
    const { createClient } = require('redis');
    const [publisher, subscriber] = [createClient({ url }), createClient({ url })];
    await Promise.all([publisher.connect(), subscriber.connect()]);
    return { adapter: require('@socket.io/redis-adapter').createAdapter(publisher, subscriber) };
  },
  async streams() {
    const client = require('redis').createClient({ url });
    await client.connect();
    return {
      adapter: require('@socket.io/redis-streams-adapter').createAdapter(client),
      connectionStateRecovery: { maxDisconnectionDuration: 60_000 },
    };
  },
  async postgres() {
    const pool = new (require('pg').Pool)({ connectionString: url });
    await pool.query(`CREATE TABLE IF NOT EXISTS socket_io_attachments (
      id bigserial UNIQUE, created_at timestamptz DEFAULT NOW(), payload bytea)`).catch(({ code }) => {
      // Two workers made it at once.
      if (code !== '23505' && code !== '42P07') throw new Error(`the table cannot be made: ${code}`);
    });
    return { adapter: require('@socket.io/postgres-adapter').createAdapter(pool) };
  },
};

const server = createServer();
ADAPTERS[kind]().then((options) => {
  require('./node-rooms-program.cjs').serveOn(server, new Server(server, options));
  server.listen(0, '127.0.0.1');
});
