"""Holds the style sheet of the pages, light or dark as the reader has it."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --ink: #1c1d1f; --quiet: #63666b; --line: #dfe0dd;
  --panel: #ffffff; --good: #eef5ee;
  --c0: #0068a8; --c1: #c2500a; --c2: #00805c; --c3: #a8487f; --c4: #8a6d00;
  --c5: #3d5a80;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181a; --ink: #e7e6e3; --quiet: #9a9da3; --line: #34373b;
    --panel: #1e2124; --good: #1f2b22;
    --c0: #5cb3ea; --c1: #f0954f; --c2: #4cc79d; --c3: #e08fbd; --c4: #dcc04a;
    --c5: #9db4d6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 90rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; font-weight: 650; }
h2 {
  margin: 2.75rem 0 .75rem; padding-top: 1rem; font-size: 1.15rem;
  font-weight: 650; border-top: 1px solid var(--line);
}
h3 { margin: 1.75rem 0 .25rem; font-size: 1rem; font-weight: 650; }
p { max-width: 46rem; margin: .75rem 0; }
.subtitle, footer { color: var(--quiet); }
footer {
  margin-top: 3rem; padding-top: 1rem; font-size: .85rem;
  border-top: 1px solid var(--line);
}
figure { margin: 1rem 0; }
figcaption {
  margin-top: .5rem; color: var(--quiet); font-size: .875rem;
  max-width: 46rem;
}
img {
  display: block; max-width: 100%; height: auto; border-radius: 4px;
  border: 1px solid var(--line);
}
img.sharp { image-rendering: pixelated; }
.row { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: flex-start; }
.row > * { flex: 1 1 18rem; min-width: 0; }
.wide { overflow-x: auto; }
table {
  border-collapse: collapse; font-size: .925rem;
  font-variant-numeric: tabular-nums;
}
caption {
  padding-bottom: .5rem; color: var(--quiet); font-size: .875rem;
  text-align: left;
}
th, td {
  padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: baseline;
}
th { color: var(--quiet); font-weight: 550; white-space: nowrap; }
.number { text-align: right; }
tr.marked td { background: var(--good); font-weight: 600; }
.stacked { white-space: nowrap; }
.stacked small { color: var(--quiet); font-weight: 400; }
td.best { background: var(--good); font-weight: 600; }
tr.faint td { color: var(--quiet); }
.strip { font-size: .8rem; }
.strip th, .strip td { padding: 0 .35rem .35rem 0; border: 0; }
.strip th { white-space: normal; vertical-align: bottom; }
.strip img { max-width: none; }
.strip tbody th { font-weight: 400; vertical-align: middle; }
.zoom { cursor: zoom-in; }
.zoom input { position: absolute; opacity: 0; }
.zoom input:focus-visible + img { outline: 2px solid var(--c0); }
.zoom input:checked + img {
  position: fixed; inset: 0; z-index: 9; margin: auto; cursor: zoom-out;
  width: var(--large); image-rendering: pixelated;
  box-shadow: 0 0 0 100vmax var(--page);
}
.notice {
  max-width: 46rem; margin: .75rem 0; padding: .6rem .9rem;
  border-left: 3px solid var(--c1); background: var(--panel);
}
ul { max-width: 46rem; margin: .75rem 0; padding-left: 1.2rem; }
li { margin: .35rem 0; }
pre {
  overflow-x: auto; margin: .75rem 0; padding: .75rem 1rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: 4px;
  font: .85rem/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, monospace;
}
svg {
  display: block; width: 100%; max-width: 46rem; height: auto;
  background: var(--panel);  border: 1px solid var(--line); border-radius: 4px;
}
svg text { fill: var(--quiet); font-size: 13px; }
svg .label { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .raw { fill: none; stroke-width: 1; opacity: .3; }
svg .end { stroke-width: 2; fill: var(--panel); }
svg .mark { fill: none; stroke: var(--quiet); stroke-width: 1.5; }
svg .whisker { fill: none; stroke-width: 1.5; opacity: .55; }
svg .ideal {
  fill: none; stroke: var(--quiet); stroke-width: 1.5; stroke-dasharray: 5 4;
}
svg .bar { fill: var(--c0); }
svg .curve {
  fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round;
}
@media print { body { max-width: none; padding: 0; } }
"""
