"""Texts that would run, reach out or break a page that trusts them."""

JS = "document.title='taken'"
MARKUP = [
    f"<script>{JS}</script>",
    f'<img src=x onerror="{JS}">',
    f'<svg onload="{JS}"><circle r=9></svg>',
    f"<svg><script>{JS}</script></svg>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={JS}>",
    f'<iframe src="javascript:{JS}"></iframe>',
    f'<iframe srcdoc="<script>parent.{JS}</script>"></iframe>',
    f'<object data="javascript:{JS}"></object><embed src="javascript:{JS}">',
    f'<a href="javascript:{JS}">click</a>',
    f'<details open ontoggle="{JS}">x</details>',
    f'<input autofocus onfocus="{JS}">',
    f'<body onload="{JS}"><marquee onstart="{JS}">x</marquee>',
    "<style>body{display:none} *{background:url(http://example.org/css)}</style>",
    "<link rel=stylesheet href=http://example.org/sheet.css><base href=http://example.org/>",
    '<meta http-equiv=refresh content="0;url=http://example.org/">',
    "<form action=http://example.org/><input name=q><button>go</button></form>",
    "<video src=http://example.org/v.mp4 autoplay poster=http://example.org/p.png></video><audio src=http://example.org/a></audio>",
    '<div style="position:fixed;inset:0;background:red;z-index:99999">over everything</div>',
    "</div></div></article></main></body></html>",
    "<!-- --!><img src=x onerror=alert(1)> -->",
    '<template><img src=x onerror=alert(1)></template><noscript><p title="</noscript><img src=x onerror=alert(1)>">',
]
MARKDOWN = [
    "![a picture](http://example.org/pixel.png)",
    f"[click me](javascript:{JS})",
    "[click me](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    f"[click][ref]\n\n[ref]: javascript:{JS}",
    "<javascript:alert(1)> and <http://example.org/auto>",
    '[a](http://example.org/ "title\\" onmouseover=alert(1) x=")',
    "```html\n<script>document.title='taken'</script>\n```",
    "`` `<img src=x onerror=alert(1)>` ``",
    "$\\href{javascript:alert(1)}{x}$ and $\\url{http://example.org}$ and $\\includegraphics{http://example.org/i.png}$",
    "$$\\def\\a{\\a\\a}\\a$$ and $$\\rule{99999em}{99999em}$$ and $$\\htmlStyle{position:fixed}{x}$$",
    "| a |\n|---|\n" + "| <img src=x onerror=alert(1)> |\n" * 3,
    "> " * 400 + "deep",
    "- " * 300 + "deep",
    "*" * 4000 + "a" + "_" * 4000,
]
UNICODE = [
    "\u202eright to left override, never ended",
    "\u2066\u2067\u2068 isolates that are never closed \u202b\u202b\u202b",
    "Z" + "\u0301" * 1_000_000 + "!",
    "\u0000\u0007\u001b[31m control \ufffd \ufeff \u200b\u200b\u200b",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 400,
    "m" * 100_000,
    "long lines " * 500_000,
]
TEXTS = [*MARKUP, *MARKDOWN, *UNICODE]
