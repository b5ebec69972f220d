// One tensor and one of its numbers: its row, all of it, and the terms that form the number.

// A name of an element, as the address of the page has it and 'mixlora step' reads it.
const spell = (tensor, index) => index.length ? `${tensor.name}[${index}]` : tensor.name;

// A link to a tensor, or to one element.
function link(text, tensor, index, kind = 'link') {
  return h('button', {type: 'button', class: kind + (tensor.isCarried ? '' : ' away'), title: index ? spell(tensor, index) : tensor.name,
    'data-go': index ? spell(tensor, index) : tensor.name}, text);
}

const missingText = (tensor) => `${tensor.name} (${tensor.shape.join(' × ')}) is not on this page, which has no room for it.`;

// What row an index stands in, in words.
function rowText(tensor, index) {
  if (tensor.isOfTokens) return isReal(index[0], index[1]) ? `${B > 1 ? `row ${index[0]}, ` : ''}token ${index[1]} ${tokenText(index[0] * T + index[1])}` : 'padding';
  const expert = expertOf(tensor);
  if (expert !== null && tensor.formula && tensor.shape.length === 2 && rowFor(tensor, state.place) === index[0]) {
    return `row ${index[0]}: token ${state.place % T} ${tokenText(state.place)}`;
  }
  if (tensor.formula?.[0] === 'router logits') {
    const place = index[0] % (B * T);
    return `row ${index[0]}: layer ${Math.floor(index[0] / (B * T))}, ` + (batch.ids[place] === null ? 'padding' : `token ${place % T} ${tokenText(place)}`);
  }
  return tensor.shape.length > 1 ? `row ${index[0]}${isNamed(wordAt(tensor, index)) ? ' ' + spelled(wordAt(tensor, index)) : ''}` : 'all';
}

// The token that an element is about, as it reads: one of the vocabulary, or one of the batch that is not the chosen one.
function tokenBeside(tensor, index) {
  const word = wordAt(tensor, index), place = index[0] * T + index[1];
  if (word !== null) return isNamed(word) ? spelled(word) : null;
  return tensor.isOfTokens && place !== state.place && isReal(index[0], index[1]) ? tokenText(place) : null;
}

function detail() {
  const {tensor, index} = state;
  const layer = layerOf(tensor), expert = expertOf(tensor);
  const crumbs = [h('span', {}, 'model'), layer !== null && h('span', {}, `layer ${layer}`), expert !== null && h('span', {}, `expert ${expert}`),
    h('span', {}, titleOf(tensor)), tensor.isCarried && h('span', {}, `[${index}]`)];
  const panel = h('section', {id: 'number', class: 'panel', 'aria-label': 'The chosen number'},
    h('p', {class: 'crumbs'}, crumbs), h('h2', {}, titleOf(tensor)), h('p', {class: 'name'}, h('code', {}, tensor.name)),
    h('p', {class: 'kind'}, tensor.isWeight ? (byName.has('grad.' + tensor.name) ? 'trained weight' : 'frozen weight')
      : `${tensor.phase} · ${tensor.operation}`, ` · (${tensor.shape.join(', ')})`, relatives(tensor)));
  if (tensor.formula) panel.append(h('p', {class: 'equation'}, tensor.equation));
  if (!tensor.isCarried) {
    panel.append(h('p', {class: 'absent'}, missingText(tensor), ' ', h('button', {type: 'button', class: 'link', 'data-view': 'about'}, 'What is left out, and why')));
  } else if (tensor.count === 0) {
    panel.append(h('p', {class: 'absent'}, 'No token chose this expert, so it has no row.'));
  } else panel.append(...reading(tensor, index));
  if (tensor.formula) panel.append(inputs(tensor));
  panel.append(readers(tensor));
  return panel;
}

// A name as it is read inside a layer.
const shortName = (tensor) => layerOf(tensor) === layerOf(state.tensor) ? tensor.name.replace(/^(.*?)(?:model\.|mixlora\.|base_model\.model\.model\.)layers\.\d+\./, '$1… ').replace(/^grad\.…/, 'grad …').replace(/\.(output|weight)$/, '') : tensor.name;

// What the letters of the equation are; several tensors of one letter are the experts' in their order.
function inputs(tensor) {
  const letters = new Map();
  for (const input of tensor.inputs) letters.set(input.letter, [...letters.get(input.letter) ?? [], input]);
  return h('dl', {class: 'inputs'}, [...letters].flatMap(([letter, list]) => [h('dt', {}, letter), h('dd', {}, list.slice(0, 16).map((input) =>
    input.tensor ? link(shortName(input.tensor), input.tensor) : h('code', {}, input.name)), list.length > 16 && ` and ${list.length - 16} more`)]));
}

// The value of a gradient, the gradient of a value; of a weight also what a step makes of it.
function relatives(tensor) {
  const list = [];
  const add = (name, other) => { if (other && other !== tensor) list.push(' · ', link(name, other, undefined, 'link soft')); };
  const base = tensor.name.replace(/^(adapter\.\d+\.)?(grad|after|exp_avg|exp_avg_sq)\./, '$1');
  if (tensor.isWeight || weights.some((w) => w.name === base)) {
    add('weight', byName.get(base));
    for (const [kind, name] of [['grad', 'gradient'], ['exp_avg', 'moment 1'], ['exp_avg_sq', 'moment 2'], ['after', 'after one step']]) {
      add(name, byName.get(base.replace(/^(adapter\.\d+\.)?/, `$1${kind}.`)));
    }
  } else if (tensor.phase === 'forward') add('its gradient', gradientOf(tensor));
  else if (tensor.phase === 'backward') add('its value', valueOf(tensor));
  return list;
}

// The row of the element as bars.
function rowPicture(tensor, index) {
  const width = tensor.width, column = index[index.length - 1], row = Math.floor(tensor.offset(index) / width);
  const values = tensor.values.subarray(row * width, (row + 1) * width), most = largest(values);
  if (width === 1) return null;
  const drawing = h('canvas', {class: 'bars', tabindex: 0, role: 'slider', id: 'row', 'aria-label': `${rowText(tensor, index)}, ${width} numbers`,
      'aria-valuemin': 0, 'aria-valuemax': width - 1, 'aria-valuenow': column, 'aria-valuetext': `${column}${beside(tensor, index)}: ${exact(tensor.value(index))}`,
      onclick: (event) => select(tensor, [...index.slice(0, -1), pick(event, drawing, width)])});
  later(() => bars(drawing, values, {width: drawing.clientWidth || 300, height: 96, most, selected: column}));
  return h('figure', {}, h('figcaption', {}, `${rowText(tensor, index)}: ${width} numbers, ± ${brief(most, 3)}`), drawing);
}

// A factor about the very token of the vocabulary that the number is about need not say so again.
function isOther({tensor, index}) {
  const word = wordAt(tensor, index);
  return word === null || word !== wordAt(state.tensor, state.index);
}
const beside = (tensor, index) => { const text = tokenBeside(tensor, index); return text === null ? '' : ' ' + text; };

// The column of a picture that was pressed.
function pick(event, drawing, width) {
  const box = drawing.getBoundingClientRect();
  return Math.min(width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * width)));
}

// All rows from above, and of attention who sees whom.
function pictures(tensor, index) {
  const width = tensor.width, column = index[index.length - 1], row = Math.floor(tensor.offset(index) / width), rows = tensor.count / width;
  const figures = h('div', {class: 'pictures'});
  if (rows > 1) {
    const height = Math.min(240, Math.max(24, rows * (rows > 40 ? 2 : 10)));
    const drawing = h('canvas', {class: 'heat', style: `height:${height}px`, 'aria-hidden': 'true', onclick: (event) => {
      const box = drawing.getBoundingClientRect(), line = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows)));
      select(tensor, tensor.index(line * width + pick(event, drawing, width)));
    }});
    figures.append(h('figure', {}, h('figcaption', {}, tensor.isOfTokens ? `all tokens, from the first above to the last below; ± ${brief(largest(tensor.values), 3)}`
      : `all ${rows} rows; ± ${brief(largest(tensor.values), 3)}`), drawing));
    later(() => heat(drawing, tensor, {width: drawing.clientWidth || 300, height, row, column}));
  }
  if (tensor.operation === 'attention') figures.append(...patterns(tensor, index));
  return figures;
}

// The attention of every head: a row the token that looks, a square what it sees, as large as its probability.
function patterns(tensor, index) {
  const inputs = tensor.formula[1], [b] = index, [from, to] = batch.real[b], n = to - from, size = Math.max(4, Math.min(12, 132 / n));
  if (![0, 1].every((i) => points[inputs[i]].isCarried) || n > 32) return [];
  const heads = range(0, inputs[3]).map((head) => {
    const node = svg('svg', {class: 'pattern', width: n * size + 1, height: n * size + 1, role: 'img', 'aria-label': `head ${head}`});
    for (const t of range(from, to)) {
      const seen = attended(inputs, b, t, head);
      seen.columns.forEach((j, i) => {
        const side = Math.sqrt(seen.p[i]) * (size - 1);
        node.append(svg('rect', {x: (j - from + 0.5) * size - side / 2, y: (t - from + 0.5) * size - side / 2, width: side, height: side},
          svg('title', {}, `${tokenText(b * T + t)} sees ${tokenText(b * T + j)}: ${brief(seen.p[i], 3)}`)));
      });
    }
    const row = index[1] - from;
    node.append(svg('rect', {x: 0.5, y: row * size + 0.5, width: n * size, height: size - 1, class: 'frame'}));
    return h('figure', {class: 'small'}, node, h('figcaption', {}, `head ${head}`));
  });
  return [h('figure', {}, h('figcaption', {}, 'P of every head, formed of q and k: a row the token that looks, a square a token that it sees; its area is P'),
    h('div', {class: 'flow'}, heads))];
}

// The number in its row, what it is the sum or product of, and all of the tensor.
function reading(tensor, index) {
  const value = tensor.value(index), box = h('div', {class: 'reading'}), all = [rowPicture(tensor, index), box, pictures(tensor, index)].filter((one) => one);
  const move = (text, title, step) => h('button', {type: 'button', class: 'move', title, 'data-step': step}, text);
  box.append(h('p', {class: 'value'}, h('code', {id: 'element'}, `[${index}]`, h('b', {id: 'word'}, beside(tensor, index))), h('output', {id: 'value'}, exact(value)),
    h('span', {class: 'moves'}, tensor.width > 1 && [move('←', 'Number before (←)', -1), move('→', 'Next number (→)', 1)])));
  if (tensor.isWeight) {
    const trained = byName.has('grad.' + tensor.name);
    box.append(h('p', {}, trained ? 'A weight that is trained, as its file has it: nothing forms it in this run.' : 'A frozen weight, as the model’s file has it.'));
    return all;
  }
  let form;
  try { form = why(tensor, index); } catch (error) {
    if (!(error instanceof Missing)) throw error;
    box.append(h('p', {class: 'absent'}, 'Its terms read ', link(error.tensor.name, error.tensor), ', which is not on this page. ',
      h('button', {type: 'button', class: 'link', 'data-view': 'about'}, 'What is left out, and why')));
    return all;
  }
  if (form.kind === 'nothing') box.append(h('p', {class: 'absent'}, `Zero, because nothing is there: ${form.reason}.`));
  else box.append(...terms(form, value));
  return all;
}

const fewTerms = 10;
function terms(form, value) {
  const order = form.kind === 'sum' ? form.terms.map((one, n) => ({one, n})).sort((a, b) => Math.abs(b.one.value) - Math.abs(a.one.value) || a.n - b.n)
    .map(({one}) => one) : form.terms;
  const title = {sum: form.terms.length === 1 ? 'One term' : `The sum of ${form.terms.length} terms, the largest first`, product: 'A product of',
    choice: 'The first in this order that is left'}[form.kind];
  const most = largest(order.map((one) => one.value)), list = h('ol', {class: 'terms', id: 'terms'});
  const isProduct = form.kind === 'product', shown = isProduct ? form.terms[0].factors.map((one) => term(one)) : order;
  const add = (from, to) => shown.slice(from, to).forEach((one) => list.append(termLine(one, isProduct ? 0 : most)));
  add(0, fewTerms);
  const parts = [h('h3', {}, title), list];
  if (shown.length > fewTerms) {
    const rest = shown.slice(fewTerms).reduce((s, one) => s + one.value, 0);
    const more = h('button', {type: 'button', class: 'link', id: 'more', onclick: () => { add(fewTerms, shown.length); more.parentNode.remove(); }},
      `the other ${shown.length - fewTerms}, together ${brief(rest)}`);
    parts.push(h('p', {class: 'rest'}, more));
  }
  if (form.kind !== 'choice') {
    const difference = Math.abs(form.recomputed - value);
    parts.push(h('p', {class: 'total'}, `${isProduct ? 'Π' : 'Σ'} = ${brief(form.recomputed, 9)} in float64; the run, in float32, has ${exact(value)}`
      + (difference === 0 ? ': the same.' : `: ${brief(difference, 2)} apart, ${within(form, value) ? 'which rounding explains.' : 'more than rounding explains.'}`)));
  }
  return parts;
}

// A term: its size as a bar, its value, and its factors, each a way to where it comes from.
function termLine(one, most) {
  const share = most > 0 ? Math.abs(one.value) / most * 50 : 0;
  const bar = most > 0 && h('span', {class: 'bar', 'aria-hidden': 'true'},
    h('span', {class: one.value < 0 ? 'minus' : 'plus', style: `width:${share.toFixed(2)}%;${one.value < 0 ? 'right' : 'left'}:50%`}));
  const factors = one.factors.flatMap((f, n) => {
    const source = f.sources[0], name = source ? link(f.text, source.tensor, source.index, 'factor') : h('span', {class: 'factor'}, f.text);
    return [n > 0 ? h('span', {class: 'times'}, '·') : null, h('span', {class: 'pair'}, name, source?.index && isOther(source) && h('i', {class: 'word'}, beside(source.tensor, source.index)), most > 0 ? h('small', {}, brief(f.value)) : null)];
  });
  return h('li', {}, bar, h('b', {}, brief(one.value, 6)), h('span', {class: 'factors'}, factors));
}

// Whether rounding of float32 explains the difference: at most so many roundings of the terms' size as there are terms, and a few.
function within(form, value) {
  return Math.abs(form.recomputed - value) <= (form.terms.length + 64) * 2 ** -24 * Math.max(form.size, Math.abs(value)) + 1e-37;
}

function readers(tensor) {
  const list = tensor.readers.filter((one, i, all) => all.indexOf(one) === i);
  if (!list.length) return h('p', {class: 'readers'}, 'Nothing in this run reads it.');
  const few = list.slice(0, 12);
  return h('p', {class: 'readers'}, h('span', {class: 'tag'}, `read by ${list.length}`), few.map((one) => link(shortName(one), one, undefined, 'chip')),
    list.length > few.length && ` and ${list.length - few.length} more`);
}
