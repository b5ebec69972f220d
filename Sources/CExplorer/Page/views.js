// The other views: who computes which token, how that came about in training, what this page has and has not.

function tokenStrip() {
  const strip = document.getElementById('tokens');
  strip.replaceChildren(...range(0, B).map((b) => h('div', {class: 'tokens', role: 'listbox', 'aria-label': B > 1 ? `row ${b}` : 'tokens'},
    range(0, T).map((t) => {
      const place = b * T + t;
      if (!isReal(b, t)) return h('span', {class: 'token padding'}, h('b', {}, '·'), h('small', {}, 'padding'));
      const target = batch.targets[place], best = batch.predictions[place][0], isRight = target === best[0];
      return h('button', {type: 'button', class: 'token', role: 'option', 'data-place': place, 'aria-selected': String(place === state.place),
        title: `column ${t}, id ${batch.ids[place]}` + (target === null ? '' : `; should predict ${spelled(target)}`)},
        h('b', {}, tokenText(place)),
        h('small', {}, target === null ? `→ ${spelled(best[0])}` : `${isRight ? '✓' : '✗'} ${spelled(target)}`));
    }))));
}

function prediction() {
  const place = state.place, target = batch.targets[place], loss = byName.get('loss');
  const list = batch.predictions[place].map(([id, logit, p]) => h('li', {}, h('code', {}, spelled(id) + (id === target ? ' ✓' : '')),
    h('span', {class: 'bar'}, h('span', {class: 'plus', style: `left:0;width:${(100 * p).toFixed(1)}%`})),
    h('small', {}, `${brief(100 * p, 3)} %, logit ${exact(logit)}`)));
  return h('section', {class: 'part'}, h('h3', {}, `What comes after ${tokenText(place)}?`),
    h('p', {class: 'hint'}, target === null ? 'No label here counts in the loss.' : `It should be ${spelled(target)}.`,
      loss?.isCarried ? ` The loss of the whole batch is ${exact(loss.values[0])}.` : ''), h('ol', {class: 'guesses'}, list));
}

function modelView() {
  const layer = state.layer ?? null, isBack = state.phase === 'backward', hasBack = points.some((one) => one.phase === 'backward');
  const phase = (name, text) => h('button', {type: 'button', 'data-phase': name, 'aria-pressed': String(state.phase === name)}, text);
  return h('div', {class: 'model'}, overview(), h('div', {id: 'block', class: 'panel ' + (isBack ? 'back' : 'forth')},
    h('div', {class: 'title'}, h('h2', {}, layer === null ? 'Ends of the model' : `Layer ${layer}`),
      hasBack && h('div', {class: 'switch', role: 'group', 'aria-label': 'Values or gradients'}, phase('forward', '↓ values'), phase('backward', '↑ gradients'))),
    block(layer), layer === null && prediction()), detail());
}

// Routing: a row a token, a column an expert; a disk's area is p, filled where the token chose the expert, and then its weight stands there.
function routingView() {
  if (!gates.length) return h('div', {class: 'panel'}, h('h2', {}, 'Routing'), h('p', {}, 'This model has no router: no adapter, or one without experts.'));
  const routers = gates.map((gate) => {
    const layer = layerOf(gate.choice), panel = h('section', {class: 'panel router'}, h('h3', {}, `Layer ${layer}`));
    if (![gate.p, gate.choice, gate.w].every((one) => one.isCarried)) {
      panel.append(h('p', {class: 'absent'}, missingText(gate.choice)));
      return panel;
    }
    const counts = new Array(gate.experts).fill(0), sums = new Array(gate.experts).fill(0), own = allTokens(gate.adapter);
    const rows = own.map((row) => {
      const mine = new Map(chosen(gate, row).map((one) => [one.expert, one.slot]));
      const cells = range(0, gate.experts).map((e) => {
        const p = gate.p.value([row.b, row.t, e]), slot = mine.get(e);
        sums[e] += p;
        if (slot !== undefined) counts[e] += 1;
        const disk = svg('svg', {viewBox: '-12 -12 24 24', class: 'disk' + (slot === undefined ? '' : ' mine'), 'aria-hidden': 'true'},
          svg('circle', {r: Math.max(1, 10 * Math.sqrt(p))}), svg('circle', {r: 10, class: 'whole'}));
        const go = slot === undefined ? spell(gate.p, [row.b, row.t, e]) : spell(gate.w, [row.b, row.t, slot]);
        const text = slot === undefined ? `p ${p.toFixed(3)}` : `w ${gate.w.value([row.b, row.t, slot]).toFixed(3)}`;
        return h('td', {}, h('button', {type: 'button', class: 'cell' + (slot === undefined ? '' : ' mine'), 'data-go': go, title: go}, disk, h('span', {}, text)));
      });
      const place = row.b * T + row.t;
      return h('tr', {class: place === state.place ? 'on' : null}, h('th', {scope: 'row'}, `${B > 1 ? row.b + '·' : ''}${row.t} `, h('code', {}, tokenText(place))), cells);
    });
    const slots = counts.reduce((a, b) => a + b, 0);
    const foot = (title, cell) => h('tr', {}, h('th', {scope: 'row'}, title), range(0, gate.experts).map((e) => h('td', {}, cell(e))));
    panel.append(h('div', {class: 'wide'}, h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'token'), range(0, gate.experts).map((e) =>
      h('th', {scope: 'col'}, `${marks[e % marks.length]} ${e}`)))), h('tbody', {}, rows), h('tfoot', {},
      foot('tokens', (e) => [`${counts[e]} `, h('span', {class: 'load', title: `${brief(100 * counts[e] / slots, 3)} % of the slots`},
        h('span', {style: `width:${100 * counts[e] / slots}%`}), h('i', {style: `left:${100 / gate.experts}%`}))]),
      foot('mean p', (e) => (sums[e] / own.length).toFixed(3))))));
    return panel;
  });
  return h('div', {}, h('section', {class: 'panel'}, h('h2', {}, 'Which expert computes which token'),
    h('p', {}, 'A row is a token, a column an expert. The area of a disk is p, what the router gives the expert; it is filled where the token chose the '
      + 'expert, and the number is then its weight w. Below: how many tokens each expert has, with its share of the slots as a bar; the mark is the share '
      + 'that all would have alike. Press a cell to see where its number comes from.')), h('div', {class: 'routers'}, routers));
}

// Training: the loss, and the share of the slots that each expert has, layer by layer.
function trainingView() {
  const training = run.training;
  if (!training) {
    return h('div', {class: 'panel'}, h('h2', {}, 'Training'),
      h('p', {}, 'No training run is known of this model: the adapter’s folder has no metrics.jsonl.'));
  }
  const mean = training.width > 1 ? `, each point the mean of ${training.width} steps` : '';
  const count = training.load.length === training.at.length ? training.load[0].length : 0, experts = count ? training.load[0][0].length : 0;
  const charts = range(0, count).map((layer) => {
    const series = range(0, experts).map((e) => ({name: `${marks[e % marks.length]}${e}`, values: training.load.map((one) => one[layer][e])}));
    const last = training.load.at(-1)[layer], most = Math.max(2 / experts, ...series.flatMap((one) => one.values));
    return h('section', {class: 'panel'}, h('h3', {}, `Load of the experts in layer ${layer}`), lines(series, {width: 420, height: 190, most, level: 1 / experts, unit: `share of slots by step, layer ${layer}`}),
      h('p', {class: 'hint'}, `last: ${last.map((x, e) => `${marks[e % marks.length]}${e} ${(100 * x).toFixed(1)} %`).join(', ')}`));
  });
  const first = training.loss[0], end = training.loss.at(-1);
  return h('div', {}, h('section', {class: 'panel'}, h('h2', {}, 'How it was trained'),
    h('p', {}, `${training.steps} steps${mean}. The loss is the cross-entropy of a step’s batch. `, count > 0 && ('The load of an expert is its share of all slots; '
      + `the fine line is ${brief(100 / experts, 3)} %, the share that all would have alike. Every line has dashes of its own and its name at its end.`))),
  h('div', {class: 'charts'}, h('section', {class: 'panel'}, h('h3', {}, 'Loss'),
    lines([{name: '', values: training.loss}], {width: 420, height: 190, most: Math.max(...training.loss), unit: 'loss by step'}),
    h('p', {class: 'hint'}, `from ${brief(first, 4)} to ${brief(end, 4)}`)), charts));
}

function aboutView() {
  const size = (n) => n.toLocaleString('en-US').replace(/,/g, ' ');
  const carried = [...points, ...weights].filter((one) => one.isCarried), all = [...points, ...weights];
  const rows = run.left.map(([part, layer, tensors, numbers]) => h('tr', {}, h('td', {}, part), h('td', {}, layer === null ? '–' : String(layer)),
    h('td', {}, size(tensors)), h('td', {}, size(numbers))));
  return h('div', {class: 'about'}, h('section', {class: 'panel'}, h('h2', {}, 'What this page is'),
    h('p', {}, 'A run of one batch through the model: forward, backward and one step of AdamW, in float32. Every tensor and weight that is shown lies in this file as '
      + 'it was in the run, bit for bit what ', h('code', {}, 'mixlora trace --activations --backward --steps 1'), ' writes. The terms of a number are computed here, in your browser, '
      + 'in float64, of those numbers, by the formulas that ', h('code', {}, 'mixlora step'), ' has for its ', h('code', {}, 'why'), '. Nothing is loaded from anywhere.'),
    h('p', {}, `${size(carried.length)} of ${size(all.length)} tensors and weights are here, ${size(carried.reduce((n, one) => n + one.count, 0))} numbers.`),
    run.command && h('pre', {}, run.command)),
    h('section', {class: 'panel'}, h('h2', {}, 'What is left out, and why'),
      rows.length ? [h('p', {}, 'The page has a largest size. Parts are put in one after the other, each whole or not at all; these had no room. ',
        h('code', {}, '--size'), ' raises the limit, ', h('code', {}, '--layers'), ' says which layers come before everything else, a shorter prompt has fewer of them.'),
      h('div', {class: 'wide'}, h('table', {class: 'plain'}, h('thead', {}, h('tr', {}, ['part', 'layer', 'tensors', 'numbers'].map((text) => h('th', {scope: 'col'}, text)))),
        h('tbody', {}, rows)))] : h('p', {}, 'Nothing.')),
    h('section', {class: 'panel'}, h('h2', {}, 'Check it'), h('p', {}, 'Form some numbers of every tensor anew, of their terms, and compare them with the run: what rounding of float32 explains is right.'),
      h('p', {}, h('button', {type: 'button', class: 'main', onclick: () => document.getElementById('checked').replaceChildren(checkTable())}, 'Check the numbers')),
      h('div', {id: 'checked'})),
    h('section', {class: 'panel'}, h('h2', {}, 'Keys'), keyTable()));
}

// Some elements of every tensor, formed anew; the worst difference as a multiple of what rounding explains.
function check(few = 24) {
  const kinds = new Map();
  for (const tensor of points) {
    const kind = kinds.get(tensor.operation) ?? {tensors: 0, numbers: 0, wrong: [], worst: 0, skipped: 0};
    kinds.set(tensor.operation, kind);
    kind.tensors += 1;
    if (!tensor.isCarried) { kind.skipped += 1; continue; }
    for (let n = 0; n < Math.min(few, tensor.count); n++) {
      const index = tensor.index(tensor.count <= few ? n : (n * 7919 + n * n) % tensor.count), value = tensor.value(index);
      let form;
      try { form = why(tensor, index); } catch (error) {
        if (!(error instanceof Missing)) throw error;
        kind.skipped += 1;
        break;
      }
      kind.numbers += 1;
      const error = Math.abs(form.recomputed - value) / (2 ** -24 * Math.max(form.size, Math.abs(value), 1e-30));
      if (!within(form, value)) kind.wrong.push(`${spell(tensor, index)} is ${value}, its terms give ${form.recomputed}`);
      if (error > kind.worst) kind.worst = error;
    }
  }
  return kinds;
}

function checkTable() {
  const kinds = [...check()], wrong = kinds.flatMap(([, kind]) => kind.wrong), numbers = kinds.reduce((n, [, kind]) => n + kind.numbers, 0);
  return h('div', {}, h('p', {id: 'verdict', class: wrong.length ? 'bad' : 'good'}, wrong.length || !numbers ? `✗ ${wrong.length} of ${numbers} numbers are not what their terms give: ${wrong.slice(0, 8).join('; ')}`
    : `✓ ${numbers} numbers of ${kinds.reduce((n, [, kind]) => n + kind.tensors - kind.skipped, 0)} tensors are what their terms give.`),
  h('div', {class: 'wide'}, h('table', {class: 'plain'}, h('thead', {}, h('tr', {}, ['operation', 'tensors', 'numbers', 'wrong', 'largest difference, in roundings', 'terms not here']
    .map((text) => h('th', {scope: 'col'}, text)))), h('tbody', {}, kinds.map(([name, kind]) => h('tr', {}, h('td', {}, name), h('td', {}, String(kind.tensors)),
      h('td', {}, String(kind.numbers)), h('td', {}, String(kind.wrong.length)), h('td', {}, brief(kind.worst, 3)), h('td', {}, String(kind.skipped))))))));
}
