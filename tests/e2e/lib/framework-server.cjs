// The application of node-app.cjs in a framework, as the framework's own documentation puts Socket.IO there:
// `node framework-server.cjs FRAMEWORK`.

const { createServer } = require('node:http');

const { app, page, talk } = require('./node-app.cjs');

const PORT = 3000;
const HOST = '127.0.0.1';

const FRAMEWORKS = {
  async fastify() {
    const fastify = require('fastify')();
    fastify.get('/haft/page.json', (request, reply) => (reply.hijack(), page('fastify')(request.raw, reply.raw)));
    app(fastify.server);
    await fastify.listen({ port: PORT, host: HOST });
  },

  async koa() {
    const Koa = require('koa');
    const koa = new Koa();
    koa.use((context) => {
      Object.assign(context, { respond: false, status: 200 });
      page('koa')(context.req, context.res);
    });
    const server = createServer(koa.callback());
    app(server);
    server.listen(PORT, HOST);
  },

  async hapi() {
    const server = require('@hapi/hapi').server({ port: PORT, host: HOST });
    const handler = ({ raw }, { abandon }) => (page('hapi')(raw.req, raw.res), abandon);
    server.route({ method: 'GET', path: '/haft/page.json', handler });
    app(server.listener);
    await server.start();
  },

  /** Gateways by their decorators, which are functions; TypeScript would only write them in another way. */
  async nest() {
    require('reflect-metadata');
    const { Controller, Get, Module, Req, Res } = await import('@nestjs/common');
    const { NestFactory } = await import('@nestjs/core');
    const { IoAdapter } = await import('@nestjs/platform-socket.io');
    const { WebSocketGateway } = await import('@nestjs/websockets');

    class Gateway {
      afterInit(io) {
        talk(io);
      }
    }
    WebSocketGateway()(Gateway);

    class Pages {
      page(request, response) {
        page('nest')(request, response);
      }
    }
    const method = Object.getOwnPropertyDescriptor(Pages.prototype, 'page');
    Get('haft/page.json')(Pages.prototype, 'page', method);
    Req()(Pages.prototype, 'page', 0);
    Res()(Pages.prototype, 'page', 1);
    Controller()(Pages);

    class App {}
    Module({ controllers: [Pages], providers: [Gateway] })(App);
    const nest = await NestFactory.create(App, { logger: ['error', 'warn'] });
    nest.useWebSocketAdapter(new IoAdapter(nest));
    await nest.listen(PORT, HOST);
  },
};

FRAMEWORKS[process.argv[2]]();
