// Programs whose libraries speak to a primary of their own: `node clustered-server.cjs LIBRARY`. Each request makes one
// of them do so.

const { createServer } = require('node:http');

const LIBRARIES = {
  log4js() {
    const log4js = require('log4js');
    log4js.configure({
      appenders: { out: { type: 'stdout' } },
      categories: { default: { appenders: ['out'], level: 'info' } },
    });
    const logger = log4js.getLogger();
    return async () => logger.info('a line that nobody writes', 'x'.repeat(10_000));
  },

  limiter() {
    const { RateLimiterCluster } = require('rate-limiter-flexible');
    const limiter = new RateLimiterCluster({ keyPrefix: 'tests', points: 5, duration: 1, timeoutMs: 200 });
    return () => limiter.consume('a client');
  },
};

const work = LIBRARIES[process.argv[2]]();
createServer((request, response) => {
  work().then(() => response.end('done'), () => response.writeHead(500).end('failed'));
}).listen(3000, '127.0.0.1');
