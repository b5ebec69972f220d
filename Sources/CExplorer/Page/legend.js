// What colors, marks and shapes mean, each drawn as the page draws it.

function legend() {
  const row = (mark, ...text) => h('div', {}, h('dt', {}, mark), h('dd', {}, text));
  const drawn = (width, height, draw) => {
    const node = h('canvas', {style: `width:${width}px;height:${height}px`, 'aria-hidden': 'true'});
    later(() => draw(node, {width, height}));
    return node;
  };
  const values = [0.5, -0.8, 0.25, 1, -0.4, 0.7], matrix = {count: 12, width: 6, values: new Float32Array([...values, ...values].map((x, i) => i < 6 ? -x : x))};
  const bar = (kind, side) => h('span', {class: 'bar'}, h('span', {class: kind, style: `width:35%;${side}:50%`}));
  const token = (kind, text, below) => h('span', {class: 'token' + kind, 'aria-selected': kind ? null : 'true'}, h('b', {}, text), h('small', {}, below));
  const disk = (kind) => svg('svg', {viewBox: '-12 -12 24 24', class: 'disk' + kind}, svg('circle', {r: 6}), svg('circle', {r: 10, class: 'whole'}));
  const line = (n) => svg('svg', {viewBox: '0 0 44 8', width: 44, height: 8}, svg('polyline', {points: '0,4 44,4', class: `series s${n}`}));
  const rows = [
    row(drawn(72, 34, (node, size) => bars(node, values, {...size, selected: 3})), 'A row, each number a bar: up and blue for +, down and orange for −. The longest is '
      + 'the largest of its row; ± says how large. The two small triangles point at the chosen number.'),
    row(drawn(72, 24, (node, size) => heat(node, matrix, {...size, row: 1, column: 3})), 'All rows from above, each number a field: the stronger the color, the larger; '
      + 'blue for +, orange for −. The long frame is the chosen row, the short one the chosen number.'),
    row([bar('plus', 'left'), bar('minus', 'right')], 'A term of a sum: to the right for +, to the left for −, as long as it is large.'),
    row([h('span', {class: 'factor'}, 'x[0,2,7]'), h('i', {class: 'word'}, ' ␣k')], 'A factor. Dotted below: press it, and it shows where it comes from. '
      + 'Behind it the text of a token that is not the chosen one.'),
    row(token('', '␣k', '✓ ␣d'), 'A token, framed if it is the chosen one. Below: what should follow; ✓ the model finds it likeliest, ✗ something else. '
      + '→ is the likeliest where no label counts.'),
    row(token(' padding', '·', 'padding'), 'A place that is filled up to the length of the longest row: no token.'),
    row('␣ ∅ #7', 'In the text of a token: a space; no text at all; number 7 of the vocabulary, whose text is not on this page.'),
    row('← →', 'Buttons: to the number before, to the next.'),
    row('↓ ↑', 'The way forward, values; the way back, gradients.'),
    row([h('span', {class: 'chip trained'}, 'B'), ' ', h('span', {class: 'chip'}, 'W')], 'A weight that is trained, in bold; one that is frozen.'),
    row(h('span', {class: 'chip away'}, 'x'), 'Dashed: its numbers are not on this page, which had no room for them.'),
    row(h('span', {class: 'node none'}, h('small', {}, 'a decision')), 'Dashed, and not to be pressed: it has no gradient.'),
  ];
  if (points.some((one) => one.operation === 'attention')) {
    rows.push(row(svg('svg', {class: 'pattern', width: 34, height: 14}, svg('rect', {x: 2, y: 2, width: 10, height: 10}), svg('rect', {x: 20, y: 4, width: 6, height: 6})),
      'Attention: a row the token that looks, a column one that it sees; the larger the square, the larger P. The frame is the chosen token’s row.'));
  }
  if (gates.length) {
    rows.push(row(marks.join(' '), `Expert 0, expert 1 and so on${gates.some((gate) => gate.experts > marks.length) ? `; from expert ${marks.length} on the marks begin anew` : ''}.`),
      row(h('span', {class: 'expert mine'}, '✓ w'), 'A thick frame: an expert that the chosen token goes to, with its weight w in the sum of the experts.'),
      row([disk(' mine'), disk('')], 'Routing: the inner disk’s area is p, what the router gives the expert, the outer ring p = 1. Filled: the token goes there. '
        + '▸ marks the chosen token’s row.'),
      row(h('span', {class: 'load'}, h('span', {style: 'width:60%'}), h('i', {style: 'left:25%'})), 'An expert’s share of all slots; the upright mark is the share that all would have alike.'));
  }
  if (run.training) rows.push(row([line(0), ' ', line(1)], 'Training: each line has dashes of its own, and its name at its end. The fine level line is the share that all would have alike.'));
  return rows;
}
