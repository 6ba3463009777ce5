"""Texts of libraries and users without the credentials that may be in them."""

import os
import re

_HIDDEN = "***"
#: `scheme://user:password@` and `scheme://token@`.
_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@'\"]*@", re.IGNORECASE)
#: Everything after the `?` of a URL: signed URLs carry their signature there.
_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]+", re.IGNORECASE)
#: `Authorization: Bearer ...`, `password=...`, `sig=...` and their relatives in any text.
_NAMED = re.compile(
    r"((?:authorization|password|passwd|secret|token|signature|sig|accountkey|access[_-]?key(?:[_-]?id)?|credential)"
    r"[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"',;&]+",
    re.IGNORECASE,
)
#: Environment variables whose values are credentials.
_VARIABLE = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASS$|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING|SAS", re.IGNORECASE
)


def redact(text: str) -> str:
    """Return a text with `***` in place of credentials: in URLs, after their names, and of environment variables."""
    for name, value in os.environ.items():
        # Shorter values are no credentials, and would be replaced inside ordinary words.
        if len(value) >= 8 and _VARIABLE.search(name):
            text = text.replace(value, _HIDDEN)
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    text = _QUERY.sub(rf"\1?{_HIDDEN}", text)
    return _NAMED.sub(rf"\1{_HIDDEN}", text)


def describe(error: BaseException) -> str:
    """Return the kind and the first line of an error of a library, redacted and of limited length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return redact(f"{kind}: {lines[0]}" if lines else kind)[:300]
