// Gradients: of what layers read, then of what is trained, then a step of AdamW.

// dS_ij = P_ij (do_i·v_j − do_i·o_i), times 1 − (S_ij/c)² under a soft cap.
function scoreGradients(inputs, output, gradient, b, t, head) {
  const [, , v, heads, groups, width, , , softcap] = inputs, seen = attended(inputs, b, t, head);
  const group = Math.floor(head / (heads / groups)), go = headPart(gradient, b, t, head, width);
  const own = dot(go, headPart(output, b, t, head, width));
  return {columns: seen.columns, factors: (mark, sources) => seen.columns.map((j, n) => {
    const slope = softcap === null ? 1 : 1 - seen.scores[n] * seen.scores[n] / (softcap * softcap), value = headPart(points[v], b, j, group, width);
    return cancelling(seen.p[n] * (dotSize(go, value) + dotSize(go, headPart(output, b, t, head, width))),
      factor(`dS[${t},${j}]${mark}`, seen.p[n] * (dot(go, value) - own) * slope, ...sources));
  })};
}

// The rows of a product whose matrix has a gradient, and the factors of dy_o in one of them: itself, or w dy.
const readRows = ([, , rows, , adapter]) => rows ? allRows(rows) : allTokens(adapter);
const readWeight = ([, , rows, isWeighted], row) => isWeighted && rows ? [weightIn(rows, row)] : [];
const matrixTerms = (reading, o, i) => readRows(reading).map((row) => term(
  ...readWeight(reading, row), part('dy', points[reading[0]], row, o), part('x', points[reading[1]], row, i)));

const backward = {
  'd loss'([z, softcap], index) {
    const row = atToken(index[0], index[1]), v = index[2], target = label(row);
    if (target === null) return nothing('the token predicts no label that counts');
    const logits = Array.from(vector(points[z], row), (x) => softcap === null ? x : softcap * Math.tanh(x / softcap));
    const common = [factor('1/n', 1 / labeled(batch.owners[row.b]).length)];
    if (softcap !== null) common.push(factor('1 − (y/c)²', 1 - logits[v] * logits[v] / (softcap * softcap), of('z', points[z])));
    const terms = [term(factor(`p[${v}]`, softmax(logits).values[v], {letter: 'z', tensor: points[z], index}), ...common)];
    if (v === target) terms.push(term(factor('−onehot', -1), ...common));
    return sum(terms);
  },
  'd input'([readers, rows], index) {
    const result = rowOf(index, rows), i = index[index.length - 1], terms = [];
    readers.forEach(([dy, w, branches, readerRows], n) => {
      // The readers of one tensor are told apart by their number.
      const mark = readers.length === 1 ? '' : n + 1, gradient = points[dy];
      const row = !rows && readerRows ? expertRow(result, readerRows) : result;
      if (!row) return;
      if (w !== null) range(0, weights[w].shape[0]).forEach((o) =>
        terms.push(term(entry(`W${mark}`, weights[w], o, i), part(`dy${mark}`, gradient, row, o))));
      for (const branch of branches) if (serves(branch, row)) returned(`B${mark}`, `dy${mark}`, branch, gradient, vector(gradient, row)).forEach((b, j) =>
        terms.push(term(entry(`A${mark}`, weights[branch[1]], j, i), b)));
    });
    return sum(terms);
  },
  'd norm'([norm, dy, beside], index) {
    const row = atToken(index[0], index[1]), i = index[2], x = points[norm[0]], r = rho(norm, row), gradient = points[dy];
    const terms = [term(factor('ρ', r, of('x', x)), gain(norm, i), part('dy', gradient, row, i))];
    if (beside !== null) terms.push(term(part('dz', points[beside], row, i)));
    const share = factor('−ρ³/C', -r * r * r / x.width, of('x', x));
    for (let j = 0; j < x.width; j++) terms.push(term(share, part('x', x, row, i), part('x', x, row, j), gain(norm, j), part('dy', gradient, row, j)));
    return sum(terms);
  },
  'd attention'([role, inputs, output, gradient], index) {
    const [b, t, column] = index, [q, k, v, heads, groups, width, scale] = inputs, share = heads / groups, inHead = column % width;
    const [o, go] = [points[output], points[gradient]];
    const sources = [...scored(inputs), of('v', points[v]), of('o', o), of('do', go)], sigma = factor('σ', scale);
    if (role === 'q') {
      const head = Math.floor(column / width), group = Math.floor(head / share), scores = scoreGradients(inputs, o, go, b, t, head);
      return sum(scores.factors('', sources).map((ds, n) => term(sigma, ds, element('k', points[k], [b, scores.columns[n], group * width + inHead]))));
    }
    // Every head of the group, every row that sees this one.
    const terms = [], group = Math.floor(column / width);
    for (const head of range(group * share, (group + 1) * share)) for (const i of range(t, batch.real[b][1])) {
      const mark = share > 1 ? ` head ${head}` : '';
      const seen = role === 'v' ? attended(inputs, b, i, head) : scoreGradients(inputs, o, go, b, i, head), n = seen.columns.indexOf(t);
      if (n < 0) continue;
      terms.push(role === 'v'
        ? term(factor(`P[${i},${t}]${mark}`, seen.p[n], ...scored(inputs)), element('do', go, [b, i, head * width + inHead]))
        : term(sigma, seen.factors(mark, sources)[n], element('q', points[q], [b, i, head * width + inHead])));
    }
    return sum(terms);
  },
  'd rotary'([dy, width], index) { return rotary(points[dy], 'dy', width, index, true); },
  'd gated'([ofUp, dh, a, c, activation], index) {
    const row = gatedRow(points[a], index), i = index[index.length - 1], own = part('a', points[a], row, i), x = own.value;
    const s = sigmoid(activation, x), gradient = part('dh', points[dh], row, i);
    if (ofUp) return product(gradient, own, factor(s.text, s.value, of('a', points[a])));
    const bend = x * s.value * (1 - s.value) * s.slope;
    return product(gradient, part('c', points[c], row, i),
      cancelling(s.value + Math.abs(bend), factor('act′(a)', s.value + bend, of('a', points[a]))));
  },
  'd hidden'([rows, q, dy, branch], index) {
    const row = rowOf(index, rows), i = index[1], w = weightIn(rows, row), terms = [term(w, part('q', points[q], row, i))];
    if (branch) returned('B2', 'dy', branch, points[dy], vector(points[dy], row)).forEach((b, j) =>
      terms.push(term(w, entry('A2', weights[branch[1]], j, i), b)));
    return sum(terms);
  },
  'd expert'([rows, dy], index) {
    const row = rowOf(index, rows);
    return product(weightIn(rows, row), part('dy', points[dy], row, index[1]));
  },
  'd sum'([experts, others], index) {
    const row = atToken(index[0], index[1]);
    return sum([...experts.flatMap(([value, rows]) => {
      const own = expertRow(row, rows);
      return own ? [term(part(`dy${rows[1]}`, points[value], own, index[2]))] : [];
    }), ...others.map((x) => term(part('dy', points[x], row, index[2])))]);
  },
  'd weights'([g, dy, q, values, branches, b2], index) {
    const place = atToken(index[0], index[1]), expert = chosen(gates[g], place).find((one) => one.slot === index[2])?.expert;
    const row = expert === undefined ? null : expertRow(place, values[expert][1]);
    if (!row) return nothing('the slot chose no expert');
    const value = points[values[expert][0]], gradient = points[dy], columns = range(0, value.width);
    if (q === null) return sum(columns.map((i) => term(part('dy', gradient, row, i), part('e', value, row, i))));
    const terms = columns.map((i) => term(part('q', points[q], row, i), part('h', value, row, i)));
    if (branches.length) {
      const branch = branches[expert], ah = projected('A2', 'h', branch, value, vector(value, row));
      returned('B2', 'dy', branch, gradient, vector(gradient, row)).forEach((b, j) => terms.push(term(b, ah[j])));
    }
    if (b2 !== null) range(0, weights[b2].width).forEach((o) => terms.push(term(part('dy', gradient, row, o), entry('b2', weights[b2], o))));
    return sum(terms);
  },
  'd router'([g, dw, [k, , divisor], balance], index) {
    const gate = gates[g], row = atToken(index[0], index[1]), j = index[2], experts = chosen(gate, row), minus = factor('−1', -1), terms = [];
    const w = (slot) => weighing(gate, row, slot), d = (slot) => part('dw', points[dw], row, slot), p = (e) => part('p', gate.p, row, e);
    const own = experts.find((one) => one.expert === j)?.slot;
    if (k !== null) {
      if (own !== undefined) terms.push(term(w(own), d(own)), ...experts.map((one) => term(minus, w(own), w(one.slot), d(one.slot))));
    } else {
      const share = divisor === 1 ? [] : [factor('1/t', 1 / divisor)];
      if (own !== undefined) terms.push(term(p(j), d(own), ...share));
      terms.push(...experts.map((one) => term(minus, p(j), p(one.expert), d(one.slot), ...share)));
    }
    if (balance[1] !== 0) {
      const of_ = balances(balance).get(gate), b = (i) => factor(`balance[${i}]`, of_[i], of('choice', gate.choice));
      terms.push(term(p(j), b(j)), ...of_.map((_, i) => term(minus, p(j), p(i), b(i))));
    }
    return terms.length ? sum(terms) : nothing('the token did not choose the expert');
  },

  'd matrix'([readings], [o, i]) { return sum(readings.flatMap((reading) => matrixTerms(reading, o, i))); },
  'd bias'([readings], [o]) {
    return sum(readings.flatMap(([dy, rows, g, adapter]) => (rows ? allRows(rows) : allTokens(adapter)).flatMap((row) => {
      const own = part('dy', points[dy], row, o);
      return g === null ? [term(own)] : chosen(gates[g], row).map((one) => term(weighing(gates[g], row, one.slot), own));
    })));
  },
  'd gain'([norm, dy], [i]) {
    return sum(allTokens().map((row) => term(factor(`ρ[${row.b},${row.t}]`, rho(norm, row), of('x', points[norm[0]])),
      part('dy', points[dy], row, i), part('x', points[norm[0]], row, i))));
  },
  'd embedding'([dy, scale, head], [id, i]) {
    const rows = allTokens().filter((row) => batch.ids[row.b * T + row.t] === id), share = scale === 1 ? [] : [factor('γ', scale)];
    return sum([...rows.map((row) => term(...share, part('dy', points[dy], row, i))), ...(head ? matrixTerms(head, id, i) : [])]);
  },
  'd branch'([isA, branch, reading], [first, second]) {
    const j = isA ? first : second, [dy, x] = [points[reading[0]], points[reading[1]]];
    const side = isA ? wcolumn(weights[branch[2]], j) : wrow(weights[branch[1]], j);
    return sum(readRows(reading).map((row) => {
      const mark = `[${row.b},${row.t},${j}]`, share = readWeight(reading, row);
      const read = vector(isA ? dy : x, row), size = dotSize(side, read);
      if (isA) return term(...share, cancelling(Math.abs(branch[3]) * size,
        factor(`sBᵀdy${mark}`, branch[3] * dot(side, read), of('B', weights[branch[2]]), of('dy', dy))), part('x', x, row, second));
      return term(factor('s', branch[3]), ...share, part('dy', dy, row, first),
        cancelling(size, factor(`A x${mark}`, dot(side, read), of('A', weights[branch[1]]), of('x', x))));
    }));
  },
  moment([order, g], index) {
    const own = element('g', points[g], index), [, , beta1, beta2] = run.optimizer;
    return order === 1 ? product(factor('1 − β₁', 1 - beta1), own) : product(factor('1 − β₂', 1 - beta2), own, own);
  },
  update([w, first, second], index) {
    const [rate, decay, beta1, beta2, epsilon] = run.optimizer, own = element('w', weights[w], index);
    const root = Math.sqrt(points[second].value(index) / (1 - beta2)) + epsilon;
    return sum([term(own), term(factor('−lr', -rate), factor('λ', decay), own),
      term(factor('−lr/(1 − β₁)', -rate / (1 - beta1)), element('m', points[first], index),
        factor('1/(√(v/(1 − β₂)) + ε)', 1 / root, {letter: 'v', tensor: points[second], index}))]);
  },
};
