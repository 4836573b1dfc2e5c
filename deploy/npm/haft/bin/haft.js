#!/usr/bin/env node
// Becomes the haft program that the package for this processor holds.

'use strict';

const { spawn } = require('node:child_process');
const { accessSync, constants } = require('node:fs');
const { optionalDependencies, version } = require('../package.json');

const name = `@haft/${process.platform}-${process.arch}`;
/** What operators send to haft. */
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGTTIN', 'SIGTTOU'];

function refuse(message) {
  process.stderr.write(`haft: error: ${message}\n`);
  process.exit(1);
}

function find() {
  if (!(name in optionalDependencies)) {
    const systems = Object.keys(optionalDependencies).map((it) => it.replace('@haft/', '')).join(' and ');
    refuse(
      `there is no haft program for ${process.platform}-${process.arch}, only for ${systems}. haft passes sockets between ` +
        'processes as Linux does: run it in a container or a virtual machine there (node server.js alone runs anywhere)',
    );
  }
  try {
    // Some package managers put it beside this package, others only below the project.
    return require.resolve(`${name}/bin/haft`, { paths: [__dirname, process.cwd()] });
  } catch {
    return refuse(
      `the package ${name} ${version} is not installed: install haft again without --omit=optional (npm), --no-optional ` +
        '(pnpm) or --ignore-optional (yarn), on the system that it is to run on',
    );
  }
}

function run(program) {
  const child = spawn(program, process.argv.slice(2), { stdio: 'inherit' });
  for (const signal of SIGNALS) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => refuse(`${program} cannot be started: ${error.message}`));
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

const program = find();
try {
  accessSync(program, constants.X_OK);
} catch (error) {
  refuse(`${program} cannot be run: ${error.message}`);
}
// Node 22.15 and newer can become another program, so that no process stays between.
if (process.execve) process.execve(program, [program, ...process.argv.slice(2)], process.env);
else run(program);
