#!/usr/bin/env python3
"""Texts and what open_clip's cleaning makes of them, without ftfy: html.unescape and str.split of
Python 3.11.

    tools/vectors_text_clean.py > tests/data/text_clean.json    for tests/test_tokenizer_files.c
"""
import html
import html.entities
import json

TEXTS = ["", "  a \t b\n\n c  ", "x &lt; 3 &amp;&amp; y &gt; 4", "&amp;lt;b&amp;gt; &amp;amp;lt;",
         "&#65;&#x42;&#X43; &#68 &#x45 &#x; &#;",
         "&#0; &#1; &#9; &#11; &#13; &#127; &#128; &#x81; &#150; &#159; &#xd800; &#x110000; "
         "&#99999999999999; &#xfffe; &#x1f600;",
         "&ampx &ltx; &notit; &notin; &copyright &copy; &COPY &Amp; &QUOT; &nbsp&nbsp;",
         "&apos; &apos &unknown; & && &; AT&T a&b;c",
         "caf&eacute; &Eacute;cole &frac12 &sup2; &sup; &sub2;", "a\u00a0b\u2003c\u3000d\x1ce\x85f",
         "\u00e9 \u6f22 \U0001f600 &#x1F600;", "&" + "a" * 40 + ";", "&amp" + "a" * 40 + ";", "&lt",
         "&l", "&", "&#", "&#x", "5 &micro;m &plusmn; 3&deg; &rarr; &hearts; &lang;x&rang;",
         " ".join(f"&{name};" for name in sorted(html.entities.name2codepoint))]
rows = [[text, " ".join(html.unescape(html.unescape(text)).split())] for text in TEXTS]
print(json.dumps(rows, indent=0))
