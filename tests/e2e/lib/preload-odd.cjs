// A program that does what no program should, or what others do that change how modules are loaded.

const http = require('http');
const Module = require('module');

const say = process.send.bind(process);
const called = [];

// As packages that watch what is loaded do.
for (const [owner, name] of [[Module, '_load'], [Module.prototype, 'require'], [Module.prototype, 'load']]) {
  const original = owner[name];
  owner[name] = function (...args) {
    return original.apply(this, args);
  };
}
process.on('internalMessage', (message) => message.cmd === 'NODE_HAFT' && called.push(message.act));
process.send = (message, ...rest) => {
  if (message.cmd === 'NODE_HAFT') throw new Error('not for you');
  return say(message, ...rest);
};

/** Loads a module that exports this. */
function load(name, exported) {
  const module = new Module(`${__dirname}/${name}`, null);
  Module._extensions['.odd'] = () => (module.exports = exported);
  require.cache[module.id] = module;
  module.load(module.id);
}

const { Server } = require('engine.io-5');

class Frozen extends Server {
  generateId() {
    return 'frozen';
  }
  handshake(...args) {
    return super.handshake(...args);
  }
}
Object.freeze(Frozen.prototype);

load('proxy.odd', new Proxy({}, { getOwnPropertyDescriptor: () => called.push('proxy') && null.x, get: () => null.x }));
load('getters.odd', Object.defineProperty({}, 'Server', { get: () => called.push('getter') }));
load('nothing.odd', null);
load('number.odd', 7);
load('looks-like-it.odd', { Server: Object.assign(() => {}, { prototype: { generateId: 1, handshake: null } }) });
load('frozen.odd', { Server: Frozen });

// What is frozen whole.
class Whole extends require('events') {
  constructor() {
    super();
    this.clients = {};
  }
  generateId() {
    return 'whole';
  }
  handshake() {
    return this.generateId();
  }
}
Object.freeze(Whole.prototype);
load('whole.odd', Object.freeze({ Server: Object.freeze(Whole) }));

const server = http.createServer((request, response) => {
  response.end(JSON.stringify({ called, whole: new Whole().handshake() }));
});
new Frozen().attach(server, { path: '/frozen' });
const usual = new Server();
usual.attach(server, { path: '/usual' });
server.listen(3000);
