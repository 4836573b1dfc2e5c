// What clients say to each other while hosts come and go: numbered words to one room, and a ledger of which of them did not
// arrive where, and why.

import { until } from './wait.mjs';

const ROOM = 'all';
/** Words of all speakers together are so many that about as many arrive each second. */
const ARRIVALS = 400;
/** How many speak at the beginning and at the end of a phase. */
const AT_ENDS = 12;
/** How many losses without an explanation a failure shows. */
const SHOWN = 8;

/** Why a word did not arrive somewhere. */
export const REASONS = {
  speaker: "the speaker's session ended",
  hearer: "the hearer's session ended, or it had none",
  redis: 'Redis was away',
  unexplained: 'no reason',
};

export class Talk {
  /** `hostOf(client)`: the host of its session. */
  constructor(clients, hostOf) {
    this.members = clients.map((client, index) => ({ client, index, said: 0, session: undefined, heard: new Map() }));
    this.hostOf = hostOf;
    this.words = [];
    this.faults = [];
    this.turn = 0;
    /** Messages between hosts may be lost. */
    this.isRedisAway = false;
  }

  /** All join the room, now and whenever they come anew. */
  async gather() {
    for (const member of this.members) {
      const { socket } = member.client;
      socket.on('connect', () => this.#join(member));
      socket.on('disconnect', () => (member.session = undefined));
      socket.on('message', ({ text }) => this.#hear(member, ...text.split(' ').map(Number)));
      if (socket.connected) this.#join(member);
    }
    await until('all to be in the room', () => this.areIn());
  }

  areIn() {
    return this.members.every(({ session }) => session);
  }

  #join(member) {
    const { socket } = member.client;
    const id = socket.id;
    socket.emit('join', { room: ROOM, name: `member ${member.index}` }, ({ ok, error }) => {
      if (!ok) this.faults.push(`member ${member.index} cannot join: ${error}`);
      if (socket.id === id) member.session = { id, host: this.hostOf(member.client), joined: performance.now() };
    });
  }

  #hear(member, from, number) {
    const before = member.heard.get(from) ?? -1;
    // A speaker numbers its words through all its sessions: what comes twice is not higher either.
    if (number <= before) this.faults.push(`member ${member.index} hears word ${number} of ${from} after ${before}`);
    member.heard.set(from, number);
    const word = this.words[this.#at(from, number)];
    word?.heard.add(member.index);
  }

  /** Where the word is among those of the present phase. */
  #at(from, number) {
    return this.index.get(`${from} ${number}`);
  }

  /** One says a word, if it is in the room. */
  say(member) {
    if (!member.session) return;
    const word = { from: member.index, number: member.said++, at: performance.now(), session: member.session, isRedisAway: this.isRedisAway, heard: new Set() };
    this.index.set(`${word.from} ${word.number}`, this.words.push(word) - 1);
    member.client.socket.emit('message', { room: ROOM, text: `${word.from} ${word.number}` }, ({ ok, error }) => {
      word.isAnswered = true;
      if (!ok) this.faults.push(`member ${member.index} cannot speak: ${error}`);
    });
  }

  #next() {
    this.say(this.members[this.turn++ % this.members.length]);
  }

  /** So many speak at once. */
  burst(count = AT_ENDS) {
    for (let index = 0; index < count; index++) this.#next();
  }

  /** From now on there is always one that speaks. */
  begin() {
    [this.words, this.index] = [[], new Map()];
    this.resume();
    this.burst();
  }

  resume() {
    this.timer = setInterval(() => this.#next(), (1000 * this.members.length) / ARRIVALS);
  }

  pause() {
    clearInterval(this.timer);
  }

  /** What has not arrived though it should have. */
  missing() {
    return this.#losses().filter(({ why }) => why === 'unexplained');
  }

  #losses() {
    const losses = [];
    for (const word of this.words) {
      for (const hearer of this.members) {
        if (hearer.index === word.from || word.heard.has(hearer.index)) continue;
        losses.push({ word, hearer, why: this.#why(word, hearer) });
      }
    }
    return losses;
  }

  #why(word, hearer) {
    if (this.members[word.from].session !== word.session) return 'speaker';
    if (!hearer.session || hearer.session.joined > word.at) return 'hearer';
    if (word.isRedisAway && hearer.session.host !== word.session.host) return 'redis';
    return 'unexplained';
  }

  /** Words that the speaker's session has no acknowledgement of. */
  #unacknowledged() {
    return this.words.filter((word) => !word.isAnswered && this.members[word.from].session === word.session);
  }

  /** Waits until all has arrived that should, and is acknowledged; no member speaks meanwhile. */
  async settled(what) {
    this.pause();
    await until(`${what}: all to hear all`, () => {
      const missing = this.missing();
      if (missing.length === 0 && this.#unacknowledged().length > 0) throw new Error('words are not acknowledged');
      if (missing.length === 0) return true;
      const [{ word, hearer }] = missing;
      const where = ({ index, session, client }) => `member ${index} (${client.transport}, host ${session.host})`;
      const some = missing.slice(0, SHOWN).map((it) => `${it.word.from}>${it.hearer.index}`).join(' ');
      const ago = ((performance.now() - word.at) / 1000).toFixed(1);
      throw new Error(`${missing.length} are not heard, as one of ${where(this.members[word.from])} ${ago} s ago by ${where(hearer)}; ${some}`);
    });
  }

  /** The ledger of what was said since `begin`. */
  async end(what) {
    this.burst();
    await this.settled(what);
    const lost = {};
    for (const { why } of this.#losses()) lost[why] = (lost[why] ?? 0) + 1;
    const lastLost = Math.max(0, ...this.#losses().filter(({ why }) => why === 'redis').map(({ word }) => word.at));
    return {
      words: this.words.length,
      heard: this.words.reduce((sum, { heard }) => sum + heard.size, 0),
      lost,
      lastLost,
      faults: this.faults.splice(0),
    };
  }
}
