"""The REGISTER clock: does the PBX accept a registration? (RFC 3261 section 10)

    python -m harness.clients.register --to 203.0.113.1:5060 --domain pbx.test --user 1997 [--out FILE]

Open loop, single shot: a REGISTER of the same binding each period. It answers a challenge within the same attempt,
once, and goes on with its nonce until that is refused. The password comes from the environment
(PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import os
import secrets
from typing import Any

from harness.clients import shooting
from harness.clients.new_call import PASSWORD
from harness.clients.single_shot import Here
from harness.clients.sip.binding import accepted
from harness.clients.sip.digest import BadChallenge, Challenge, Credentials, answer, challenge_of
from harness.clients.sip.message import Header, Message, request, uri_of

EXPIRES_S = 3600


class Registrar:
    """What the attempts of one client share: its binding (Call-ID, Contact), the CSeq, the challenge it met last.

    The Contact is that of the first attempt, also where each has a connection of its own: another one each time would
    be another binding, and a PBX that keeps several would refuse in the end.
    """

    def __init__(self, *, domain: str, credentials: Credentials) -> None:
        self.domain = domain
        self.credentials = credentials
        self.call_id = secrets.token_hex(8)
        self.tag = secrets.token_hex(4)
        self.cseq = 0
        self.contact: Header | None = None
        self.challenge: Challenge | None = None
        self._uses = 0

    def challenged(self, by: Message) -> bool:
        """Remember the demand of a 401 or 407; False where it can't be met."""
        try:
            self.challenge, self._uses = challenge_of(by), 0
        except BadChallenge:
            return False
        return True

    def authorization(self, uri: str) -> tuple[Header, ...]:
        if self.challenge is None:
            return ()
        self._uses += 1
        return (answer(self.challenge, self.credentials, method="REGISTER", uri=uri, count=self._uses),)


class Register:
    """One REGISTER, and once more where it is challenged."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    def request(self, here: Here) -> bytes:
        own = self._registrar
        own.cseq += 1
        own.contact = own.contact or here.contact(own.credentials.user)
        uri, aor = f"sip:{own.domain}", f"<sip:{own.credentials.user}@{own.domain}>"
        headers = [
            here.via,
            ("Max-Forwards", "70"),
            ("From", f"{aor};tag={own.tag}"),
            ("To", aor),
            ("Call-ID", own.call_id),
            ("CSeq", f"{own.cseq} REGISTER"),
            own.contact,
            ("Expires", str(EXPIRES_S)),
            *own.authorization(uri),
        ]
        return request("REGISTER", uri, headers)

    def again(self, reply: Message) -> bool:
        return reply.code in (401, 407) and self._registrar.challenged(reply)

    def told(self, ok: Message) -> dict[str, Any]:
        """Who is registered now, where and for how long: an acknowledgement (harness/ledger.py)."""
        own = self._registrar
        uri = uri_of(own.contact[1]) if own.contact is not None else ""
        return {"user": own.credentials.user, **accepted(ok, uri, EXPIRES_S)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.register", description=__doc__)
    shooting.add_arguments(parser, period_s=0.2, process="register")
    parser.add_argument("--user", required=True, help="extension that registers")
    args = parser.parse_args()
    credentials = Credentials(user=args.user, password=os.environ.get(PASSWORD, ""))
    registrar = Registrar(domain=args.domain or args.to[0], credentials=credentials)
    shooting.run(args, f="register", exchange=lambda: Register(registrar))


if __name__ == "__main__":
    main()
