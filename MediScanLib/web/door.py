"""Pages for those who are not inside yet: where to sign in, and that there is no room. Plain HTML, no script."""

from __future__ import annotations

from html import escape

from ..notice import RESEARCH_USE_NOTICE

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:12vh auto 2rem;padding:0 1rem;background:#14161a;"
    "color:#eceef2}h1{font-size:1.4rem}label{display:block;margin-bottom:.3rem}input,button{font:inherit;"
    "box-sizing:border-box;width:100%;padding:.6rem;border-radius:4px;border:1px solid #8b93a1;background:#1d2026;"
    "color:inherit}button{margin-top:1rem;background:#2f6fb3;border-color:#5b9be0;color:#fff;font-weight:600}"
    ":focus-visible{outline:3px solid #ffc457;outline-offset:2px}.problem{border-left:4px solid #ffc457;"
    "padding-left:.8rem}footer{margin-top:3rem;color:#b9bfca;font-size:.9rem}"
)


def sign_in_page(problem: str = "") -> str:
    """A form that asks for a token.

    Args:
        problem: Why the last one was not good.
    """
    said = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return _page(
        "Sign in",
        f'{said}<form method="post" action="/sign-in"><label for="token">Your token</label>'
        '<input id="token" name="token" type="password" required autofocus autocomplete="current-password" '
        'aria-describedby="hint"><button type="submit">Sign in</button></form>'
        '<p id="hint">Whoever runs the server gives you one: <code>mediscan serve token add NAME</code>. Nothing can '
        "be seen without it.</p>",
    )


def full_page(problem: str) -> str:
    """What somebody sees who cannot come in now.

    Args:
        problem: Why.
    """
    return _page("Not now", f'<p class="problem" role="alert">{escape(problem)}</p><p><a href="/">Try again</a></p>')


def _page(title: str, content: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>MediScan: {escape(title)}</title><style>{_STYLE} a{{color:#8fc1ff}}</style></head><body>"
        f"<main><h1>MediScan</h1>{content}</main><footer>{escape(RESEARCH_USE_NOTICE)}</footer></body></html>"
    )
