"""The orders API. What a good access token is stands in tokens.py."""

import os
import sys
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from tokens import AccessTokens, KeysUnavailable, Refused


def setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set")
    return value


tokens = AccessTokens(setting("ISSUER"), setting("AUDIENCE"))
app = FastAPI(openapi_url=None)


def claims(request: Request) -> dict:
    """Returns the claims of the request's access token.

    It waits for the issuer where it needs keys; FastAPI runs it in a thread, as it is not async.
    A token in the URL or the body counts as none (RFC 6750 §2.2 and §2.3 are optional).
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(401)
    return tokens.verify(token.strip())


Claims = Annotated[dict, Depends(claims)]


def require(scope: str):
    def check(claims: Claims) -> dict:
        granted = claims.get("scope")
        if not isinstance(granted, str) or scope not in granted.split(" "):
            raise Refused(403, "insufficient_scope", scope)
        return claims

    return Depends(check)


@app.get("/orders")
def orders(claims: Annotated[dict, require("orders.read")]) -> dict:
    return {"sub": claims["sub"], "orders": [{"id": "1001", "item": "tea"}]}


@app.get("/me")
def me(claims: Claims) -> dict:
    return {"sub": claims["sub"], "client_id": claims["client_id"]}


@app.exception_handler(Refused)
def refused(_: Request, why: Refused) -> JSONResponse:
    return JSONResponse({"error": why.code} if why.code else {}, why.status, {"WWW-Authenticate": why.challenge("orders")})


@app.exception_handler(KeysUnavailable)
def unavailable(_: Request, why: KeysUnavailable) -> JSONResponse:
    print("tokens cannot be verified:", why, file=sys.stderr)
    return JSONResponse({"error": "temporarily_unavailable"}, 503, {"Retry-After": "5"})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3000")), access_log=False)
