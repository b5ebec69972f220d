/// What is the same in every report's page: style, explanation, script.
enum ReportPage {
  /// What a newcomer needs to read the page.
  static let legend = """
    <details open><summary>How to read this page</summary>
    <dl class="legend">
    <dt>error<dd>How far a tensor of the candidate is from the reference’s: ‖candidate − reference‖ / ‖reference‖. 0.01 means one percent.
    <dt>budget<dd>How large that error may be by rounding alone. Numbers have few digits (float32 about 7, bfloat16 about 2), so even a
    right program is a little off; how much follows from the precision and from how many numbers are added up.
    <dt>own error<dd>The error that the operation itself makes: the reference’s operation is run on the candidate’s <em>own</em> inputs, so
    that what went wrong before does not count (“by itself”, local error).
    <dt><span class="chip ok">ok</span><dd>The error is within the budget: rounding explains it.
    <dt><span class="chip mismatch">mismatch</span><dd>The operation’s own error is outside its budget. The first one is where to look.
    <dt><span class="chip propagated">propagated</span><dd>The error is large, but it came in with the inputs: the operation is right.
    <dt><span class="chip routing">routing</span><dd>A router chose another expert because two were equally likely up to rounding; what
    follows from that is no bug.
    </dl></details>
    """

  static let style = """
    :root{--back:#fbfbfa;--card:#fff;--text:#1c1f23;--soft:#5f6670;--line:#dcdfe3;--area:#e3e6ea;
    --ok:#2d6fb3;--mismatch:#c8201f;--propagated:#c27a00;--routing:#7b4bc4;--good:#1f7a3f;color-scheme:light dark}
    @media (prefers-color-scheme:dark){:root{--back:#15171a;--card:#1d2024;--text:#e6e8ea;--soft:#a0a7b0;--line:#363b42;--area:#2c3138;
    --ok:#6fb1f2;--mismatch:#ff6b61;--propagated:#f0b23c;--routing:#b794f6;--good:#5fce86}}
    *{box-sizing:border-box}
    body{margin:0 auto;max-width:1200px;padding:1rem;background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif}
    header,section,body>details{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem 1.2rem;margin:0 0 1rem}
    header{border-left:6px solid var(--mismatch)}header.good{border-left-color:var(--good)}
    .verdict{margin:0;font-weight:700;letter-spacing:.03em;color:var(--mismatch)}.good .verdict{color:var(--good)}
    h1{margin:.1rem 0;font-size:1.45rem;overflow-wrap:anywhere}h2{margin:0 0 .3rem;font-size:1.1rem}
    p{margin:.2rem 0 .7rem;max-width:72ch}section>p{color:var(--soft)}.lead{font-size:1.05rem}
    .chips{margin:.6rem 0 0}.chip{display:inline-block;padding:0 .6em;border-radius:1em;border:1px solid;font-size:.85rem;white-space:nowrap}
    .chip.ok{color:var(--ok)}.chip.mismatch{color:var(--mismatch)}.chip.propagated{color:var(--propagated)}.chip.routing{color:var(--routing)}
    dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;margin:.2rem 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
    @media (max-width:560px){dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 .5rem}header,section,body>details{padding:.8rem}}
    summary{cursor:pointer;font-weight:600}small{color:var(--soft)}code,pre{font:.88em ui-monospace,monospace}pre{overflow-x:auto}
    .wide{overflow-x:auto}.flow{display:flex;flex-wrap:wrap;gap:1rem 2rem}
    figure{margin:0;max-width:100%;overflow-x:auto}figcaption{font-size:.85rem;color:var(--soft);max-width:32rem;overflow-wrap:anywhere}
    svg{display:block;font:11px system-ui,sans-serif}svg.plot{width:100%;min-width:560px;height:auto}
    svg text{fill:var(--soft)}svg .layer{font-size:10px}svg .name{font:10.5px ui-monospace,monospace}svg .area{font-weight:600}
    .budget{fill:var(--area)}.grid{stroke:var(--line);fill:none}.phase{stroke:var(--soft);fill:none}.frame{stroke:var(--line);fill:none}
    svg .ok{fill:var(--ok)}svg .mismatch{fill:var(--mismatch)}svg .propagated{fill:var(--propagated)}svg .routing{fill:var(--routing)}
    .marks>*{fill-opacity:.75;cursor:pointer}.marks>.mismatch{fill-opacity:1}.marks>:hover{stroke:var(--text);stroke-width:2}
    table{border-collapse:collapse;font-size:.83rem;font-variant-numeric:tabular-nums}
    th{position:sticky;top:0;background:var(--card);text-align:right;cursor:pointer;color:var(--soft);font-weight:600}
    th,td{padding:.15rem .7rem .15rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
    td{text-align:right}td:first-child{font:.95em ui-monospace,monospace}
    th:first-child,td:first-child,th:nth-child(-n+3),td:nth-child(-n+3){text-align:left}
    tr.mismatch td:nth-child(2){color:var(--mismatch);font-weight:700}tr.propagated td:nth-child(2){color:var(--propagated)}
    tr.routing td:nth-child(2){color:var(--routing)}tr.ok td:nth-child(2){color:var(--ok)}tr.on td{background:var(--area)}
    .filter{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:center}
    input,select{font:inherit;background:var(--back);color:var(--text);border:1px solid var(--line);border-radius:4px;padding:.15rem .4rem;max-width:100%}
    #tip{position:fixed;z-index:2;background:var(--text);color:var(--back);padding:.3rem .6rem;border-radius:5px;font-size:.82rem;max-width:min(34rem,94vw);overflow-wrap:anywhere;pointer-events:none;white-space:pre-line}
    """

  /// Filters and sorts the table, and ties marks to rows: the n-th mark of a picture is the n-th tensor.
  static let script = """
    (function(){
    var table=document.getElementById('tensors'),body=table.tBodies[0],rows=[].slice.call(body.rows),tip=document.getElementById('tip');
    var name=document.getElementById('name'),verdict=document.getElementById('verdict'),count=document.getElementById('count');
    function filter(){var n=0,text=name.value.toLowerCase(),v=verdict.value;
      rows.forEach(function(row){var show=row.cells[0].textContent.toLowerCase().indexOf(text)>=0&&
        (!v||row.className.split(' ')[0]===v||v==='not'&&!row.classList.contains('ok'));row.hidden=!show;if(show)n++});
      count.textContent=n+' of '+rows.length+' tensors'}
    name.addEventListener('input',filter);verdict.addEventListener('change',filter);
    function number(text){if(text==='inf'||text==='nan')return Infinity;var x=parseFloat(text);return isNaN(x)?-Infinity:x}
    [].forEach.call(table.tHead.rows[0].cells,function(head,c){var down=false;head.tabIndex=0;head.title='sort';
      function sort(){down=!down;var words=c<4;
        rows.slice().sort(function(a,b){var x=a.cells[c].textContent,y=b.cells[c].textContent;
          var d=words?(x<y?-1:x>y?1:0):number(y)-number(x);return (down?1:-1)*(d||0)}).forEach(function(row){body.appendChild(row)})}
      head.addEventListener('click',sort);head.addEventListener('keydown',function(e){if(e.key==='Enter')sort()})});
    function row(mark){return rows[[].indexOf.call(mark.parentNode.children,mark)]}
    function marked(e){return e.target.closest&&e.target.closest('.marks>*')}
    document.addEventListener('mouseover',function(e){var mark=marked(e);if(!mark||!row(mark)){tip.hidden=true;return}
      var c=row(mark).cells;tip.textContent=c[0].textContent+' ('+c[2].textContent+')\\n'+c[1].textContent+': error '+c[4].textContent+', '+
        c[6].textContent+' × budget'+(c[7].textContent?'; by itself '+c[7].textContent+', '+c[8].textContent+' × budget':'');
      tip.hidden=false;tip.style.left=Math.max(4,Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8))+'px';
      tip.style.top=(e.clientY+18+tip.offsetHeight>innerHeight?e.clientY-tip.offsetHeight-10:e.clientY+18)+'px'});
    document.addEventListener('click',function(e){var mark=marked(e);if(!mark||!row(mark))return;
      name.value='';verdict.value='';filter();rows.forEach(function(r){r.classList.remove('on')});
      row(mark).classList.add('on');row(mark).scrollIntoView({block:'center'})});
    })();
    """
}
