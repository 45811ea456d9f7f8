"""neutron-server: knows the networks (step 4b), and makes ports on them (step 8b)."""

import uuid

from services.addresses import where
from services.web import Answer, Request, serve


def answer(asked: Request) -> Answer:
    if asked.is_for("GET", "/v2.0/networks"):
        return Answer(200, {"networks": [{"status": "ACTIVE"}]})
    if asked.is_for("POST", "/v2.0/ports"):
        if asked.breaks("8b"):
            return Answer(
                409, {"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more addresses."}}
            )
        return Answer(201, {"port": {"id": str(uuid.uuid4())}})
    if asked.is_for("PUT", "/v2.0/ports/[^/]+"):
        return Answer(200, {"port": {"id": asked.path.rpartition("/")[2]}})
    return Answer(404)


if __name__ == "__main__":
    address, port = where("neutron-server")
    serve(address, [port], answer)
