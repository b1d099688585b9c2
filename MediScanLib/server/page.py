"""The OpenAPI description as a page: plain HTML, nothing of which comes from elsewhere or runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f;"
    "background:#fff}code{background:#f0f0f3;padding:.1rem .3rem;border-radius:3px}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #d8d8dd}h3{margin-bottom:.2rem}.verb{display:inline-block;"
    "min-width:4.5rem;font-weight:700;color:#24518c}table{border-collapse:collapse;margin:.5rem 0}td,th{"
    "text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}"
    ".notice{border-left:4px solid #b26a00;padding-left:.8rem}"
    "@media(prefers-color-scheme:dark){body{background:#18181b;color:#e6e6ea}code{background:#2a2a2f}"
    ".verb{color:#8ab4f8}h2{border-color:#44444a}}"
)
POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""What a browser may load for the page: its own style, by its hash."""


def page(description: Mapping[str, Any]) -> str:
    """The page.

    Args:
        description: An OpenAPI description.
    """
    about = description["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(about['title'])} {escape(about['version'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(about['title'])} {escape(about['version'])}</h1>",
        f'<p>{escape(about["summary"])}</p><p class="notice">{escape(about["description"])}</p>',
        '<p>For programs: <a href="openapi.json">openapi.json</a>. Where a token is needed it is sent as '
        "<code>Authorization: Bearer TOKEN</code>. Errors are <code>application/problem+json</code>.</p>",
    ]
    section = ""
    for path, verbs in description["paths"].items():
        for verb, operation in verbs.items():
            tag = operation.get("tags", ["other"])[0]
            if tag != section:
                section = tag
                parts.append(f"<h2>{escape(tag)}</h2>")
            parts.append(_operation(path, verb, operation))
    return "".join(parts) + "</body></html>"


def _operation(path: str, verb: str, operation: Mapping[str, Any]) -> str:
    text = "".join(f"<p>{escape(part)}</p>" for part in operation.get("description", "").split("\n\n") if part)
    rows = [
        (f"{item['name']} ({item['in']})", item.get("description", ""), item.get("required", False))
        for item in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        schema = body["schema"]
        if "properties" in schema:
            needed = schema.get("required", ())
            rows += [(f"{n} ({kind})", p.get("description", ""), n in needed) for n, p in schema["properties"].items()]
        else:
            rows.append((kind, schema.get("$ref", "").rpartition("/")[2] or "see docs/server.md", True))
    table = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(said)}{' <b>needed</b>' if needed else ''}</td></tr>"
        for name, said, needed in rows
    )
    head = f'<h3><span class="verb">{escape(verb.upper())}</span> <code>{escape(path)}</code></h3>'
    return head + text + (f"<table>{table}</table>" if table else "")
