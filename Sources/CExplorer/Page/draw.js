// Elements, and pictures of numbers. What color says, position or form says as well: bars go up for + and down for −.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
function svg(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A color of the style sheet, as the theme has it.
function ink(name) {
  const probe = document.getElementById('probe');
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// A canvas of a size in CSS pixels, sharp on every screen.
function canvas(node, width, height) {
  const scale = Math.max(1, window.devicePixelRatio || 1);
  [node.width, node.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = node.getContext('2d');
  context.scale(scale, scale);
  return context;
}

// The largest magnitude; 0 where nothing is finite.
const largest = (values) => { let most = 0; for (const x of values) if (Math.abs(x) > most && Number.isFinite(x)) most = Math.abs(x); return most; };

// Several numbers that share a place: the largest of them stands for all.
function binned(values, bins) {
  if (values.length <= bins) return values;
  return range(0, bins).map((n) => {
    let best = 0;
    for (let i = Math.floor(n * values.length / bins); i < Math.floor((n + 1) * values.length / bins); i++)
      if (Math.abs(values[i]) > Math.abs(best)) best = values[i];
    return best;
  });
}

// Numbers as bars about a middle line, all on the scale of `most`.
function bars(node, values, {width, height, most = largest(values), selected = -1}) {
  const c = canvas(node, width, height), middle = height / 2, shown = binned(values, Math.floor(width)), step = width / shown.length;
  const colors = [ink('positive'), ink('negative')], thick = Math.min(Math.max(step - (step > 4 ? 1 : 0), 0.6), 28);
  c.fillStyle = ink('line');
  c.fillRect(0, middle - 0.5, width, 1);
  shown.forEach((x, i) => {
    if (!Number.isFinite(x)) return;
    const size = most > 0 ? Math.abs(x) / most * (middle - 1) : 0, length = x === 0 ? 0 : Math.max(size, 0.75);
    c.fillStyle = colors[x < 0 ? 1 : 0];
    c.fillRect(i * step + (step > 28 ? (step - thick) / 2 : 0), x < 0 ? middle : middle - length, thick, length);
  });
  if (selected < 0) return;
  const at = (Math.floor(selected * shown.length / values.length) + 0.5) * step;
  c.fillStyle = ink('text');
  for (const side of [1, -1]) {
    c.beginPath();
    c.moveTo(at, middle + side * (middle - 7));
    c.lineTo(at - 4, middle + side * middle);
    c.lineTo(at + 4, middle + side * middle);
    c.fill();
  }
}

// A matrix from above, a row a line; the stronger the color, the larger the number. The selected element is framed.
function heat(node, tensor, {width, height, row = -1, column = -1}) {
  const c = canvas(node, width, height), rows = tensor.count / tensor.width, values = tensor.values, most = largest(values);
  const columns = Math.min(tensor.width, Math.floor(width)), lines = Math.min(rows, Math.floor(height));
  const [dx, dy] = [width / columns, height / lines], colors = [ink('positive'), ink('negative')];
  for (let line = 0; line < lines; line++) {
    const from = Math.floor(line * rows / lines);
    const shown = binned(values.subarray(from * tensor.width, (from + 1) * tensor.width), columns);
    shown.forEach((x, i) => {
      if (!(most > 0) || !Number.isFinite(x) || x === 0) return;
      c.globalAlpha = Math.sqrt(Math.abs(x) / most);
      c.fillStyle = colors[x < 0 ? 1 : 0];
      c.fillRect(i * dx, line * dy, dx + 0.3, dy + (dy > 3 ? -0.5 : 0.3));
    });
  }
  c.globalAlpha = 1;
  if (row < 0) return;
  c.strokeStyle = ink('text');
  c.strokeRect(0.5, Math.floor(row * lines / rows) * dy + 0.5, width - 1, Math.max(dy - 1, 2));
  if (column >= 0) c.strokeRect(Math.floor(column * columns / tensor.width) * dx - 1, Math.floor(row * lines / rows) * dy - 1, dx + 2, dy + 2);
}

// Lines over steps, each with its own dashes and its name at its end; `level` is a line to compare with.
function lines(series, {width, height, most, level, unit}) {
  const [left, right, top, bottom] = [44, 34, 10, 22], last = run.training.at.length - 1;
  const x = (i) => left + (width - left - right) * (last > 0 ? run.training.at[i] / run.training.steps : 1);
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const node = svg('svg', {viewBox: `0 0 ${width} ${height}`, class: 'lines', role: 'img', 'aria-label': unit});
  for (const share of [0, 0.5, 1]) {
    node.append(svg('line', {x1: left, x2: width - right, y1: y(share * most), y2: y(share * most), class: 'grid'}),
      svg('text', {x: left - 6, y: y(share * most) + 4, 'text-anchor': 'end'}, brief(share * most, 2)));
  }
  if (level !== undefined) node.append(svg('line', {x1: left, x2: width - right, y1: y(level), y2: y(level), class: 'level'}));
  node.append(svg('text', {x: left, y: height - 6}, `step ${run.training.at[0]}`),
    svg('text', {x: width - right, y: height - 6, 'text-anchor': 'end'}, String(run.training.steps)));
  // Names keep a distance; the order of the ends stays.
  const ends = series.map((one, n) => ({n, y: y(one.values[last])})).sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i > 0) end.y = Math.max(end.y, ends[i - 1].y + 11); });
  const over = ends.length ? Math.max(0, ends[ends.length - 1].y - (height - bottom)) : 0;
  series.forEach((one, n) => node.append(
    svg('polyline', {points: one.values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(' '), class: `series s${n % 8}`}),
    svg('text', {x: width - right + 5, y: ends.find((end) => end.n === n).y - over + 4, class: 'name'}, one.name)));
  return node;
}
