"""Looks and script of a report's page."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5d6873; --line: #dfe3e8; --back: #f6f7f9; --card: #fff;
  --accent: #2f6fb0; --grid: #e8ebef; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa5b1; --line: #2f363e; --back: #14171b;
  --card: #1b2026; --accent: #7db4ea; --grid: #2a3139; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.02em; }
h2 { font-size: 18px; margin: 0 0 4px; letter-spacing: -.01em; }
h3 { font-size: 15px; margin: 0 0 8px; }
h3 small { font-weight: 400; color: var(--soft); font-size: 13px; margin-left: 8px; }
p { margin: 0 0 12px; max-width: 76ch; color: var(--soft); }
p.lead { font-size: 16px; margin-bottom: 20px; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px; margin-top: 20px;
  min-width: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 20px; }
.pair { margin-top: 20px; }
.pair > section { margin-top: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.figures b { display: block; font-size: 20px; letter-spacing: -.02em; line-height: 1.25; }
.figures span { color: var(--soft); font-size: 13px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 20px; margin: 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.chart { width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; white-space: normal; }
th small { display: block; font-weight: 400; }
td:last-child, th:last-child { text-align: left; padding-left: 18px; }
table.plain { width: auto; margin-top: 12px; }
table.plain :is(th, td):first-child { text-align: left; }
table.plain :is(th, td):last-child { text-align: right; }
tbody tr:last-child td { border-bottom: 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 18px; padding: 0; margin: 0 0 10px;
  font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend i.kind { width: 14px; height: 14px; border-radius: 4px; background: var(--k); }
.legend i.block { --k: var(--soft); min-width: 28px; width: 28px; height: 18px; padding: 0; border-radius: 4px; }
.model { border-top: 1px solid var(--line); padding: 16px 0 4px; }
.network { display: flex; flex-wrap: wrap; gap: 10px 14px; }
.stage > span { display: block; font-size: 12px; color: var(--soft); margin-bottom: 3px; }
.blocks { display: flex; flex-wrap: wrap; gap: 5px; }
.block { display: flex; flex-direction: column; min-width: 84px; padding: 5px 8px; border-radius: 7px; font-size: 12px;
  line-height: 1.35; color: var(--ink); background-color: color-mix(in srgb, var(--k) 17%, var(--card));
  border: 2px solid color-mix(in srgb, var(--k) 35%, var(--card)); }
.block span { color: var(--soft); font-size: 11.5px; }
.block.int8 { border: 2px solid var(--ink); background-image: repeating-linear-gradient(135deg,
  color-mix(in srgb, var(--k) 14%, transparent) 0 3px, transparent 3px 9px); }
.block.int8-dynamic { border: 2px dashed var(--ink); }
.block.bf16 { border: 4px double var(--ink); padding: 3px 6px; }
.block.w8 { border: 2px dotted var(--ink); }
.block.w4 { border: 4px dotted var(--ink); padding: 3px 6px; }
p.missing { max-width: none; margin: 8px 0 0; padding: 12px 14px;
  border-radius: 8px; background: var(--back); color: var(--soft); }
"""

SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
function draw() {
  const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
  for (const [id, figure] of Object.entries(charts)) {
    const layout = structuredClone(figure.layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = {family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink")};
    layout.hoverlabel = {...layout.hoverlabel, bgcolor: colour("--card"), bordercolor: colour("--line"),
      font: {color: colour("--ink"), size: 13}};
    for (const axis of Object.keys(layout).filter(name => /^[xy]axis/.test(name)))
      layout[axis] = {...layout[axis], gridcolor: colour("--grid"), linecolor: colour("--line"), showline: true,
        tickcolor: colour("--line")};
    const options = {responsive: true, displaylogo: false, displayModeBar: false};
    Plotly.react(id, structuredClone(figure.data), layout, options);
  }
}
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
"""
