// Turns successive snapshots of /status into what is shown. No document and no clock: as `haft top` does it.

/** Looks that are remembered: five minutes. */
export const MAX_LOOKS = 300;
const MAX_EVENTS = 100;

const per = (now, before, seconds) => (seconds > 0 ? Math.max(0, (now - before) / seconds) : 0);
const sum = (numbers) => numbers.reduce((all, number) => all + (number ?? 0), 0);

/** What a slot's state is called, with all that keeps clients away. */
export function condition(slot) {
  const also = [['hung', 'hung'], ['drained', 'drained'], ['restarting', 'restarting'], ['listens_on_nothing', 'no server'], ['kept_out', 'kept out']];
  return [slot.state, ...also.filter(([name]) => slot[name]).map(([, word]) => word)].join(', ');
}

/** How serious it is: good, warn or bad. */
export function mood(slot) {
  if (slot.state === 'gone' || slot.kept_out) return 'bad';
  return slot.state === 'ready' && !slot.hung && !slot.drained && !slot.listens_on_nothing ? 'good' : 'warn';
}

function sessions(slot) {
  const reported = ['polling_sessions', 'websocket_sessions', 'other_sessions'].map((name) => slot.reported?.[name]);
  return reported.some((count) => count !== undefined) ? sum(reported) : slot.sessions;
}

/** Causes for which haft replaces a worker by itself. */
const cared = ['memory', 'age'];

/** A slot as a row; `before` is the same slot at the last look, so many seconds ago. */
export function row(slot, before, seconds) {
  const same = before?.worker === slot.worker && slot.process && before.process && seconds > 0;
  const delay = slot.reported?.loop_delay_p99;
  return {
    slot,
    condition: condition(slot),
    mood: mood(slot),
    cpu: same ? 100 * per(slot.process.cpu_seconds, before.process.cpu_seconds, seconds) : null,
    memory: slot.process?.resident_bytes ?? null,
    delay: delay === undefined ? null : delay / 1e6,
    connections: slot.reported?.open_connections ?? slot.open,
    sessions: sessions(slot) ?? null,
    rate: before ? per(slot.delivered, before.delivered, seconds) : 0,
    restarts: slot.respawned + cared.reduce((all, cause) => all + (slot.replaced?.[cause] ?? 0), 0),
    pending: slot.in_flight + slot.held,
    exit: slot.last_exit?.description ?? '',
  };
}

/** What has happened between two looks, in words: `[kind, text]`. */
export function happenings(before, now) {
  const texts = [];
  const say = (kind, text) => texts.push([kind, text]);
  for (const slot of now.slots) {
    const old = before.slots.find((old) => old.slot === slot.slot);
    if (!old) continue;
    const name = `Slot ${slot.slot}`;
    if (slot.respawned > old.respawned) {
      say('bad', `${name}: its worker died (${slot.last_exit?.description ?? 'unknown'}) and was replaced`);
    } else if (cared.some((cause) => (slot.replaced?.[cause] ?? 0) > (old.replaced?.[cause] ?? 0))) {
      const cause = cared.find((cause) => (slot.replaced[cause] ?? 0) > (old.replaced?.[cause] ?? 0));
      say('warn', `${name}: its worker was replaced (${cause})`);
    } else if (slot.worker !== old.worker && slot.worker > 0) {
      say('good', `${name}: worker ${slot.worker} of generation ${slot.generation}`);
    }
    for (const [what, begins, ends] of [
      ['hung', 'its worker hangs', 'its worker answers again'],
      ['drained', 'drained', 'takes its clients again'],
      ['kept_out', 'kept out: its workers ended too often', 'gets workers again'],
    ]) {
      if (slot[what] !== old[what]) say(slot[what] ? 'warn' : 'good', `${name}: ${slot[what] ? begins : ends}`);
    }
  }
  if (before.slots.length !== now.slots.length) say('good', `From ${before.slots.length} to ${now.slots.length} slots`);
  for (const [reason, count] of Object.entries(now.refused)) {
    const more = count - (before.refused[reason] ?? 0);
    if (more > 0) say('bad', `${more} connection${more === 1 ? '' : 's'} refused: ${reason}`);
  }
  for (const alarm of now.alarms ?? []) {
    const was = before.alarms?.find((old) => old.alarm === alarm.alarm)?.active ?? false;
    if (alarm.active && !was) say('bad', `Alarm: ${alarm.line}`);
    if (!alarm.active && was) say('good', `Over: ${alarm.alarm}`);
  }
  const state = ({ reload }) => JSON.stringify([reload?.state, reload?.unix_time]);
  if (now.reload && state(now) !== state(before)) {
    say({ under_way: 'warn', done: 'good' }[now.reload.state] ?? 'bad', now.reload.description);
  }
  if (now.stopping && !before.stopping) say('warn', 'haft stops');
  return texts;
}

/** What is known of a master over time. */
export class Model {
  status = null;
  rows = [];
  events = [];
  #at = 0;
  /** Of each look: the totals, and for each slot its figures. */
  totals = { rate: [], cpu: [], open: [], delay: [] };
  series = new Map();

  /** Takes in a look; `at` and `unix` are milliseconds, of a clock that is never set and since 1970. */
  take(status, at, unix) {
    const before = this.status?.pid === status.pid ? this.status : null;
    const seconds = before ? (at - this.#at) / 1000 : 0;
    if (this.status && !before) this.#note(unix, 'warn', 'Another haft is here now');
    if (!before) this.#begin(status);
    else for (const [kind, text] of happenings(before, status)) this.#note(unix, kind, text);
    this.rows = status.slots.map((slot) => row(slot, before?.slots.find((old) => old.slot === slot.slot), seconds));
    this.status = status;
    this.#at = at;
    if (before) this.#remember();
  }

  /** What had happened before the first look. */
  #begin(status) {
    this.series.clear();
    for (const looks of Object.values(this.totals)) looks.length = 0;
    const exits = status.slots.filter((slot) => slot.last_exit).sort((a, b) => a.last_exit.unix_time - b.last_exit.unix_time);
    for (const { slot, last_exit: exit } of exits) this.#note(exit.unix_time * 1000, 'bad', `Slot ${slot}: a worker ended: ${exit.description}`);
    for (const alarm of status.alarms ?? []) {
      if (alarm.active) this.#note((alarm.unix_time ?? 0) * 1000, 'bad', `Alarm: ${alarm.line}`);
    }
  }

  #note(unix, kind, text) {
    this.events.unshift({ unix, kind, text });
    this.events.length = Math.min(this.events.length, MAX_EVENTS);
  }

  #remember() {
    const { rows, totals } = this;
    push(totals.rate, sum(rows.map((row) => row.rate)));
    push(totals.cpu, sum(rows.map((row) => row.cpu)));
    push(totals.open, sum(rows.map((row) => row.connections)));
    push(totals.delay, Math.max(0, ...rows.map((row) => row.delay ?? 0)));
    for (const { slot, rate, cpu, delay, memory } of rows) {
      if (!this.series.has(slot.slot)) this.series.set(slot.slot, { rate: [], cpu: [], delay: [], memory: [] });
      const series = this.series.get(slot.slot);
      for (const [name, value] of Object.entries({ rate, cpu, delay, memory })) push(series[name], value ?? 0);
    }
    for (const slot of this.series.keys()) {
      if (!rows.some((row) => row.slot.slot === slot)) this.series.delete(slot);
    }
  }

  /** Rows that match, in this order. */
  shown(filter, key, descending) {
    const wanted = filter.trim().toLowerCase();
    const text = ({ slot, condition, exit }) => `${slot.slot} ${condition} ${slot.pid ?? ''} ${exit}`.toLowerCase();
    const rows = this.rows.filter((row) => text(row).includes(wanted));
    const order = (a, b) => (typeof a === 'string' ? a.localeCompare(b) : a - b);
    rows.sort((a, b) => (descending ? -1 : 1) * order(key(a) ?? -1, key(b) ?? -1) || a.slot.slot - b.slot.slot);
    return rows;
  }

  /** How far a reload has come, while one is under way: `[done, of]`. */
  progress() {
    const { status } = this;
    if (status?.reload?.state !== 'under_way') return null;
    return [status.slots.filter((slot) => slot.generation === status.generation).length, status.slots.length];
  }
}

function push(looks, value) {
  looks.push(value);
  if (looks.length > MAX_LOOKS) looks.shift();
}

/** A time that has passed, in two units at most. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, '0');
  const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days}d ${two(hours)}h`;
  if (hours) return `${hours}h ${two(minutes)}m`;
  return minutes ? `${minutes}m ${two(whole % 60)}s` : `${whole}s`;
}

/** Bytes in three digits. */
export function bytes(count) {
  const mib = count / 2 ** 20;
  if (mib >= 1000) return `${(mib / 1024).toFixed(1)} GiB`;
  return `${mib.toFixed(mib >= 10 ? 0 : 1)} MiB`;
}
