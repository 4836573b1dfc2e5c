// preload-app.cjs, all of it CommonJS.

const { run } = require('./preload-app.cjs');

const engines = Object.fromEntries([3, 4, 5, 6].map((version) => [version, require(`engine.io-${version}`).Server]));
run(engines, require('socket.io').Server);
