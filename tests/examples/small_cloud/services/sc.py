"""ServiceCenter: takes orders for VMs, and asks the cloud for them (steps 1 and 2)."""

from services.addresses import LB, PORTS, where
from services.web import BREAK, Answer, Request, call, serve


def answer(asked: Request) -> Answer:
    if asked.is_for("POST", "/sc/cloudhosts"):
        return order(asked)
    if asked.is_for("GET", "/sc/cloudhosts/.+"):
        token = log_in(asked)
        path = asked.path.replace("/sc/cloudhosts", "/v2.1/servers")
        return call((LB, PORTS["nova-api"]), "GET", path, headers={"X-Auth-Token": token})
    return Answer(404)


def order(asked: Request) -> Answer:
    """Step 1: an administrator applies for a cloud host."""
    if asked.breaks("1"):
        return Answer(403, {"error": "the order is not allowed"})
    token = log_in(asked)
    if not token:
        return Answer(502, {"error": "the cloud does not let the SC in"})
    # Step 2: the SC asks the load balancer's address for it.
    headers = {"X-Auth-Token": token, BREAK: asked.headers.get(BREAK, "")}
    told = call((LB, PORTS["nova-api"]), "POST", "/v2.1/servers", {"server": asked.body}, headers)
    if told.status != 202:
        return Answer(told.status, {"error": "the cloud refused"})
    return Answer(202, {"id": told.body["server"]["id"], "status": "processing"})


def log_in(asked: Request) -> str:
    """A token for the cloud; empty when there is none to be had."""
    user = {"name": "sc", "domain": {"id": "default"}, "password": "secret-of-the-sc"}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    told = call(
        (LB, PORTS["keystone"]), "POST", "/v3/auth/tokens", body, {BREAK: asked.headers.get(BREAK, "")}
    )
    return told.headers.get("X-Subject-Token", "")


if __name__ == "__main__":
    address, port = where("sc")
    serve(address, [port], answer)
