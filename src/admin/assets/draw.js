// Texts and charts.

/** Sets a text only where it differs: what a reader has selected stays selected. */
export function write(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 300;
const HEIGHT = 44;
/** Looks that fill the width, at least and at most. */
const [MIN_SHOWN, MAX_SHOWN] = [12, 300];

/** A chart without axes; `draw` gives it the looks, the newest at the right edge. */
export class Spark {
  constructor(label) {
    this.node = document.createElementNS(SVG, 'svg');
    this.node.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    this.node.setAttribute('preserveAspectRatio', 'none');
    this.node.setAttribute('role', 'img');
    this.node.setAttribute('aria-label', label);
    this.node.setAttribute('class', 'spark');
    [this.area, this.line] = ['area', 'line'].map((name) => {
      const path = document.createElementNS(SVG, 'path');
      path.setAttribute('class', name);
      this.node.append(path);
      return path;
    });
  }

  /** `least`: what fills the height at least, so that noise near zero stays small. Few looks are drawn apart. */
  draw(looks, least) {
    const shown = looks.slice(-MAX_SHOWN);
    const room = Math.max(MIN_SHOWN, shown.length);
    const most = Math.max(least, ...shown);
    const x = (at) => WIDTH - ((shown.length - 1 - at) * WIDTH) / (room - 1);
    const y = (value) => HEIGHT - 2 - (value / most) * (HEIGHT - 6);
    const points = shown.map((value, at) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
    const line = points.length ? `M${points.join('L')}` : '';
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', points.length ? `${line}L${WIDTH} ${HEIGHT}L${x(0).toFixed(1)} ${HEIGHT}Z` : '');
  }
}
