// How a number is formed of others: the terms of a sum, the factors of a product. The formulas are those of Provenances, the terms those
// that 'mixlora step' shows for 'why'. What is computed is computed in float64, of float32 numbers.

// A factor: how it reads, its value, and what it is read from: {letter, tensor, index, if it is one element}. Its rounding is relative to
// its size: the magnitude of what it is formed of, where that cancels.
const factor = (text, value, ...sources) => ({text, value, sources, size: Math.abs(value)});
const cancelling = (size, one) => ({...one, size});
const of = (letter, tensor) => ({letter, tensor});
const element = (letter, tensor, index) => factor(`${letter}[${index}]`, tensor.value(index), {letter, tensor, index});
const term = (...factors) => ({factors, value: factors.reduce((product, one) => product * one.value, 1),
  size: factors.reduce((product, one) => product * one.size, 1)});
const sum = (terms) => ({kind: 'sum', terms});
const product = (...factors) => ({kind: 'product', terms: [term(...factors)]});
const nothing = (reason) => ({kind: 'nothing', reason, terms: []});
const range = (begin, end) => Array.from({length: Math.max(0, end - begin)}, (_, i) => begin + i);
const dot = (x, y) => { let s = 0; for (let i = 0; i < x.length; i++) s += x[i] * y[i]; return s; };
const dotSize = (x, y) => { let s = 0; for (let i = 0; i < x.length; i++) s += Math.abs(x[i] * y[i]); return s; };

// A row of a tensor: a token (b, t), or an expert's r-th with its token.
const atToken = (b, t) => ({b, t, r: null});
const rowIndex = (tensor, row, i) => tensor.isOfTokens ? [row.b, row.t, i] : [row.r ?? 0, i];
const part = (letter, tensor, row, i) => element(letter, tensor, rowIndex(tensor, row, i));
function vector(tensor, row) {
  const n = tensor.isOfTokens ? row.b * T + row.t : row.r ?? 0;
  return tensor.values.subarray(n * tensor.width, (n + 1) * tensor.width);
}
function tokenOf(r, rows) {
  const n = points[rows[2]].values[r];
  return {b: Math.floor(n / T), t: n % T, r};
}
const rowOf = (index, rows) => rows ? tokenOf(index[0], rows) : atToken(index[0], index[1]);
function expertRow(row, rows) {
  const r = points[rows[2]].values.indexOf(row.b * T + row.t);
  return r < 0 ? null : {b: row.b, t: row.t, r};
}
const allRows = (rows) => range(0, points[rows[2]].count).map((r) => tokenOf(r, rows));
const allTokens = (adapter = null) => places.map((n) => atToken(Math.floor(n / T), n % T))
  .filter((row) => adapter === null || batch.owners[row.b] === adapter);

// A token's experts, in the order of the choice.
function chosen(gate, row) {
  if (batch.owners[row.b] !== gate.adapter) return [];
  return [...vector(gate.choice, atToken(row.b, row.t))].map((expert, slot) => ({slot, expert})).filter((one) => one.expert >= 0);
}
const weighing = (gate, row, slot) => element('w', gate.w, [row.b, row.t, slot]);
function weightIn(rows, row) {
  const slot = chosen(gates[rows[0]], row).find((one) => one.expert === rows[1])?.slot;
  return slot === undefined ? factor('w', 0) : weighing(gates[rows[0]], row, slot);
}

// Weights.
const wrow = (w, row) => w.shape.length === 1 ? w.values : w.values.subarray(row * w.width, (row + 1) * w.width);
const wcolumn = (w, column) => range(0, w.shape[0]).map((row) => w.values[row * w.width + column]);
const entry = (letter, w, ...index) => element(letter, w, index);
const serves = (branch, row) => branch[0] === null || branch[0] === batch.owners[row.b];
const rank = (branch) => weights[branch[1]].shape[0];
// A x of a branch and s Bᵀ dy: r factors each, by the letters of A and x, or B and dy.
const projected = (a, x, branch, tensor, values) => range(0, rank(branch)).map((j) => {
  const row = wrow(weights[branch[1]], j);
  return cancelling(dotSize(row, values), factor(`${a} ${x}[${j}]`, dot(row, values), of(a, weights[branch[1]]), of(x, tensor)));
});
const returned = (b, dy, branch, tensor, values) => range(0, rank(branch)).map((j) => {
  const column = wcolumn(weights[branch[2]], j), [scale, size] = [branch[3], Math.abs(branch[3]) * dotSize(column, values)];
  return cancelling(size, factor(`s${b}ᵀ${dy}[${j}]`, scale * dot(column, values), of(b, weights[branch[2]]), of(dy, tensor)));
});

function softmax(z) {
  const most = Math.max(...z), powers = Array.from(z, (x) => Math.exp(x - most)), whole = powers.reduce((a, b) => a + b, 0);
  return {values: powers.map((x) => x / whole), log: (i) => z[i] - most - Math.log(whole), most, powers, whole};
}
const label = (row) => batch.targets[row.b * T + row.t];
const labeled = (adapter) => allTokens(adapter).filter((row) => label(row) !== null);

// Attention: a query's scores and probabilities over the rows that it sees, in a head.
function headPart(tensor, b, t, head, width) { return vector(tensor, atToken(b, t)).subarray(head * width, (head + 1) * width); }
function attended(inputs, b, t, head) {
  const [q, k, , heads, groups, width, scale, window, softcap] = inputs;
  const first = Math.max(batch.real[b][0], window === null ? 0 : t - window + 1), columns = range(first, t + 1);
  const group = Math.floor(head / (heads / groups)), own = headPart(points[q], b, t, head, width);
  const scores = columns.map((j) => {
    const score = scale * dot(own, headPart(points[k], b, j, group, width));
    return softcap === null ? score : softcap * Math.tanh(score / softcap);
  });
  return {columns, scores, p: softmax(scores).values};
}
const scored = (inputs) => [of('q', points[inputs[0]]), of('k', points[inputs[1]])];

// σ(z) of act(x) = x σ(z), and z′.
function sigmoid(activation, x) {
  if (activation === 'silu') return {value: 1 / (1 + Math.exp(-x)), slope: 1, text: 'σ(a)'};
  const root = Math.sqrt(8 / Math.PI), z = root * (x + 0.044715 * x * x * x);
  return {value: 1 / (1 + Math.exp(-z)), slope: root * (1 + 3 * 0.044715 * x * x), text: '½(1+tanh u)'};
}
const gatedRow = (a, index) => a.isOfTokens ? atToken(index[0], index[1]) : {b: 0, t: 0, r: index[0]};

function rotary(tensor, letter, width, index, isBack) {
  const row = atToken(index[0], index[1]), column = index[2], half = width / 2, inHead = column % width, isFirst = inHead < half;
  const [cos, sin] = run.turns[row.t][inHead % half], sine = isFirst === isBack ? sin : -sin;
  return sum([term(part(letter, tensor, row, column), factor('cos', cos)),
    term(part(letter, tensor, row, isFirst ? column + half : column - half), factor(sine === sin ? 'sin' : '−sin', sine))]);
}

function rho([x, , , epsilon], row) {
  const values = vector(points[x], row);
  return 1 / Math.sqrt(dot(values, values) / values.length + epsilon);
}
const gain = ([, w, offset], i) => factor(`g[${i}]`, offset + weights[w].values[i], {letter: 'g', tensor: weights[w], index: offset ? undefined : [i]});

// The gradient of the balance loss with respect to every row of p, router by router: coefficient · E · F / (L·N).
function balances([isPooled, coefficient, list]) {
  const routers = list.map((g) => gates[g]), tokens = routers.map((gate) => allTokens(gate.adapter));
  const total = tokens.reduce((n, rows) => n + rows.length, 0);
  let counts = routers.map((gate, layer) => {
    const count = new Array(gate.experts).fill(0);
    for (const row of tokens[layer]) for (const one of chosen(gate, row)) if (isPooled || one.slot === 0) count[one.expert] += 1;
    return count;
  });
  if (isPooled) {
    const pooled = counts.reduce((a, b) => a.map((x, i) => x + b[i]));
    counts = counts.map(() => pooled);
  }
  return new Map(routers.map((gate, layer) =>
    [gate, counts[layer].map((n) => n / (isPooled ? total : tokens[layer].length) * coefficient * gate.experts / total)]));
}

const forward = {
  embedding([w, scale], index) {
    const entryOf = entry('W', weights[w], batch.ids[index[0] * T + index[1]], index[2]);
    return scale === 1 ? product(entryOf) : product(factor('γ', scale), entryOf);
  },
  norm([norm], index) {
    const row = atToken(index[0], index[1]), x = points[norm[0]];
    return product(factor('ρ', rho(norm, row), of('x', x)), part('x', x, row, index[2]), gain(norm, index[2]));
  },
  linear([x, w, b, base, branches, rows], index) {
    const row = rowOf(index, rows), o = index[index.length - 1], input = points[x], terms = [];
    if (base !== null) terms.push(term(part('base', points[base], row, o)));
    if (w !== null) for (let i = 0; i < weights[w].width; i++) terms.push(term(entry('W', weights[w], o, i), part('x', input, row, i)));
    if (b !== null) terms.push(term(entry('b', weights[b], o)));
    for (const branch of branches) {
      if (!serves(branch, row)) continue;
      projected('A', 'x', branch, input, vector(input, row)).forEach((ax, j) =>
        terms.push(term(factor('s', branch[3]), entry('B', weights[branch[2]], o, j), ax)));
    }
    return sum(terms);
  },
  rotary([x, width], index) { return rotary(points[x], 'x', width, index, false); },
  attention([inputs], index) {
    const [, , v, heads, groups, width] = inputs, [b, t] = index, head = Math.floor(index[2] / width);
    const column = Math.floor(head / (heads / groups)) * width + index[2] % width, seen = attended(inputs, b, t, head);
    return sum(seen.columns.map((j, n) => term(factor(`P[${t},${j}]`, seen.p[n], ...scored(inputs)), element('v', points[v], [b, j, column]))));
  },
  sum([parts], index) { return sum(parts.map((x, n) => term(element('xz'[n], points[x], index)))); },
  gated([a, c, activation], index) {
    const row = gatedRow(points[a], index), i = index[index.length - 1], own = part('a', points[a], row, i);
    const s = sigmoid(activation, own.value);
    return product(own, factor(s.text, s.value, of('a', points[a])), part('c', points[c], row, i));
  },
  softmax([z], index) {
    const all = softmax(vector(points[z], atToken(index[0], index[1])));
    return product(factor(`exp(z[${index}] − max z)`, all.powers[index[2]], {letter: 'z', tensor: points[z], index}),
      factor('1/Σ exp(z − max z)', 1 / all.whole, of('z', points[z])));
  },
  choice([p, [k, threshold, divisor]], index) {
    const row = vector(points[p], atToken(index[0], index[1]));
    const order = range(0, row.length).sort((a, b) => row[b] - row[a] || a - b);
    let chosenHere = order.slice(0, k ?? order.length), whole = 0;
    if (threshold !== null) order.forEach((expert, slot) => {
      if (whole > threshold) chosenHere[slot] = -1;
      whole += row[expert] / divisor;
    });
    return {kind: 'choice', value: chosenHere[index[2]], terms: order.map((e) =>
      term(factor(`p[expert ${e}]`, row[e], {letter: 'p', tensor: points[p], index: [index[0], index[1], e]})))};
  },
  tokens([choice, expert], index) {
    const rows = allTokens(points[choice].owner).filter((row) => vector(points[choice], row).includes(expert));
    const row = rows[index[0]];
    return sum([term(factor('b', row.b, of('choice', points[choice])), factor('T', T)), term(factor('t', row.t, of('choice', points[choice])))]);
  },
  weights([p, choice, [k, , divisor]], index) {
    const row = atToken(index[0], index[1]), experts = vector(points[choice], row), expert = experts[index[2]];
    if (expert < 0) return nothing('the slot chose no expert');
    const own = part('p', points[p], row, expert);
    if (k === null) return divisor === 1 ? product(own) : product(own, factor('1/t', 1 / divisor));
    const whole = [...experts].reduce((s, e) => e < 0 ? s : s + points[p].value([row.b, row.t, e]), 0);
    return product(own, factor('1/Σ_chosen p', 1 / whole, of('p', points[p])));
  },
  combine([g, values], index) {
    const row = atToken(index[0], index[1]), gate = gates[g];
    return sum(chosen(gate, row).flatMap(({slot, expert}) => {
      const [value, rows] = values[expert], own = expertRow(row, rows);
      return own ? [term(weighing(gate, row, slot), part(`e${expert}`, points[value], own, index[2]))] : [];
    }));
  },
  shared([v, w2, b2, g, hidden, branches], index) {
    const row = atToken(index[0], index[1]), o = index[2], gate = gates[g];
    const terms = range(0, weights[w2].width).map((i) => term(entry('W2', weights[w2], o, i), part('v', points[v], row, i)));
    for (const {slot, expert} of chosen(gate, row)) {
      const w = weighing(gate, row, slot);
      if (b2 !== null) terms.push(term(w, entry('b2', weights[b2], o)));
      const own = branches.length ? expertRow(row, hidden[expert][1]) : null;
      if (!own) continue;
      const branch = branches[expert], h = points[hidden[expert][0]];
      projected(`A2_${expert}`, `h${expert}`, branch, h, vector(h, own)).forEach((ah, j) =>
        terms.push(term(factor('s', branch[3]), w, entry(`B2_${expert}`, weights[branch[2]], o, j), ah)));
    }
    return sum(terms);
  },
  parts([parts], index) {
    // A loss has an element an adapter; a value of tokens belongs to its row's.
    const owner = index.length === 1 ? index[0] : batch.owners[index[0]], own = parts.find(([adapter]) => adapter === owner);
    return own ? explain(own[1], index) : nothing('there is no router');
  },
  logits([z, softcap], index) {
    const own = element('z', points[z], index);
    if (softcap === null) return sum([term(own)]);
    return product(factor('c', softcap), factor(`tanh(z[${index}]/c)`, Math.tanh(own.value / softcap), {letter: 'z', tensor: points[z], index}));
  },
  'router logits'([list], index) {
    const layer = Math.floor(index[0] / (B * T)), n = index[0] % (B * T);
    return sum([term(element('z', points[list[layer]], [Math.floor(n / T), n % T, index[1]]))]);
  },
  loss([logits], index) {
    const rows = labeled(index[0]), share = factor('1/n', 1 / rows.length);
    return sum(rows.map((row) => term(share, factor(`−log p[${row.b},${row.t},${label(row)}]`,
      -softmax(vector(points[logits], row)).log(label(row)), {letter: 'logits', tensor: points[logits], index: [row.b, row.t, label(row)]}))));
  },
  balance([balance]) {
    const all = balances(balance);
    return sum(balance[2].flatMap((g, layer) => range(0, gates[g].experts).map((i) => {
      const whole = allTokens(gates[g].adapter).reduce((s, row) => s + gates[g].p.value([row.b, row.t, i]), 0);
      return term(factor(`balance[layer ${layer}, ${i}]`, all.get(gates[g])[i], of('choice', gates[g].choice)),
        factor(`Σ p[layer ${layer}, ${i}]`, whole, of('p', gates[g].p)));
    })));
  },
  'loss curve'([loss, aux], index) {
    return sum([['loss', loss], ['aux_loss', aux]].map(([letter, x]) => term(element(letter, points[x], [index[0]]))));
  },
};

function explain([kind, ...inputs], index) { return (forward[kind] ?? backward[kind])(inputs, index); }

// Why a row of tokens has nothing: padding, or a token that the tensor has no row of.
function empty(tensor, index) {
  if (!tensor.isOfTokens) return null;
  const [b, t] = index, owner = batch.owners[b];
  if (!isReal(b, t)) return nothing(`padding: row ${b} has no token in column ${t}`);
  if (tensor.owner === null) return null;
  if (tensor.owner < 0) return owner === null ? null : nothing(`row ${b} is an adapter's`);
  return owner === tensor.owner ? null : nothing(`row ${b} is not adapter ${tensor.owner}'s`);
}

// What one element is: its form, what the terms give, and the size of the terms, to which its rounding is relative.
function why(tensor, index) {
  const form = empty(tensor, index) ?? explain(tensor.formula, index);
  const recomputed = form.kind === 'choice' ? form.value : form.terms.reduce((s, one) => s + one.value, 0);
  const size = form.kind === 'choice' ? Math.abs(recomputed) : form.terms.reduce((s, one) => s + one.size, 0);
  return {...form, recomputed, size};
}
