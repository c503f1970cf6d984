"""One page of HTML that stands by itself: tables, figures and styles inside it."""

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2kd.core.files import write_whole


class Page:
    """Pieces of HTML in order; figures are stored beside it as they are added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pieces = folder, []

    def heading(self, text: str, *, level: int = 2) -> None:
        self.pieces.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str, *, kind: str = "p") -> None:
        self.pieces.append(f"<{kind}>{html.escape(text)}</{kind}>")

    def table(self, head: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> None:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(line(cells, "td") for cells in lines)
        self.pieces.append(
            f'<div class="wide"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody>'
            f"</table></div><p class=caption>{html.escape(caption)}</p>"
        )

    def figure(self, name: str, drawn: Any, caption: str) -> None:
        drawing = io.BytesIO()
        drawn.savefig(drawing, format="png", dpi=150, facecolor="white")
        name = re.sub(r"[^\w.-]+", "_", name)
        content = drawing.getvalue()
        write_whole(self.folder / f"{name}.png", lambda beside: beside.write_bytes(content))
        source = base64.b64encode(content).decode()
        words = html.escape(caption)
        self.pieces.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{source}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def folded(self, title: str, text: str) -> None:
        self.pieces.append(
            f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre>"
            "</details>"
        )

    def render(self, title: str, stated: str) -> str:
        """The whole page."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
            f"<h1>{html.escape(title)}</h1><p class=caption>{html.escape(stated)}</p>\n"
            + "\n".join(self.pieces)
            + "\n</body></html>\n"
        )


STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fff;--faint:#666;--line:#ddd;--band:#f5f5f7}
@media (prefers-color-scheme:dark){
:root{--ink:#e8e8ea;--paper:#161618;--faint:#a0a0a6;--line:#3a3a3e;--band:#222226}
img{filter:brightness(.88)}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:54rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;white-space:nowrap;
font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
th{font-weight:600}tbody tr:hover td{background:var(--band)}
figure{margin:1.5rem 0}img{width:100%;max-width:46rem;height:auto;border-radius:6px;
background:#fff;display:block}
figcaption,.caption{font-size:.85rem;color:var(--faint);margin-top:.4rem}
blockquote{margin:1rem 0;padding:.5rem 1rem;border-left:3px solid var(--line);
background:var(--band)}
details{margin:1rem 0}pre{overflow-x:auto;font-size:.8rem;background:var(--band);padding:.8rem}
""".replace("\n", "")
