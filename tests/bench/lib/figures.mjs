// What the rounds of a measurement say together: the median, with the least and the most.

/** `{ median, least, most }` of these numbers; undefined if there are none. */
export function spread(numbers) {
  const sorted = numbers.filter(Number.isFinite).sort((one, other) => one - other);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], most: sorted.at(-1) };
}

/** The figures of one contender, by name; sums and differences are taken within each round. */
export class Contender {
  constructor({ key, name, worker, absent, rounds }) {
    Object.assign(this, { key, name, worker, absent, rounds });
  }

  get ours() {
    return this.key.includes('-haft');
  }

  /** Of a name in the rounds, or of what a function makes of a round. */
  of(figure) {
    return spread(this.rounds.map((round) => (typeof figure === 'function' ? figure(round) : round[figure])));
  }
}

/** How many times one is the other, round by round, since what the machine does beside hits both of a round alike. */
export function ratio(one, other, figure) {
  const of = (round) => (typeof figure === 'function' ? figure(round) : round[figure]);
  if (one.rounds.length !== other.rounds.length) {
    const [a, b] = [one.of(figure), other.of(figure)];
    return a && b && spread([a.median / b.median]);
  }
  return spread(one.rounds.map((round, index) => of(round) / of(other.rounds[index])));
}

/** CPU time of balancer and workers together. A contender without a balancer has only workers. */
export const together = (round) => (round.balancer_us ?? 0) + round.workers_us;

/** A number as people read it: three digits that count, thousands apart. */
export function number(value) {
  const size = Math.abs(value);
  // Less than half of the last digit that would be shown is nothing.
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString('en-US', { minimumFractionDigits: size < 0.005 ? 0 : digits, maximumFractionDigits: digits });
}

/** A number of things. */
export const count = (value) => value.toLocaleString('en-US');

/** `median (least to most)`; what a contender does not have is a dash. */
export function told(figure) {
  if (!figure) return '-';
  const { median, least, most } = figure;
  return least === most ? number(median) : `${number(median)} (${number(least)} to ${number(most)})`;
}

export const mebibytes = (kib) => kib && { median: kib.median / 1024, least: kib.least / 1024, most: kib.most / 1024 };
