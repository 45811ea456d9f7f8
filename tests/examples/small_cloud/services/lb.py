"""The load balancer: passes on what it is asked at its outer address, by the port (steps 2 and 3)."""

from services.addresses import LB, PORTS, where
from services.web import Answer, Request, call, serve

BEHIND = {PORTS["keystone"]: "keystone", PORTS["nova-api"]: "nova-api"}


def answer(asked: Request) -> Answer:
    service = BEHIND[int(asked.headers["Host"].rpartition(":")[2])]
    # Without a server behind it, it answers by itself.
    if asked.breaks("2" if service == "keystone" else "3"):
        return Answer(503, {"error": "No server is available to handle this request."})
    headers = {name.lower(): value for name, value in asked.headers.items()}
    del headers["accept-encoding"]
    headers["x-forwarded-for"] = "10.10.0.10"
    told = call(where(service), asked.method, asked.path, asked.body, headers)
    own = {"Server", "Date", "Content-Length", "Content-Type"}
    return Answer(told.status, told.body, {k: v for k, v in told.headers.items() if k not in own})


if __name__ == "__main__":
    serve(LB, list(BEHIND), answer)
