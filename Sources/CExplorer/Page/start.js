// What is chosen, and how it is chosen: by pointer, by keys, by the page's address.

const views = [['model', 'Model', modelView], ['routing', 'Routing', routingView], ['training', 'Training', trainingView], ['about', 'About', aboutView]];

// Writes the address. An entry of the browser's history knows how many lie behind it in this page: so many times there is a way back.
const depth = () => history.state?.depth ?? 0;
function visit(address, replaces = false) {
  if (replaces) history.replaceState({depth: depth()}, '', '#' + address);
  else if (location.hash !== '#' + address) history.pushState({depth: depth() + 1}, '', '#' + address);
}

// Chooses a number; `replaces` steps without a new entry in the browser's history.
function select(tensor, index, replaces = false) {
  visit(spell(tensor, index), replaces);
  choose(tensor, index);
  render();
}

function choose(tensor, index) {
  Object.assign(state, {view: 'model', tensor, index, layer: layerOf(tensor)});
  if (!tensor.isWeight && tensor.phase !== 'optimizer') state.phase = tensor.phase;
  if (tensor.isOfTokens && isReal(index[0], index[1])) state.place = index[0] * T + index[1];
  else if (expertOf(tensor) !== null && tensor.formula && tensor.isCarried && index.length === 2) {
    const tokens = points.find((one) => one.operation === 'tokens' && layerOf(one) === layerOf(tensor) && expertOf(one) === expertOf(tensor));
    if (tokens?.isCarried && rowFor(tensor, tokens.values[index[0]]) === index[0]) state.place = tokens.values[index[0]];
  }
}

// The element of a tensor that a reader means who names none: in the row of the chosen token.
function usual(tensor) {
  if (!tensor.isCarried || tensor.count === 0) return [];
  const row = rowFor(tensor, state.place), old = state.tensor && state.tensor.width === tensor.width ? state.index[state.index.length - 1] ?? 0 : 0;
  return tensor.index((row ?? 0) * tensor.width + (tensor.width > old ? old : 0));
}

// An address: NAME, NAME[i,j] or a view; false for anything else.
function open(address) {
  const view = views.find(([name]) => name === address);
  if (view) { state.view = view[0]; return true; }
  const [, name, list] = /^(.*?)(?:\[([\d,]+)\])?$/.exec(address), tensor = byName.get(name);
  if (!tensor) return false;
  const index = list ? list.split(',').map(Number) : usual(tensor);
  const fits = index.length === tensor.shape.length && index.every((i, axis) => i < tensor.shape[axis]);
  choose(tensor, fits ? index : usual(tensor));
  return true;
}

function go(address) {
  if (!open(address)) return;
  visit(state.view === 'model' ? spell(state.tensor, state.index) : state.view);
  render();
}

// Another token: the same tensor's row of it, or the same of an expert that it has.
function chooseToken(place) {
  state.place = place;
  let tensor = state.tensor;
  const [b, t] = [Math.floor(place / T), place % T];
  if (tensor.isOfTokens) return select(tensor, [b, t, state.index[2] ?? 0], true);
  if (expertOf(tensor) !== null && tensor.formula && rowFor(tensor, place) === null) {
    const gate = gates.find((one) => layerOf(one.choice) === layerOf(tensor)), own = gate?.choice.isCarried ? chosen(gate, {b, t})[0] : undefined;
    const other = own && byName.get(tensor.name.replace(/\.experts\.\d+\./, `.experts.${own.expert}.`));
    if (other && rowFor(other, place) !== null) tensor = other;
  }
  const row = rowFor(tensor, place);
  if (row !== null && tensor.isCarried) return select(tensor, [row, state.index[1] ?? 0], true);
  render();
}

function step(by) {
  const {tensor, index} = state;
  if (!tensor.isCarried || tensor.count === 0) return;
  const last = index.length - 1, column = index[last] + by;
  if (column >= 0 && column < tensor.shape[last]) select(tensor, [...index.slice(0, last), column], true);
}

function stepRow(by) {
  const {tensor, index} = state;
  if (tensor.isOfTokens || !tensor.isCarried || index.length < 2 || tensor.formula && rowFor(tensor, state.place) !== null) {
    const at = places.indexOf(state.place) + by;
    if (at >= 0 && at < places.length) chooseToken(places[at]);
  } else if (index[0] + by >= 0 && index[0] + by < tensor.shape[0]) select(tensor, [index[0] + by, ...index.slice(1)], true);
}

function stepTensor(by) {
  const at = points.indexOf(state.tensor) + by;
  if (at >= 0 && at < points.length) go(points[at].name);
}

function showPhase(phase) {
  if (phase === state.phase) return;
  const other = phase === 'backward' ? gradientOf(state.tensor) : state.tensor.phase === 'backward' ? valueOf(state.tensor) : null;
  state.phase = phase;
  const fits = other && other.shape.length === state.index.length && state.index.every((i, axis) => i < other.shape[axis]);
  if (other) select(other, fits ? state.index : usual(other)); else render();
}

// Draws everything anew; what had the focus keeps it.
function render() {
  const active = document.activeElement, key = ['id', 'data-go', 'data-place', 'data-phase', 'data-step', 'data-view']
    .map((name) => [name, active?.getAttribute?.(name)]).find(([, value]) => value);
  const isInTerms = active?.closest?.('.terms'), scrolled = document.getElementById('number')?.scrollTop ?? 0;
  document.getElementById('views').replaceChildren(...views.map(([name, title], n) => h('button', {type: 'button', 'data-view': name,
    'aria-current': state.view === name ? 'page' : null, title: `${title} (${n + 1})`}, title)));
  document.getElementById('back').hidden = depth() === 0;
  document.getElementById('marks').replaceChildren(...legend());
  tokenStrip();
  document.getElementById('main').replaceChildren(views.find(([name]) => name === state.view)[2]());
  drawWaiting();
  const same = key && !isInTerms && document.querySelector(`[${key[0]}="${CSS.escape(key[1])}"]`);
  // Who follows a factor goes on from the row that it leads to.
  (same || isInTerms && document.getElementById('row'))?.focus?.({preventScroll: true});
  document.querySelector('.token[aria-selected="true"]')?.scrollIntoView({block: 'nearest', inline: 'nearest'});
  if (state.shown && state.shown !== state.tensor && !isNarrow()) document.querySelector('#block [aria-current=true]')?.scrollIntoView({block: 'nearest'});
  if (state.shown === state.tensor && scrolled) document.getElementById('number')?.scrollTo(0, scrolled);
  state.shown = state.tensor;
  // The chosen layer stays in sight, in a column or on a phone in a row.
  const layer = document.querySelector('.layer[aria-current=true]')?.parentNode, column = layer?.closest('nav'), row = layer?.parentNode;
  if (layer) column.scrollTop = layer.offsetTop - column.clientHeight / 2;
  if (layer) row.scrollLeft = layer.offsetLeft - row.clientWidth / 2;
}
// On a narrow screen the number lies below what was pressed, else beside it.
const isNarrow = () => matchMedia('(max-width: 900px)').matches;

const keys = [
  ['← →', 'the number before, the next', () => step(-1), () => step(1), 'ArrowLeft', 'ArrowRight'],
  ['↑ ↓', 'the token before, the next; of a matrix the row', () => stepRow(-1), () => stepRow(1), 'ArrowUp', 'ArrowDown'],
  ['[ ]', 'the tensor before, the next, in the order of the run', () => stepTensor(-1), () => stepTensor(1), '[', ']'],
  ['g', 'values, or gradients', () => showPhase(state.phase === 'backward' ? 'forward' : 'backward'), null, 'g', null],
  ['1 2 3 4', 'model, routing, training, about', null, null, null, null],
  ['Tab, Enter', 'from link to link, and go there', null, null, null, null],
  ['Alt ←', 'back to where you were', null, null, null, null],
  ['?', 'these keys', () => help(), null, '?', null],
];
const keyTable = () => h('table', {class: 'plain keys'}, h('tbody', {}, keys.map(([names, text]) => h('tr', {}, h('th', {scope: 'row'}, h('kbd', {}, names)), h('td', {}, text)))));
function help() {
  const dialog = document.getElementById('help');
  dialog.replaceChildren(h('h2', {}, 'Keys'), keyTable(), h('form', {method: 'dialog'}, h('button', {class: 'main'}, 'Close')));
  dialog.showModal();
}

document.addEventListener('keydown', (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || document.getElementById('help').open) return;
  const view = views[Number(event.key) - 1];
  const found = keys.find((one) => one[4] === event.key || one[5] === event.key);
  if (view) go(view[0] === 'model' ? spell(state.tensor, state.index) : view[0]);
  else if (found) (found[4] === event.key ? found[2] : found[3])();
  else return;
  event.preventDefault();
});
document.addEventListener('click', (event) => {
  const button = event.target.closest?.('[data-go],[data-view],[data-place],[data-phase],[data-step]');
  if (!button) return;
  const {go: address, view, place, phase, step: by} = button.dataset;
  if (address) {
    go(address);
    if (isNarrow()) document.getElementById('number')?.scrollIntoView({block: 'start', behavior: 'smooth'});
  } else if (view) go(view === 'model' ? spell(state.tensor, state.index) : view);
  else if (place) chooseToken(Number(place));
  else if (phase) showPhase(phase);
  else step(Number(by));
});
window.addEventListener('popstate', () => { if (!open(address())) open(home); render(); });
document.getElementById('back').addEventListener('click', () => history.back());
let width = window.innerWidth;
window.addEventListener('resize', () => { if (window.innerWidth !== width) { width = window.innerWidth; render(); } });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', render);

// What stands behind # in the address; nothing, if that cannot be read.
function address() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ''; }
}

// The theme: the system's, until somebody chooses.
const themes = ['light dark', 'light', 'dark'], themeNames = ['◐ system', '○ light', '● dark'];
let theme = 0;
document.getElementById('theme').addEventListener('click', () => setTheme((theme + 1) % 3));
function setTheme(number) {
  theme = number;
  document.documentElement.style.colorScheme = themes[theme];
  document.getElementById('theme').textContent = themeNames[theme];
  render();
}

document.title = `${run.title} – mixlora explain`;
document.getElementById('title').textContent = run.title;
document.getElementById('facts').append(...run.facts.map(([name, value]) => h('span', {}, h('i', {}, name), ' ', value)));
const asked = address();
state.tensor = points.find((one) => one.isOfTokens && one.isCarried && /mlp\.output$/.test(one.name)) ?? points.find((one) => one.isCarried) ?? points[0];
state.layer = layerOf(state.tensor);
state.place = places.find((place) => batch.targets[place] !== null) ?? places[0] ?? 0;
state.index = usual(state.tensor);
const home = spell(state.tensor, state.index);  // what an address shows that names nothing
if (asked && asked !== 'check') open(asked);
if (asked === 'check') state.view = 'about';
setTheme(0);
if (asked === 'check') document.getElementById('checked').replaceChildren(checkTable());
