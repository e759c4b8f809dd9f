"""The look of every page: light and dark, on screen and on paper, system fonts only."""

from __future__ import annotations

# Series colours are those of Okabe and Ito, which people with colour-blindness tell apart; lines differ in dashes too.
STYLE = """\
:root {
  color-scheme: light dark;
  --ink: #1b1b1f; --soft: #5a5a66; --paper: #ffffff; --card: #f4f5f8; --line: #d4d6de; --link: #0b57a4;
  --good: #14683b; --bad: #a3271c; --unknown: #5a5a66;
  --s0: #0062a3; --s1: #b84a00; --s2: #00795a; --s3: #9b3f76; --s4: #7a6200; --s5: #4b4b57;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e9e9ee; --soft: #a9a9b8; --paper: #15161a; --card: #202229; --line: #3c3f4a; --link: #8ec5ff;
    --good: #74d69c; --bad: #ff9a8d; --unknown: #a9a9b8;
    --s0: #56b4e9; --s1: #f0924a; --s2: #3fc79a; --s3: #e59bc6; --s4: #e6cf4a; --s5: #b9b9c6;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul { max-width: 46rem; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; margin: .8rem 0; }
.lead { font-size: 1.1rem; }
.note, .missing, figcaption, caption { color: var(--soft); font-size: .88rem; }
.missing { border-left: 4px solid var(--line); padding-left: .8rem; }
.limited { border: 2px solid var(--bad); color: var(--bad); font-weight: 700; padding: 0 .35rem; border-radius: 4px;
  font-size: .8rem; white-space: nowrap; }
.warning { border-left: 4px solid var(--bad); padding-left: .8rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85em; }
code { background: var(--card); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: var(--card); padding: .8rem; border-radius: 6px; margin: 0; width: max-content; min-width: 100%; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; padding-bottom: .35rem; caption-side: top; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
tbody th { font-weight: 500; min-width: 6.5rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 8rem; max-width: 22rem; }
.holds { color: var(--good); font-weight: 600; white-space: nowrap; }
.fails { color: var(--bad); font-weight: 600; white-space: nowrap; }
.unknown { color: var(--unknown); white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .92rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--link); }
figure { margin: .8rem 0; }
img { max-width: 100%; height: auto; border: 1px solid var(--line); }
img.pixels { image-rendering: pixelated; border-radius: 3px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); gap: 1rem; padding: 0;
  list-style: none; max-width: none; }
.gallery li { background: var(--card); border-radius: 8px; padding: .7rem; font-size: .88rem; overflow-wrap: anywhere; }
.gallery p { margin: .25rem 0; } .gallery img { margin: 0 .3rem .2rem 0; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; }
svg { width: 100%; height: auto; max-width: 46rem; display: block; font-size: 12px; }
svg text { fill: var(--ink); } svg .faint { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .raw { fill: none; stroke-width: 1; opacity: .35; }
svg .whisker { stroke: var(--ink); stroke-width: 1.4; } svg .mark { stroke: var(--s1); stroke-width: 3; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 7 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; }
.s3 { stroke: var(--s3); stroke-dasharray: 9 3 2 3; } .s4 { stroke: var(--s4); stroke-dasharray: 4 2; }
.s5 { stroke: var(--s5); stroke-dasharray: 1 2; }
.raw { stroke-dasharray: none; } circle.dot { stroke: none; }
.f0 { fill: var(--s0); } .f1 { fill: var(--s1); } .f2 { fill: var(--s2); } .f3 { fill: var(--s3); }
.f4 { fill: var(--s4); } .f5 { fill: var(--s5); }
footer { color: var(--soft); font-size: .85rem; padding-bottom: 2rem; margin-top: 3rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --card: #f3f3f3; --line: #bbb; --link: #000; --good: #14683b;
    --bad: #a3271c; --s0: #0062a3; --s1: #b84a00; --s2: #00795a; --s3: #9b3f76; --s4: #7a6200; --s5: #4b4b57; }
  body { font-size: 10.5pt; } header, main, footer { max-width: none; padding: 0; }
  nav, .skip { display: none; } h2, h3 { break-after: avoid; } tr, figure, .gallery li { break-inside: avoid; }
  .scroll { overflow: visible; } pre { white-space: pre-wrap; width: auto; }
}
"""
