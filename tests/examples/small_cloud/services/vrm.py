"""The VRM: makes a VM on a host, and starts it (step 8c)."""

from itertools import count

from services.addresses import where
from services.web import Answer, Request, serve

SITE = "/service/sites/43BC08E8"
numbers = count(100)


def answer(asked: Request) -> Answer:
    if asked.is_for("POST", f"{SITE}/vms"):
        if asked.breaks("8c"):
            return Answer(500, {"errorCode": "10000001", "errorDes": "The datastore is full."})
        return Answer(
            202, {"taskUri": f"{SITE}/tasks/{next(numbers)}", "uri": f"{SITE}/vms/i-{next(numbers):08X}"}
        )
    if asked.is_for("POST", f"{SITE}/vms/[^/]+/action/start"):
        return Answer(202, {"taskUri": f"{SITE}/tasks/{next(numbers)}"})
    if asked.is_for("GET", f"{SITE}/tasks/[^/]+"):
        return Answer(200, {"status": "success", "progress": 100})
    return Answer(404)


if __name__ == "__main__":
    address, port = where("vrm")
    serve(address, [port], answer)
