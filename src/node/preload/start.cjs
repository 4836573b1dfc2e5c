// --- Start ----------------------------------------------------------------------------------------------------------

/** Whether Node itself has opened the channel: in the process that haft started, and in no thread or child of it. */
function hasChannel() {
  if (env.HAFT_SLOT === undefined || typeof process.send !== 'function') return false;
  const { isWorker, worker } = require('cluster');
  return isWorker && String(worker.id) === env.HAFT_WORKER;
}

/** Last in the file: all that it uses is there by then. */
function start() {
  const offer = attempt(offered);
  const key = env.HAFT_TAG_KEY;
  // Without haft the variables are the program's own.
  if (!offer) attempt(env.HAFT_SLOT === undefined ? takeOutOfOptions : cleanEnvironment);
  if (!offer && !attempt(hasChannel)) {
    attempt(watchThread);
    return;
  }
  const tags = key ? attempt(() => tagger(key)) : undefined;
  tagging = tags !== undefined;
  // From the beginning: what serves is loaded before it listens.
  const search = attempt(() => watchModules(tags)) || (() => {});
  attempt(watchListening);
  attempt(watchThreads);
  const begin = () => {
    attempt(tellFigures);
    attempt(cleanEnvironment);
    attempt(outliveMaster);
    attempt(watchSignals);
    attempt(watchForking);
    attempt(() => listenToHaft(() => {
      attempt(search);
      attempt(watchUpgrades);
    }));
    attempt(sayPending);
    attempt(askForLane);
  };
  if (offer) attempt(() => awaitChannel(offer, begin));
  else {
    begin();
    // The command that haft has started names this worker's own port.
    attempt(() => moveInspector(0));
  }
}

start();
