"""How the report looks: one style sheet for light, dark, a phone and a wide screen."""

PALETTE = ("#2f81c4", "#c8650a", "#2a9d74", "#b5527f", "#8a6fc9", "#9a8a1c", "#4aa3b5", "#7d7d7d")
"""Colours that the colour-blind can tell apart, on white and on black; the first two also draw the curves."""

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881;
  --dim: color-mix(in srgb, currentColor 70%, transparent) }
* { box-sizing: border-box }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1.2rem;
  color: light-dark(#1c2126, #d9dee3); background: light-dark(#fff, #14181c); overflow-wrap: anywhere }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
p.lead, .dim { color: var(--dim); font-weight: normal }
summary { cursor: pointer; margin: .6rem 0 }
pre { background: var(--soft); padding: .9rem; border-radius: 8px; white-space: pre-wrap }

table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  overflow-wrap: normal; font-variant-numeric: tabular-nums }
th { font-weight: 600; vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
td:first-child { font-weight: 600; white-space: nowrap } .interval { white-space: nowrap }
@media (max-width: 75rem) {
  table, tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem }
  table { display: block } tr { border: 1px solid var(--line); border-radius: 8px; padding: .4rem .8rem }
  tr:first-child, td:empty { display: none }
  td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .15rem 0 }
  td::before { content: attr(data-title); color: var(--dim); text-align: left }
  td:first-child::before { content: none }
}

.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem 1.4rem }
figure { margin: 0; min-width: 0 } figcaption { font-size: .9rem }
svg { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif;
  stroke-linejoin: round; stroke-linecap: butt }
.key { white-space: nowrap; margin-right: 1rem } .key i { display: inline-block; width: .75rem; height: .75rem;
  border-radius: 2px; margin-right: .35rem; vertical-align: -.05rem }
.bar { display: flex; height: .9rem; border-radius: 4px; overflow: hidden; margin-bottom: .4rem }

.sample { border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; overflow: hidden }
.prompt { background: var(--soft); padding: .6rem .9rem; white-space: pre-wrap }
.responses { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)) }
.response { padding: .6rem .9rem; border-top: 1px solid var(--line) }
.response p { margin: .2rem 0; white-space: pre-wrap }
p.question { font-size: 1.1rem; margin: .6rem 0 }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1rem; margin: 0 }
dl.facts dt { color: var(--dim) } dl.facts dd { margin: 0 }
@media (max-width: 30rem) { dl.facts { grid-template-columns: 1fr } dl.facts dd { margin-bottom: .5rem } }

@media print {
  :root { color-scheme: light } @page { margin: 14mm }
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0 }
  h2, h3 { break-after: avoid } figure, .sample, tr, li, dl.facts > * { break-inside: avoid }
  details, .screen { display: none }
  .bar, .key i { print-color-adjust: exact }
}
"""
