// --- Start ----------------------------------------------------------------------------------------------------------

/** What starts the program in a process of its own: it has the channel, and no use for it. */
const WRAPPER = /^(npm(-cli)?|npx(-cli)?|yarn(pkg)?(-[\d.]+)?|pnpm|pnpx|corepack)(\.[cm]?js)?$/;

/** Whether this is the process of a program that is a worker of haft's, and no thread or child of it. */
function isWorker() {
  if (env.HAFT_SLOT === undefined || typeof send !== 'function') return false;
  if (WRAPPER.test(String(process.argv[1]).split('/').pop())) return false;
  const { isWorker, worker } = require('cluster');
  return isWorker && String(worker.id) === env.HAFT_WORKER;
}

/** Last in the file: all that it uses is there by then. */
function start() {
  attempt(takeOutOfOptions);
  const key = env.HAFT_TAG_KEY;
  const is = attempt(isWorker);
  if (env.HAFT_SLOT !== undefined) delete env.HAFT_TAG_KEY; // not for the program, nor for what it starts
  if (!is) return;
  const tags = key ? attempt(() => tagger(key)) : undefined;
  tagging = tags !== undefined;
  const search = attempt(() => watchModules(tags)) || (() => {});
  attempt(outliveMaster);
  attempt(watchSignals);
  attempt(() => listenToHaft(() => {
    attempt(search);
    attempt(watchUpgrades);
  }));
}

start();
