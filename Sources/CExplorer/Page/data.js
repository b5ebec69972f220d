'use strict';
// The run: its tensors, weights and batch. Names, shapes and formulas are in the element 'run', numbers in 'numbers'.
const run = JSON.parse(document.getElementById('run').textContent);
const text64 = document.getElementById('numbers').textContent;
const batch = run.batch, B = batch.rows, T = batch.columns;
const phases = ['forward', 'backward', 'optimizer'];

// A tensor whose numbers are not on the page.
class Missing extends Error {
  constructor(tensor) { super(tensor.name); this.tensor = tensor; }
}

// float32 values, four bytes each, the lowest first, as every machine with a browser has them.
function decode(at, count) {
  const bytes = atob(text64.slice(at, at + Math.ceil(4 * count / 3) * 4)), out = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) out[i] = bytes.charCodeAt(i);
  return new Float32Array(out.buffer, 0, count);
}

class Tensor {
  constructor(name, shape, at) { Object.assign(this, {name, shape, at, readers: []}); }
  get count() { return this.shape.reduce((n, s) => n * s, 1); }
  get width() { return this.shape[this.shape.length - 1]; }
  get isCarried() { return this.at !== null; }
  get isWeight() { return !this.formula; }
  // Rows are tokens, (B,T,width).
  get isOfTokens() { return this.shape.length === 3; }
  get values() {
    if (!this.isCarried) throw new Missing(this);
    return this.decoded ??= decode(this.at, this.count);
  }
  // The place of an element.
  offset(index) { return index.reduce((n, i, axis) => n * this.shape[axis] + i, 0); }
  value(index) { return this.values[this.offset(index)]; }
  index(offset) {
    const index = [];
    for (const size of [...this.shape].reverse()) { index.unshift(offset % size); offset = Math.floor(offset / size); }
    return index;
  }
}

const weights = run.weights.map(([name, shape, at]) => new Tensor(name, shape, at));
const points = run.points.map(([name, shape, phase, operation, equation, owner, formula, inputs, at], number) => {
  const tensor = new Tensor(name, shape, at);
  return Object.assign(tensor, {
    number, phase: phases[phase], operation: run.texts[operation], equation: run.texts[equation], owner, formula, inputs});
});
for (const point of points) {
  const letters = [];
  for (let i = 0; i < point.inputs.length; i += 2) {
    const [letter, what] = [point.inputs[i], point.inputs[i + 1]];
    const tensor = typeof what !== 'number' ? null : what < 0 ? weights[-1 - what] : points[what];
    letters.push({letter, tensor, name: tensor ? tensor.name : what});
    if (tensor) tensor.readers.push(point);
  }
  point.inputs = letters;
}
const byName = new Map([...weights, ...points].map((tensor) => [tensor.name, tensor]));
const gates = run.gates.map(([adapter, experts, logits, p, choice, w]) =>
  ({adapter, experts, logits: points[logits], p: points[p], choice: points[choice], w: points[w]}));

// Tokens of the batch: b · T + t, which are real, and how they read.
const places = batch.ids.map((id, place) => place).filter((place) => batch.ids[place] !== null);
const isReal = (b, t) => batch.real[b][0] <= t && t < batch.real[b][1];
const isNamed = (id) => batch.names[id] !== undefined;
function spelled(id) {
  const text = batch.names[id];
  return text === undefined ? '#' + id : text === '' ? '∅' : text.replace(/ /g, '␣');
}
const tokenText = (place) => spelled(batch.ids[place]);

// A float32 in as many digits as tell it from every other; a sum of such in as many as a reader can use. Small ones with an exponent.
function exact(value) {
  if (!Number.isFinite(value)) return String(value);
  for (let digits = 1; digits < 9; digits++) if (Math.fround(Number(value.toPrecision(digits))) === value) return brief(value, digits);
  return brief(value, 9);
}
function brief(value, digits = 5) {
  if (!Number.isFinite(value)) return String(value);
  const rounded = Number(value.toPrecision(digits)), isSmall = rounded !== 0 && Math.abs(rounded) < 1e-3;
  return (isSmall ? rounded.toExponential() : String(rounded)).replace('e-', 'e−').replace('e+', 'e').replace(/^-/, '−');
}
