// The text format of Prometheus, as far as a test needs it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;

/** `[{ name, labels, value }]`; a line that is neither comment nor sample is an error. */
export function parse(text) {
  const samples = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const match = line.match(SAMPLE);
    if (!match) throw new Error(`not a sample: ${line}`);
    samples.push({ name: match[1], labels: match[2] ?? '', value: Number(match[3]) });
  }
  return samples;
}

/** The sum over all labels of one name; an error if there is none, lest a misspelt name count as 0. */
export function total(samples, name) {
  const found = samples.filter((sample) => sample.name === name);
  if (found.length === 0) throw new Error(`no metric ${name}`);
  return found.reduce((sum, { value }) => sum + value, 0);
}

/** The values of one name by the value of one label; an error if there is none. Those that differ in other labels are added up. */
export function byLabel(samples, name, label) {
  const found = samples.filter((sample) => sample.name === name);
  if (found.length === 0) throw new Error(`no metric ${name}`);
  const values = {};
  for (const { labels, value } of found) {
    const [, of] = labels.match(new RegExp(`(?:^|,)${label}="([^"]*)"`)) ?? [];
    if (of === undefined) throw new Error(`${name}{${labels}} has no label ${label}`);
    values[of] = (values[of] ?? 0) + value;
  }
  return values;
}
