"""cinder-api: knows the volumes (step 4b), and gives one to a host (step 8a)."""

from services.addresses import where
from services.web import Answer, Request, serve


def answer(asked: Request) -> Answer:
    if asked.is_for("GET", "/v3/[^/]+/volumes/[^/]+"):
        if asked.breaks("4b"):
            return Answer(404, {"itemNotFound": {"code": 404, "message": "Volume could not be found."}})
        return Answer(200, {"volume": {"status": "available"}})
    if asked.is_for("PUT", "/v3/[^/]+/attachments/[^/]+"):
        if asked.breaks("8a"):
            return Answer(
                500,
                {"computeFault": {"code": 500, "message": "The server has no connection to the storage."}},
            )
        return Answer(200, {"attachment": {"connection_info": {"driver_volume_type": "iscsi"}}})
    return Answer(404)


if __name__ == "__main__":
    address, port = where("cinder-api")
    serve(address, [port], answer)
