// The model from above, and a layer as the tensors that form each other: a line of them is formed of the lines before.
const state = {view: 'model', tensor: null, index: [], place: places[0] ?? 0, phase: 'forward', layer: null};

function layerOf(tensor) {
  const found = /(?:^|\.)layers\.(\d+)\./.exec(tensor.name);
  return found ? Number(found[1]) : null;
}
const layers = [...new Set(points.map(layerOf))].filter((layer) => layer !== null).sort((a, b) => a - b);
const expertOf = (tensor) => { const found = /\.experts\.(\d+)\./.exec(tensor.name); return found ? Number(found[1]) : null; };

// What a point is called by its path, from the layer on.
const names = [
  [/input_layernorm$/, 'norm before attention'], [/self_attn\.q_proj$/, 'queries q'], [/self_attn\.k_proj$/, 'keys k'],
  [/self_attn\.v_proj$/, 'values v'], [/q_proj\.rotated$/, 'q turned by position'], [/k_proj\.rotated$/, 'k turned by position'],
  [/o_proj\.input$/, 'attention Σ P v'], [/self_attn\.o_proj$/, 'attention’s output'], [/residual$/, 'x + attention'],
  [/post_attention_layernorm$/, 'norm before feed-forward'], [/pre_feedforward_layernorm$/, 'norm before feed-forward'],
  [/post_feedforward_layernorm$/, 'norm behind feed-forward'], [/moe_gate$/, 'router’s logits z'], [/probabilities$/, 'p = softmax(z)'],
  [/choice$/, 'who computes'], [/moe_gate\.weights$/, 'weights w'], [/gate_proj\.base$/, 'W1 x, shared'], [/up_proj\.base$/, 'W3 x, shared'],
  [/gate_proj$/, 'a = W1 x + …'], [/up_proj$/, 'c = W3 x + …'], [/hidden$/, 'h = act(a) ⊙ c'], [/experts\.\d+\.down_proj$/, 'e = W2 h + …'],
  [/experts\.\d+\.tokens$/, 'its tokens'], [/down_proj\.input$/, 'v = Σ w h'], [/mlp$/, 'feed-forward’s output'], [/layers\.\d+$/, 'x + feed-forward'],
  [/embed_tokens$/, 'embedding'], [/^model\.norm$/, 'last norm'], [/lm_head$/, 'logits z'], [/^logits$/, 'logits'],
];
const pathOf = (name) => name.replace(/^(adapter\.\d+\.)?grad\./, '$1').replace(/\.output$/, '');
function titleOf(tensor) {
  const path = pathOf(tensor.name), found = tensor.isWeight ? null : names.find(([pattern]) => pattern.test(path));
  if (found && tensor.phase !== 'optimizer') return (tensor.phase === 'backward' ? 'gradient of ' : '') + found[1];
  const kind = tensor.isWeight ? '' : [['after.', 'after one step: '], ['exp_avg.', 'moment 1 of '], ['exp_avg_sq.', 'moment 2 of '], ['grad.', 'gradient of ']]
    .find(([prefix]) => tensor.name.startsWith(prefix))?.[1] ?? '';
  return kind + tensor.name.replace(/^.*layers\.\d+\./, '').replace(/^(after|exp_avg|exp_avg_sq|grad)\./, '');
}
const gradientOf = (tensor) => byName.get(tensor.name.replace(/^(adapter\.\d+\.)?/, '$1grad.'));
const valueOf = (tensor) => byName.get(pathOf(tensor.name) + '.output') ?? byName.get(pathOf(tensor.name)) ?? tensor;

// The token of the vocabulary that a number is about: a column of the logits, a row of the embedding or of the head.
const ofHead = new Set(['logits', ...points.filter((one) => one.operation === 'head').map((one) => pathOf(one.name))]);
const tables = new Set(points.filter((one) => ['embedding', 'head'].includes(one.operation)).flatMap((one) =>
  one.inputs.filter(({tensor}) => tensor?.isWeight && tensor.shape[0] === byName.get('logits')?.width).map(({name}) => name)));
function wordAt(tensor, index) {
  if (tensor.isOfTokens) return ofHead.has(pathOf(tensor.name)) ? index[2] : null;
  return tables.has(tensor.name.replace(/^(adapter\.\d+\.)?(grad|after|exp_avg|exp_avg_sq)\./, '')) ? index[0] : null;
}

// The row of a tensor that belongs to a token; null if it has none.
function rowFor(tensor, place) {
  if (tensor.isOfTokens) return place;
  const expert = expertOf(tensor), layer = layerOf(tensor);
  if (tensor.isWeight || expert === null || tensor.shape.length !== 2 || tensor.phase !== 'forward' && !/\.output$|hidden$/.test(tensor.name)) return null;
  const tokens = points.find((one) => one.operation === 'tokens' && layerOf(one) === layer && expertOf(one) === expert);
  const row = tokens && tokens.isCarried ? tokens.values.indexOf(place) : -1;
  return row < 0 ? null : row;
}
const belongsToExpert = (tensor) => expertOf(tensor) !== null;

// A button for a tensor, with the numbers that the chosen token has there.
function node(tensor) {
  const shown = state.phase === 'backward' ? gradientOf(tensor) : tensor;
  const title = titleOf(tensor), path = pathOf(tensor.name).replace(/^.*layers\.\d+\.?/, '') || pathOf(tensor.name);
  if (!shown) {
    return h('div', {class: 'node none', title: tensor.name}, h('b', {}, title), h('small', {}, ['choice', 'tokens'].includes(tensor.operation) ? 'a decision has no gradient' : 'has no gradient of its own'));
  }
  const row = rowFor(shown, state.place), picture = shown.isCarried && row !== null && shown.operation !== 'tokens';
  const note = !shown.isCarried ? 'not on this page' : shown.operation === 'tokens' ? [...shown.values].map(tokenText).join(' ') || 'none'
    : row === null && belongsToExpert(shown) ? 'not this token’s' : null;
  const button = h('button', {type: 'button', class: 'node' + (shown.isCarried ? '' : ' away'), 'data-go': shown.name, title: shown.name,
    'aria-current': shown === state.tensor ? 'true' : null}, h('b', {}, title), h('small', {class: 'path'}, path));
  if (picture) {
    const first = row * shown.width, values = shown.values.subarray(first, first + shown.width);
    if (shown.width <= 8) {
      button.append(h('span', {class: 'few'}, [...values].map((x) => brief(x, 3)).join('   ')));
    } else {
      const drawing = h('canvas', {'aria-hidden': 'true'});
      button.append(drawing);
      later(() => bars(drawing, values, {width: drawing.clientWidth || 120, height: 26}));
    }
  } else if (note !== null) button.append(h('small', {class: 'note'}, note));
  return button;
}

// What is drawn once the page knows how wide everything is.
const waiting = [];
const later = (draw) => waiting.push(draw);
const drawWaiting = () => { while (waiting.length) waiting.shift()(); };

// Tensors in lines: each below what it is formed of.
function lined(tensors) {
  const level = new Map();
  for (const tensor of tensors) {
    const above = tensor.inputs.map((input) => level.get(input.tensor)).filter((n) => n !== undefined);
    level.set(tensor, above.length ? Math.max(...above) + 1 : 0);
  }
  const result = [];
  for (const [tensor, n] of level) if (tensor.operation !== 'same') (result[n] ??= []).push(tensor);
  return result.filter((line) => line).map((line) => h('div', {class: 'line'}, line.map(node)));
}

// The adapter's or the base's weights that a part of the layer has, as small buttons: in the way back those of their gradients.
function trainedOf(list) {
  if (!list.some((w) => state.phase === 'forward' || byName.has('grad.' + w.name))) return null;
  return h('p', {class: 'weights'}, h('span', {class: 'tag'}, state.phase === 'backward' ? 'gradients of weights' : 'weights'), list.map((w) => {
    const gradient = byName.get('grad.' + w.name), shown = state.phase === 'backward' ? gradient : w;
    if (!shown) return null;
    const short = w.name.replace(/^.*layers\.\d+\./, '').replace(/^(self_attn|mlp)\./, '').replace(/experts\.\d+\./, '')
      .replace(/\.weight$/, '').replace(/_proj/, '').replace('lora_', '');
    return h('button', {type: 'button', class: 'chip' + (shown.isCarried ? '' : ' away') + (gradient ? ' trained' : ''), 'data-go': shown.name,
      title: `${shown.name} (${shown.shape})${gradient ? ', trained' : ', frozen'}`, 'aria-current': shown === state.tensor ? 'true' : null}, short);
  }));
}

function block(layer) {
  const all = points.filter((one) => one.phase === 'forward' && layerOf(one) === layer);
  const own = weights.filter((one) => layerOf(one) === layer);
  if (layer === null) {
    const outside = all.filter((one) => one.width > 1 || one.isOfTokens), single = all.filter((one) => !outside.includes(one) && !one.isOfTokens);
    return [h('section', {class: 'part'}, h('h3', {}, 'In front of the layers, and behind them'), lined(outside.filter((one) => one.isOfTokens)),
      h('p', {class: 'weights'}, single.map((one) => h('button', {type: 'button', class: 'chip', 'data-go': one.name,
        'aria-current': one === state.tensor ? 'true' : null}, `${one.name} = ${one.isCarried ? exact(one.values[0]) : '…'}`))), trainedOf(own))];
  }
  const residual = all.findIndex((one) => /residual\.output$/.test(one.name));
  const attention = all.slice(0, residual + 1), rest = all.slice(residual + 1);
  const isRouter = (one) => one.name.includes('.moe_gate'), isBase = (one) => one.name.includes('.base.');
  const firstExpert = rest.findIndex(belongsToExpert), before = rest.filter((one, i) => i < firstExpert && !isRouter(one) && !isBase(one));
  const after = rest.filter((one, i) => !belongsToExpert(one) && !isRouter(one) && !isBase(one) && !before.includes(one));
  const isIn = (word) => (w) => w.name.includes(word);
  const parts = [h('section', {class: 'part'}, h('h3', {}, 'Attention'), lined(attention),
    trainedOf(own.filter((w) => isIn('self_attn')(w) || isIn('input_layernorm')(w))))];
  if (firstExpert < 0) {
    parts.push(h('section', {class: 'part'}, h('h3', {}, 'Feed-forward'), lined(rest), trainedOf(own.filter((w) => isIn('.mlp.')(w) || isIn('post_')(w)))));
    return parts;
  }
  const experts = [...new Set(rest.map(expertOf))].filter((e) => e !== null).sort((a, b) => a - b);
  const gate = gates.find((one) => layerOf(one.choice) === layer);
  parts.push(
    h('section', {class: 'part'}, h('h3', {}, 'Feed-forward: router and what experts share'), lined(before),
      h('div', {class: 'halves'}, h('div', {}, h('h4', {}, 'Router'), lined(rest.filter(isRouter))),
        rest.some(isBase) && h('div', {}, h('h4', {}, 'Once a token, for all experts'), lined(rest.filter(isBase)))),
      trainedOf(own.filter((w) => isIn('moe_gate')(w) || isIn('.mlp.')(w) && !belongsToExpert(w) || isIn('post_')(w)))),
    h('section', {class: 'part'}, h('h3', {}, 'Experts'),
      h('div', {class: 'experts'}, experts.map((e) => expert(e, gate, rest.filter((one) => expertOf(one) === e), own.filter((one) => expertOf(one) === e))))),
    h('section', {class: 'part'}, h('h3', {}, 'Together again'), lined(after)));
  return parts;
}

// One expert: its tokens, whether it has the chosen one, and what it computes of it.
function expert(e, gate, own, its) {
  const row = {b: Math.floor(state.place / T), t: state.place % T};
  const slot = gate && gate.choice.isCarried && gate.w.isCarried ? chosen(gate, row).find((one) => one.expert === e)?.slot : undefined;
  const weight = slot === undefined ? null : gate.w.value([row.b, row.t, slot]);
  return h('article', {class: 'expert' + (weight === null ? '' : ' mine')},
    h('h4', {}, `${marks[e % marks.length]} Expert ${e}`, h('span', {}, weight === null ? 'not chosen' : `✓ w = ${brief(weight, 3)}`)),
    lined(own), trainedOf(its));
}
const marks = ['●', '■', '▲', '◆', '○', '□', '△', '◇'];

// The column of layers: what the stream is behind each for the chosen token, and which experts it had there.
function overview() {
  const isEmbedding = /embed_tokens/.test(state.tensor.name);
  const entry = (isCurrent, title, tensor, extra) => {
    const shown = tensor && state.phase === 'backward' ? gradientOf(tensor) ?? tensor : tensor, go = shown ?? tensor;
    const button = h('button', {type: 'button', class: 'layer', 'data-go': go.name, 'aria-current': isCurrent ? 'true' : null},
      h('b', {}, title), extra ?? null);
    const row = rowFor(go, state.place);
    if (go.isCarried && row !== null) {
      const drawing = h('canvas', {'aria-hidden': 'true'});
      button.append(drawing);
      later(() => bars(drawing, go.values.subarray(row * go.width, (row + 1) * go.width), {width: drawing.clientWidth || 120, height: 22}));
    }
    return h('li', {}, button);
  };
  const b = Math.floor(state.place / T), t = state.place % T, first = points[0];
  const list = [entry(state.layer === null && isEmbedding, 'embedding', first)];
  for (const layer of layers) {
    const output = points.find((one) => one.phase === 'forward' && new RegExp(`layers\\.${layer}\\.output$`).test(one.name));
    const gate = gates.find((one) => layerOf(one.choice) === layer && batch.owners[b] === one.adapter);
    const experts = gate && gate.choice.isCarried && gate.w.isCarried
      ? chosen(gate, {b, t}).map(({slot, expert}) => `${marks[expert % marks.length]} ${expert}: ${brief(gate.w.value([b, t, slot]), 2)}`).join('  ') : null;
    list.push(entry(layer === state.layer, `layer ${layer}`, output, experts && h('small', {}, experts)));
  }
  const head = points.find((one) => one.operation === 'head') ?? first;
  list.push(entry(state.layer === null && !isEmbedding, 'norm, logits, loss', head));
  return h('nav', {id: 'layers', class: 'panel', 'aria-label': 'Layers'},
    h('h2', {}, state.phase === 'backward' ? '↑ Way back' : '↓ Way forward'), h('ol', {}, list));
}
