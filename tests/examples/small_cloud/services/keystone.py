"""keystone: gives tokens, and tells whether one is good (step 4a)."""

import uuid

from services.addresses import where
from services.database import PROJECT
from services.web import Answer, Request, serve

TOKEN = {"token": {"project": {"id": PROJECT, "name": "demo"}, "roles": [{"name": "member"}]}}


def answer(asked: Request) -> Answer:
    if asked.is_for("POST", "/v3/auth/tokens"):
        return Answer(201, TOKEN, {"X-Subject-Token": f"gAAAAAB{uuid.uuid4().hex}"})
    if asked.is_for("GET", "/v3/auth/tokens"):
        if asked.breaks("4a"):
            return Answer(
                404, {"error": {"code": 404, "message": "Could not find token.", "title": "Not Found"}}
            )
        return Answer(200, TOKEN)
    return Answer(404)


if __name__ == "__main__":
    address, port = where("keystone")
    serve(address, [port], answer)
