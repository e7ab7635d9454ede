"""How the page looks: on a phone, on a desk, in the dark and on paper."""

STYLE = """
:root{color-scheme:light;--ground:#fff;--ink:#16191d;--dim:#57606a;--line:#d4d9df;--panel:#f4f6f8;
--done:#2a6db5;--lowered:#7fb2e0;--superseded:#9aa5b1;--failed:#b3261e;--rejected:#e08a1e;--left:#d9dee4;
--refused:#e08a1e;--fault:#b3261e;--retried:#6a3fa0;--limit:#16191d;--between:#2a6db52e;
--good:#1a7f37;--bad:#b3261e;--open:#9a6700}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--ground:#14171b;--ink:#e8ebee;--dim:#a2abb5;
--line:#353c45;--panel:#1d2228;--done:#5b9fe6;--lowered:#2f6397;--superseded:#6b7682;--failed:#f0716a;--rejected:#e9a23b;
--left:#3b444e;--refused:#e9a23b;--fault:#f0716a;--retried:#b692ee;--limit:#e8ebee;--between:#5b9fe638;
--good:#4ac26b;--bad:#f0716a;--open:#e3b341}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;-webkit-text-size-adjust:100%;text-size-adjust:100%}
main{max-width:60rem;margin:0 auto;padding:1.25rem 1rem 2rem}
h1,h2,h3,p,figure,ul,dl,dd{margin:0;padding:0}
h1{font-size:clamp(1.6rem,1.2rem + 2vw,2.3rem);line-height:1.15;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:1rem}
.what,.note,.why,small{color:var(--dim);font-size:.85rem}
.what{margin-bottom:.3rem;overflow-wrap:anywhere}
.good h1{color:var(--good)}.bad h1{color:var(--bad)}.open h1{color:var(--open)}
.said{margin:.5rem 0 1.1rem;max-width:46rem;overflow-wrap:anywhere}
.bar{display:block;width:100%;height:1.1rem;margin:0 0 .7rem;border-radius:.25rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:baseline;padding:.38rem .7rem .38rem 0;border-bottom:1px solid var(--line);
font-weight:400}
th:last-child,td:last-child{padding-right:0}
tbody:last-child tr:last-child>*{border-bottom:0}
thead th{color:var(--dim);font-size:.8rem;border-bottom-color:var(--dim);vertical-align:bottom}
thead .why{font-size:.8rem}
.n{text-align:right;white-space:nowrap;padding-left:.8rem}
.states th{white-space:nowrap}.states .why{width:58%}
.states .part th{padding-left:1.5rem}
.states .sum th,.states .sum td{font-weight:600;border-bottom-color:var(--dim)}
.zero .n,.zero th{color:var(--dim)}
.reason{overflow-wrap:anywhere;unicode-bidi:isolate}
.code{white-space:nowrap}.why,.reason{padding-left:1rem}.span{margin-bottom:1.1rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.4rem,1fr));gap:1rem 1rem}
.figures dt{color:var(--dim);font-size:.85rem}
.figures .big{font-size:1.45rem;line-height:1.2;font-variant-numeric:tabular-nums;white-space:nowrap}
.figures small{display:block;line-height:1.3}
.chart{margin:0 0 1.9rem}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.15rem 0 .5rem;
font-size:.85rem;color:var(--dim)}
.key li{display:flex;gap:.4rem;align-items:baseline}.swatch{flex:none;display:inline-block;vertical-align:-.02em}
.plot{display:grid;grid-template-columns:3.3rem minmax(0,1fr);font-size:.75rem;color:var(--dim);
font-variant-numeric:tabular-nums;line-height:1}
.numbers,.xs,.ys,.canvas{position:relative}
.numbers{grid-column:2;height:1.05rem}.xs{grid-column:2;height:1.1rem;margin-top:.55rem}
.ys{grid-column:1}.canvas{grid-column:2;height:11.5rem}
.numbers span,.xs span{position:absolute;transform:translateX(-50%);white-space:nowrap}
.ys span{position:absolute;right:.45rem;transform:translateY(50%);white-space:nowrap}
.canvas svg{display:block;width:100%;height:100%;overflow:hidden}
.label{position:absolute;white-space:nowrap;padding:0 .3rem .2rem;color:var(--ink)}
.label.median,.label.p95,.label.p99{margin:0 .3rem;padding:0 .1rem;transform:translateY(100%);background:var(--panel)}
.ground{fill:var(--panel)}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.canvas path{vector-effect:non-scaling-stroke}
.line.limit{stroke:var(--limit);stroke-width:1.3;stroke-dasharray:6 4}
.line.done,.line.median{stroke:var(--done)}
.line.p95{stroke:var(--rejected)}.line.p99{stroke:var(--failed)}
.line.retried{stroke:var(--retried);stroke-width:1.1}
.area.done{fill:var(--done)}.chart .canvas .area.done{fill-opacity:.38}
.area.between{fill:var(--between)}
.area.lowered{fill:var(--lowered)}.area.superseded{fill:var(--superseded)}.area.failed{fill:var(--failed)}
.area.rejected{fill:var(--rejected)}.area.left{fill:var(--left)}
.area.refused{fill:var(--refused)}.area.fault{fill:var(--fault)}
.none{color:var(--dim);margin-top:.2rem}
.chart .note{margin-top:.3rem}
.about{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.25rem 1rem;font-size:.9rem}
.about dt{color:var(--dim)}.about dd{overflow-wrap:anywhere;unicode-bidi:isolate}
@media (max-width:40rem){
.plot{grid-template-columns:3.1rem minmax(0,1fr)}.canvas{height:10rem}
.xs .wide{display:none}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table,tbody{display:block}
tr{display:grid;grid-template-columns:minmax(0,1fr) auto auto;gap:0 .9rem;padding:.45rem 0;
border-bottom:1px solid var(--line)}
tr:last-child{border:0}
th,td,.n{border:0;padding:0}
.states tr{grid-template-columns:minmax(0,1fr) auto 3.6rem}
.states .why{grid-column:1/-1;width:auto;padding-left:0}
.failures tr,.sessions tr{display:flex;flex-wrap:wrap;gap:0 .7rem;font-size:.95rem}
.failures .code{margin-right:auto}
.failures .reason,.sessions .begin,.sessions .end{flex-basis:100%;padding-left:0}
.sessions .begin{font-weight:600}
.sum{border-bottom-color:var(--dim)}
td[data-is]::before{content:attr(data-is) " ";color:var(--dim)}
}
@media print{
@page{margin:14mm}
:root{--ground:#fff;--ink:#000;--dim:#333;--panel:#fff;--line:#bbb}
body{font-size:9.5pt}main{max-width:none;padding:0}
html{font-size:12.5px}
h1{font-size:20pt}.good h1,.bad h1,.open h1{color:#000}
h2,h3,.key,thead,.span{break-after:avoid}
h2{margin-top:.9rem;padding-top:.6rem}
.chart{margin-bottom:1.1rem}.span{margin-bottom:.8rem}
th,td{padding-top:.25rem;padding-bottom:.25rem}
.chart,tr,.bar,.figures div,.about{break-inside:avoid}
.canvas{height:31mm}
.ground{stroke:#bbb;vector-effect:non-scaling-stroke}
}
"""
"""The style sheet.  Texts stand beside the drawings and not in them: those stretch, and on a phone they shrink."""
