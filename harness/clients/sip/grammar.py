"""The pieces of SIP's grammar (RFC 3261 section 25.1) that decide whether a message can be believed. Pure, and linear
in the length of what they are given: every repetition is possessive.
"""

from __future__ import annotations

import re

TOKEN = r"[A-Za-z0-9.!%*_+`'~-]++"
QUOTED = r'"(?:[^"\\]|\\.)*+"'
_WS = r"[ \t]*+"
_VALUE = rf'(?:{QUOTED}|[^ \t;,"<>]++)'
_PARAMETERS = rf"(?:{_WS};{_WS}{TOKEN}(?:{_WS}={_WS}{_VALUE})?+)*+{_WS}"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*+:"

_TOKEN = re.compile(TOKEN)
_URI = re.compile(rf'{_SCHEME}[^ \t<>"]++')
_NAME_ADDR = re.compile(rf'(?:{QUOTED}|(?:{TOKEN}[ \t]*+)*+){_WS}<{_SCHEME}[^ \t<>"]++>{_PARAMETERS}', re.DOTALL)
_ADDR_SPEC = re.compile(rf'{_SCHEME}[^ \t<>",;]++{_PARAMETERS}', re.DOTALL)
_VIA = re.compile(
    rf"SIP{_WS}/{_WS}[0-9]++\.[0-9]++{_WS}/{_WS}{TOKEN}[ \t]++(?:\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._-]++)"
    rf"(?:{_WS}:{_WS}[0-9]{{1,5}}+)?+{_PARAMETERS}",
    re.DOTALL | re.IGNORECASE,
)


def is_token(text: str) -> bool:
    """A method, a header's name, a parameter's name."""
    return _TOKEN.fullmatch(text) is not None


def is_request_uri(text: str) -> bool:
    """A URI in a request line: bare, without headers (RFC 3261 19.1.1, table 1: none in a Request-URI)."""
    if _URI.fullmatch(text) is None:
        return False
    return not (text[:4].lower() in ("sip:", "sips") and "?" in text.rpartition("@")[2])


def is_address(text: str) -> bool:
    """A name-addr, or an addr-spec: one with a comma, semicolon or question mark belongs in <> (20.10)."""
    if _NAME_ADDR.fullmatch(text) is not None:
        return True
    return _ADDR_SPEC.fullmatch(text) is not None and "?" not in text.partition(";")[0].rpartition("@")[2]


def is_via(text: str) -> bool:
    """One value of a Via (20.42)."""
    return _VIA.fullmatch(text) is not None
