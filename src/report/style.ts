/** The report's style sheet: light and dark, print, no fonts or images from elsewhere. */
export const style = `
:root{--bg:#f6f7f9;--card:#fff;--ink:#1c2024;--soft:#60646c;--line:#e3e5ea;--accent:#5b6ee1;--good:#0f8a7c;--bad:#d13b55;--mark:#fff3d6;--chip:#eef0f4}
@media (prefers-color-scheme:dark){:root{--bg:#111316;--card:#191c20;--ink:#e8eaed;--soft:#9aa0aa;--line:#2b2f36;--accent:#8b9bf5;--good:#2dc7b4;--bad:#ff7a8f;--mark:#3b3216;--chip:#24282e}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
header.top{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 16px;margin-bottom:20px}
header.top h1{font-size:20px;margin:0;letter-spacing:-.01em}
header.top .run{color:var(--soft)}
h2{font-size:18px;margin:44px 0 4px;letter-spacing:-.01em}
h3{font-size:14px;margin:0 0 8px;font-weight:600}
p.lead{margin:0 0 14px;color:var(--soft);max-width:75ch}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px}
.hero{padding:26px 28px;display:grid;grid-template-columns:minmax(0,1fr);gap:18px}
.hero .verdict{font-size:20px;font-weight:600;color:var(--ink);max-width:none}
.numbers{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:18px}
.numbers small{color:var(--soft)}
.hero .big{font-size:40px;line-height:1.1;font-weight:650;letter-spacing:-.03em;font-variant-numeric:tabular-nums}
.hero .unit{font-size:14px;font-weight:500;color:var(--soft);letter-spacing:0}
.hero .ci{font-size:15px;margin:2px 0 4px;font-variant-numeric:tabular-nums}
.hero p{margin:0;color:var(--soft)}
.hero strong{color:var(--ink)}
.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px}
.tile{border:1px solid var(--line);border-radius:10px;padding:10px 12px}
.tile b{display:block;white-space:nowrap;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tile span{font-size:12px;color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px}
.wide{grid-column:1/-1}
figure{margin:0}
figure svg{display:block;max-width:100%;height:auto}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{font-size:12px;font-weight:600;color:var(--soft)}
th:first-child,td:first-child{text-align:left}
tbody tr:last-child td{border-bottom:0}
td small{display:block;white-space:normal;color:var(--soft);font-size:11px;line-height:1.3}
td.best{font-weight:650}td.best small{font-weight:400}
tr.chosen td:first-child{box-shadow:inset 3px 0 var(--accent)}
tr.control td:first-child{color:var(--soft)}
.tag{font-size:11px;font-weight:500;background:var(--chip);color:var(--soft);border-radius:99px;padding:1px 8px;margin-left:6px;white-space:nowrap}
.tabs>input{position:absolute;opacity:0;pointer-events:none}
.tabs>label{display:inline-block;padding:6px 14px;margin:0 4px 10px 0;border-radius:99px;cursor:pointer;color:var(--soft);font-size:13px;border:1px solid var(--line)}
.tabs>input:checked+label{background:var(--accent);border-color:var(--accent);color:#fff}
.tabs>input:focus-visible+label{outline:2px solid var(--accent);outline-offset:2px}
.tabs>.panel{display:none}
.tabs>input:nth-of-type(1):checked~.panel:nth-of-type(1),.tabs>input:nth-of-type(2):checked~.panel:nth-of-type(2){display:block}
.slate{margin-bottom:14px}
.slate>header{display:flex;justify-content:space-between;gap:12px;flex-wrap:wrap;margin-bottom:10px}
.slate h3{margin:0}
.move{font-variant-numeric:tabular-nums;font-weight:600}
.history{color:var(--soft);font-size:13px;margin:0 0 12px}
.history span{background:var(--chip);border-radius:6px;padding:1px 7px;margin:0 4px 4px 0;display:inline-block}
.orders{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px}
.orders h4{font-size:12px;color:var(--soft);margin:0 0 4px;font-weight:600}
ol{margin:0;padding:0;list-style:none;counter-reset:place}
ol li{counter-increment:place;display:flex;gap:8px;align-items:baseline;padding:3px 8px;border-radius:6px;font-size:13.5px}
ol li::before{content:counter(place);color:var(--soft);min-width:1.4em;text-align:right;font-variant-numeric:tabular-nums}
ol li .t{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;min-width:0}
ol li .d{margin-left:auto;color:var(--soft);font-size:12px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
ol li .d.good{color:var(--good)}ol li .d.bad{color:var(--bad)}
ol li.target{background:var(--mark);font-weight:600}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12px}
.reasoning{margin-top:12px;border-left:3px solid var(--line);padding:2px 0 2px 14px;font-size:13.5px;white-space:pre-wrap;overflow-wrap:anywhere;max-height:230px;overflow-y:auto}
details summary{cursor:pointer;color:var(--soft);padding:6px 0}
details.more>summary{color:var(--accent);font-weight:550;margin-bottom:10px}
footer{margin-top:48px;color:var(--soft);font-size:13px}
footer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 18px;margin:8px 0}
footer dt{font-weight:600}footer dd{margin:0;overflow-wrap:anywhere}
table.results td:first-child{min-width:110px}
table.results td:not(:first-child) small{white-space:nowrap}
@media (max-width:760px){.grid,.orders,.numbers{grid-template-columns:minmax(0,1fr)}.card{padding:14px}main{padding:20px 12px}table.results td:first-child small{display:none}th,td{padding:6px 5px;font-size:13px}.tag{margin-left:0;display:inline-block}footer dl{grid-template-columns:minmax(0,1fr)}footer dd{margin-bottom:6px}}
@media print{body{background:#fff}.card{break-inside:avoid}.tabs>.panel{display:block}.reasoning{max-height:none}}
`;
