// Charts as SVG: bars with the range of the rounds, and curves. They bring their own background, follow the reader's choice of
// light or dark, and use the fonts that are there.

import { count, number } from './figures.mjs';

const WIDTH = 820;
const LEFT = 290;
const RIGHT = 110;
const ROW = 24;

const STYLE = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .back { fill: #ffffff; stroke: #d1d9e0; }
  .title { font-size: 16px; font-weight: 600; }
  .note, .tick { font-size: 12px; fill: #59636e; }
  .group { font-weight: 600; }
  .ours { font-weight: 600; }
  .grid { stroke: #d1d9e0; }
  .bar { fill: #9aa7b4; }
  .bar.ours { fill: #1a7f37; }
  .more { fill: #c9d1d9; }
  .more.ours { fill: #7bc48d; }
  .range { stroke: #1f2328; stroke-width: 1.5; fill: none; }
  .curve { stroke: #1a7f37; stroke-width: 2; fill: none; }
  .point { fill: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .back { fill: #0d1117; stroke: #3d444d; }
    .note, .tick { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .bar { fill: #6e7b88; }
    .bar.ours { fill: #2ea043; }
    .more { fill: #3f4a55; }
    .more.ours { fill: #1c6b30; }
    .range { stroke: #f0f6fc; }
    .curve { stroke: #2ea043; }
    .point { fill: #2ea043; }
  }`;

const escaped = (text) => text.replace(/[&<>"]/g, (letter) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[letter]);

function drawing(height, title, notes, parts) {
  const text = (line, index) => `<text class="note" x="20" y="${50 + index * 17}">${escaped(line)}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escaped(title)}</title><style>${STYLE}\n</style>`,
    `<rect class="back" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="6"/>`,
    `<text class="title" x="20" y="30">${escaped(title)}</text>`,
    ...notes.map(text),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

/** Where the lines of a grid are, from 0: at most six, at round numbers. */
function ticks(most) {
  const rough = (most || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
}

/**
 * Horizontal bars: `groups` is `[{ name, rows: [{ label, ours, figure, more }] }]`, where a figure is
 * `{ median, least, most }`, and `more` an optional second one, that the bar grows to. Below it stands what `unit` says.
 */
export function bars({ title, notes, unit, groups }) {
  const filled = groups.filter(({ rows }) => rows.length > 0);
  const figures = filled.flatMap(({ rows }) => rows.flatMap(({ figure, more }) => [figure, more].filter(Boolean)));
  const most = Math.max(...figures.map((figure) => figure.most));
  const x = (value) => LEFT + (Math.max(0, value) / most) * (WIDTH - LEFT - RIGHT);
  const top = 50 + notes.length * 17;
  const parts = [];
  let y = top;
  for (const { name, rows } of filled) {
    parts.push(`<text class="group" x="20" y="${y + 16}">${escaped(name)}</text>`);
    y += ROW + 2;
    for (const row of rows) {
      parts.push(...bar(row, y, x));
      y += ROW;
    }
    y += 10;
  }
  const grid = ticks(most).map((value) => [
    `<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="${top}" y2="${y}"/>`,
    `<text class="tick" x="${x(value)}" y="${y + 16}" text-anchor="middle">${count(value)}</text>`,
  ].join(''));
  const axis = `<text class="tick" x="${x(most / 2)}" y="${y + 36}" text-anchor="middle">${escaped(unit)}</text>`;
  return drawing(y + 52, title, notes, [...grid, ...parts, axis]);
}

function bar({ label, ours, figure, more }, y, x) {
  const own = ours ? ' ours' : '';
  const box = (kind, from, to) =>
    `<rect class="${kind}${own}" x="${from}" y="${y + 3}" width="${Math.max(1, to - from)}" height="${ROW - 8}"/>`;
  const last = more ?? figure;
  const middle = y + ROW / 2 - 1;
  const said = more ? `${number(figure.median)}, ${number(more.median)}` : number(figure.median);
  return [
    `<text class="label${own}" x="${LEFT - 10}" y="${middle + 5}" text-anchor="end">${escaped(label)}</text>`,
    more ? box('more', x(figure.median), x(more.median)) : '',
    box('bar', x(0), x(figure.median)),
    `<path class="range" d="M${x(last.least)} ${middle - 4}v8m0 -4H${x(last.most)}m0 -4v8"/>`,
    `<text class="${own.trim()}" x="${x(Math.max(last.most, last.median)) + 8}" y="${middle + 5}">${said}</text>`,
  ];
}

/** Two curves beside each other: `panels` is `[{ axis, points: [{ at, figure }] }]`, with one scale for both. */
export function curves({ title, notes, unit, panels }) {
  const most = Math.max(...panels.flatMap(({ points }) => points.map(({ figure }) => figure.most))) * 1.15;
  const [top, height, left, gap] = [60 + notes.length * 17, 220, 60, 50];
  const width = (WIDTH - left - 30 - gap * (panels.length - 1)) / panels.length;
  const y = (value) => top + height - (value / most) * height;
  const parts = [`<text class="tick" x="20" y="${top - 8}">${escaped(unit)}</text>`];
  panels.forEach(({ axis, points }, index) => {
    const start = left + index * (width + gap);
    const x = (place) => start + (width * (place + 0.5)) / points.length;
    for (const value of ticks(most)) {
      parts.push(`<line class="grid" x1="${start}" x2="${start + width}" y1="${y(value)}" y2="${y(value)}"/>`);
      parts.push(`<text class="tick" x="${start - 6}" y="${y(value) + 4}" text-anchor="end">${count(value)}</text>`);
    }
    const path = points.map(({ figure }, place) => `${place ? 'L' : 'M'}${x(place)} ${y(figure.median)}`).join('');
    parts.push(`<path class="curve" d="${path}"/>`);
    points.forEach(({ at, figure: { median, least, most: highest } }, place) => {
      parts.push(`<path class="range" d="M${x(place) - 4} ${y(least)}h8m-4 0V${y(highest)}m-4 0h8"/>`);
      parts.push(`<circle class="point" cx="${x(place)}" cy="${y(median)}" r="4"/>`);
      parts.push(`<text x="${x(place)}" y="${y(highest) - 7}" text-anchor="middle">${number(median)}</text>`);
      parts.push(`<text class="tick" x="${x(place)}" y="${top + height + 18}" text-anchor="middle">${count(at)}</text>`);
    });
    parts.push(`<text class="tick" x="${start + width / 2}" y="${top + height + 40}" text-anchor="middle">${escaped(axis)}</text>`);
  });
  return drawing(top + height + 58, title, notes, parts);
}
