"""nova-conductor: sees a creation through (steps 5 and 7), and writes the state of VMs into the database."""

from typing import Any

from pika.exceptions import UnroutableError

from services.database import PROJECT, Database
from services.rpc import Context, Peer, versioned

database, broker = Database("nova-conductor"), Peer("nova-conductor")


def answer(method: str, args: Any, context: Context) -> Any:
    if method == "schedule_and_build_instances":
        server_id = args["build_requests"][0]["nova_object.data"]["instance_uuid"]
        database("INSERT INTO instances VALUES (%s, %s, 'building')", server_id, PROJECT)
        try:
            build(server_id, args, context)
        except UnroutableError:
            give_up(server_id, "MessageUndeliverable: nobody takes the message")
        except RuntimeError as error:
            give_up(server_id, str(error))
    elif method == "object_action":
        instance = args["objinst"]["nova_object.data"]
        if instance["vm_state"] == "error":
            give_up(instance["uuid"], instance["fault"])
        else:
            database(
                "UPDATE instances SET vm_state=%s WHERE uuid = %s", instance["vm_state"], instance["uuid"]
            )
    return None


def build(server_id: str, args: Any, context: Context) -> None:
    # Step 5: which host can take it?
    topic = "scheduler.nowhere" if context["break"] == "5" else "scheduler"
    spec = {"instance_uuids": [server_id], "spec_obj": args["request_specs"][0]}
    [[chosen]] = broker.call(topic, "select_destinations", spec, context)
    # Step 7: that host is to create it.
    host = chosen["nova_object.data"]["service_host"]
    topic = f"compute.{'nowhere' if context['break'] == '7' else host}"
    instance = versioned("Instance", uuid=server_id, vm_state="building")
    broker.cast(
        topic, "build_and_run_instance", {"instance": instance, "requested": args["requested"]}, context
    )


def give_up(server_id: str, why: str) -> None:
    database(
        "INSERT INTO instance_faults (instance_uuid, code, message) VALUES (%s, 500, %s)", server_id, why
    )
    database("UPDATE instances SET vm_state='error' WHERE uuid = %s", server_id)


if __name__ == "__main__":
    broker.serve("conductor", answer=answer)
