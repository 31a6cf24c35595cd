"""Verifies the access tokens (RFC 9068) of one issuer for one audience."""

import time
from typing import Any

import jwt

ALGORITHMS = ["ES256", "RS256", "EdDSA"]
KEEP_KEYS = 600  # s
BETWEEN_FETCHES = 5  # s
PATIENCE = 3  # s
CLOCK_SKEW = 5  # s


class Refused(Exception):
    """Why a request is refused: 401 without a code where there was no token."""

    def __init__(self, status: int, code: str | None = None, scope: str | None = None):
        super().__init__(code)
        self.status, self.code, self.scope = status, code, scope

    def challenge(self, realm: str) -> str:
        """Returns the header WWW-Authenticate of RFC 6750 §3."""
        parameters = {"realm": realm, "error": self.code, "scope": self.scope}
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had at the moment, which is not the token's fault."""


class Keys(jwt.PyJWKClient):
    """The issuer's keys.

    They are fetched when they are first needed, then every ten minutes, and earlier for a key that is not among them,
    but not more often than every few seconds. PyJWT waits by itself after a success only.
    """

    _failed = float("-inf")

    def fetch_data(self) -> Any:
        if time.monotonic() - self._failed < BETWEEN_FETCHES:
            raise KeysUnavailable("the issuer did not answer a moment ago")
        try:
            return super().fetch_data()
        except (jwt.PyJWTError, ValueError) as err:
            self._failed = time.monotonic()
            raise KeysUnavailable(str(err)) from err


class AccessTokens:
    def __init__(self, issuer: str, audience: str):
        self._issuer = issuer
        self._audience = audience
        self._keys = Keys(
            f"{issuer}/.well-known/jwks.json",
            lifespan=KEEP_KEYS,
            cooldown_duration=BETWEEN_FETCHES,
            timeout=PATIENCE,
        )

    def verify(self, token: str) -> dict[str, Any]:
        """Returns the claims. Raises Refused for a token that is no good, KeysUnavailable where that cannot be told."""
        try:
            header = jwt.get_unverified_header(token)
            if str(header.get("typ")).lower() != "at+jwt" or header["alg"] not in ALGORITHMS:
                raise Refused(401, "invalid_token")
            claims = jwt.decode(
                token,
                self._keys.get_signing_key(header["kid"]),
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW,
                options={"require": ["iss", "aud", "sub", "exp", "client_id"]},
            )
        except (jwt.PyJWTError, KeyError, RecursionError) as err:  # the latter from JSON that is nested deep
            raise Refused(401, "invalid_token") from err
        # Bound to a key (RFC 9449): of no use without a proof, which nobody checks here.
        if "cnf" in claims:
            raise Refused(401, "invalid_token")
        return claims
