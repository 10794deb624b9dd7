"""The page's CSS: no scripts, no outside fonts, light and dark, one column on narrow screens."""

CSS = """
:root { color-scheme: light dark; --back: #f5f6f8; --card: #ffffff; --ink: #1f2430; --soft: #5b6372; --line: #e1e4ea;
--accent: #0072b2;
  --good: #00795a; --mixed: #8f5b00; --bad: #b54300; --code: #eef0f4; }
@media (prefers-color-scheme: dark) { :root { --back: #101218; --card: #1a1d24; --ink: #e4e7ee; --soft: #a3abba;
--line: #2d323d; --accent: #56b4e9;
  --good: #29c49a; --mixed: #e6b04c; --bad: #ff8a50; --code: #242832; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
Roboto, "DejaVu Sans", sans-serif; } .layout { max-width: 1280px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header h1 { margin: 0 0 .3rem; font-size: 1.8rem; line-height: 1.2; overflow-wrap: anywhere; }
header p { margin: 0 0 1.2rem; color: var(--soft); max-width: 75ch; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem .4rem; margin: 0 0 1.2rem; padding: 0; }
nav a { display: block; padding: .2rem .6rem; color: var(--soft); text-decoration: none; border-radius: .4rem;
font-size: .93rem; } nav a:hover, nav a:focus-visible { color: var(--accent); background: var(--card); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: 1.2rem 1.3rem; margin:
0 0 1.2rem; min-width: 0; } section h2 { margin: 0 0 .5rem; font-size: 1.2rem; }
section > p { margin: 0 0 .9rem; color: var(--soft); max-width: 85ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; }
th, td { padding: .4rem .8rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap; font-variant-numeric:
tabular-nums; } .numbers .best { font-weight: 700; color: var(--good); }
.numbers small { color: var(--soft); font-weight: 400; }
.keys th { font-weight: 400; color: var(--soft); white-space: nowrap; }
.keys td, .keys th { padding: .22rem .9rem .22rem 0; font-family: ui-monospace, "DejaVu Sans Mono", monospace;
font-size: .85rem; } .keys td { overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem 2rem; }
.facts h3, h3 { margin: .9rem 0 .3rem; font-size: 1rem; }
.verdict { border-left: .45rem solid var(--tone); }
.verdict.good { --tone: var(--good); } .verdict.mixed { --tone: var(--mixed); } .verdict.bad { --tone: var(--bad); }
.verdict .headline { font-size: 1.25rem; font-weight: 700; color: var(--tone); margin: 0 0 .6rem; }
.checks { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem,
1fr)); gap: .5rem 1.5rem; } .checks li { display: grid; grid-template-columns: 4.2rem 1fr; }
.checks b { color: var(--good); } .checks .no b { color: var(--bad); } .checks .unknown b { color: var(--soft); }
.checks small, .reading small { color: var(--soft); display: block; }
.reading { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .35rem 1.2rem; margin: .6rem 0 0;
font-size: .93rem; } .reading dt { font-weight: 600; } .reading dd { margin: 0; color: var(--soft); }
picture img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.frames { width: 100%; table-layout: fixed; border-collapse: separate; border-spacing: .35rem; min-width: 34rem; }
.frames th, .frames td { border: 0; padding: 0; vertical-align: middle; }
.frames thead th { font-size: .85rem; text-align: center; padding-bottom: .2rem; line-height: 1.25; }
.frames tbody th { font-size: .82rem; font-weight: 400; color: var(--soft); overflow-wrap: anywhere; padding-right:
.4rem; } .frames img { display: block; width: 100%; border-radius: .3rem; }
.frames img.enlarged { image-rendering: pixelated; }
.frames .difference { border-left: 0; }
.legend { display: flex; align-items: center; gap: .7rem; flex-wrap: wrap; font-size: .85rem; color: var(--soft);
margin-top: .5rem; } .legend i { width: 12rem; height: .8rem; border-radius: .3rem; display: inline-block; }
pre { background: var(--code); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; margin: 0 0 .6rem;
font-size: .87rem; } details summary { cursor: pointer; color: var(--accent); }
ul.plain { margin: 0; padding-left: 1.2rem; }
@media (min-width: 1080px) {
  .layout { display: grid; grid-template-columns: 11.5rem minmax(0, 1fr); column-gap: 1.8rem; }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: 1.2rem; align-self: start; }
  nav ul { flex-direction: column; }
}
@media (max-width: 640px) { .reading { grid-template-columns: 1fr; gap: 0; } .reading dd { margin-bottom: .5rem; }
section { padding: 1rem .9rem; }
  .numbers th, .numbers td { padding: .35rem .5rem; } .numbers small span { display: none; } .numbers tbody th {
  min-width: 8.5rem; } .figure picture img { max-width: none; width: 44rem; } }
@media print { nav { display: none; } section { break-inside: avoid; } }
"""
