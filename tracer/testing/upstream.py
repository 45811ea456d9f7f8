"""The traffic of creations in an ordinary OpenStack cloud: no VRM, and all states that nova-compute saves.

    cloud = Cloud(SPREAD, portal=False, proxy=False)
    UpstreamCreation(cloud, breaks={"8c": "hangs"}).run()

The hypervisor (libvirt) talks over a socket of its host, so nothing of step 8c is on the wire but what
nova-compute saves. The order is that of real captures (nova 26): all states of the build come first, because
another thread asks neutron meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tracer.testing.breaks import OF_A_HOST
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import nova_object

__all__ = ["UpstreamCreation"]

_TASK = {"8b": "networking", "8a": "block_device_mapping", "8c": "spawning"}
"""Step -> task_state, in the order in which nova-compute saves them."""
TRACEBACK = [
    "Traceback (most recent call last):\n",
    '  File "manager.py", line 2609\n',
    "nova.exception: made\n",
]


class UpstreamCreation(Creation):
    """A `Creation` without a VRM. *tells*: how the captures show what nova-compute saves (RPC, SQL, or both).

    Breaks of 8a, 8b and 8c: hangs (nothing after the state of the step); fails (the host gives up with
    *reason*, another one is asked, and *left* is recorded where there is none); aborts (the host records
    *reason* as the fault, and the state error); dies (the state error alone). Of 7, beside those of
    `Building.attempt`: late (the host refuses before it touches anything: it records *reason*, and asks for
    another host). Of 1 to 8b, most of what a `Creation` knows; breaks.py lists all.
    """

    breaks_known = OF_A_HOST

    def __init__(
        self,
        cloud: Cloud,
        *args: Any,
        tells: Collection[str] = ("RPC", "SQL"),
        reason: str = "the hypervisor is unwell",
        left: str = "",
        **options: Any,
    ) -> None:
        super().__init__(cloud, *args, **options)
        self.tells, self.reason, self.left = tells, reason, left

    def attempt(self, number: int, host: str) -> str:
        """Build on one host; return the result, as `Building.attempt` does."""
        how = self.broken("7")
        if how not in ("", "late", "redelivered", "left out"):
            return super().attempt(number, host)
        if how != "left out":
            fate = "redelivered" if how == "redelivered" else "ok"
            instance = nova_object("Instance", uuid=self.server_ids[number])
            body = self.cloud.message("build_and_run_instance", {"instance": instance}, self.request_id)
            self.cloud.rpc(self.wait(), "nova-conductor", host, "nova", f"compute.{host}", body, fate)
        self.wait(0.05)
        self.save(host, number, "building")
        if how == "late":
            self.say_fault(number, host)
            return self.ask_another(number, host)
        for step, task in _TASK.items():
            self.save(host, number, "building", task)
            if step == "8a" and (end := self.step_8a(number, host)):
                return end
            if (how := self.broken(step)) in _ENDS:
                if step == "8c":
                    self.step_8b(number, host)
                return _ENDS[how](self, number, host)
        if end := self.step_8b(number, host):
            return end
        self.wait(0.4)
        self.succeed(number, host)
        return "active"

    def step_8a(self, number: int, host: str) -> str:
        """Write step 8a, unless the host stops before its calls."""
        return "" if self.broken("8a") in _ENDS else super().step_8a(number, host)

    # --- how a host ends ---

    def hang(self, number: int, host: str) -> str:
        """Write nothing any more but polls."""
        self.poll(number, self.now + 11, "BUILD")
        return "stop"

    def die(self, number: int, host: str) -> str:
        """Write the state error, without a reason."""
        self.save(host, number, "error")
        return "stop"

    def abort(self, number: int, host: str) -> str:
        """Write the fault and the state error of a host after which no other one is asked."""
        self.wait(0.3)
        self.say_fault(number, host)
        self.save(host, number, "error")
        self.poll(number, self.now + 0.5, "ERROR")
        return "stop"

    def ask_another(self, number: int, host: str) -> str:
        """Write that the host gives up and asks for another one; the state error where none is left."""
        self.wait(0.3)
        self.save(host, number, "building", "scheduling")
        server_id = self.server_ids[number]
        retry = {"num_attempts": 1, "hosts": [[host, host]], "exc_reason": self.reason, "exc": TRACEBACK}
        args = {
            "instances": [nova_object("Instance", uuid=server_id)],
            "filter_properties": {"retry": retry, "limits": {}},
        }
        body = self.cloud.message("build_instances", args, self.request_id)
        self.cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", body)
        if host == list(self.hosts[number])[-1]:
            self.sql(
                "nova-conductor",
                f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{server_id}'",
            )
            if self.left:
                self.write_fault(number, self.left, "NULL")
            self.poll(number, self.now + 0.5, "ERROR")
            return "stop"
        return "next"

    def say_fault(self, number: int, host: str) -> None:
        """Write InstanceFault.create of *host*: RPC to nova-conductor, its INSERT, and the reply."""
        fault = nova_object(
            "InstanceFault",
            instance_uuid=self.server_ids[number],
            code=500,
            message=self.reason,
            details="".join(TRACEBACK),
            host=host,
        )
        args = {"objinst": fault, "objmethod": "create", "args": [], "kwargs": {}}
        self.act_on_object(host, args, self.fault_statement(number, self.reason, f"'{host}'"))

    def write_fault(self, number: int, text: str, host: str) -> None:
        """Write the record of a fault by nova-conductor itself."""
        self.sql("nova-conductor", self.fault_statement(number, text, host))

    def fault_statement(self, number: int, text: str, host: str) -> str:
        """Return the INSERT of a fault; *host* is quoted, or NULL."""
        values = f"0, '{self.server_ids[number]}', 500, '{text}', 'Traceback', {host}"
        columns = "deleted, instance_uuid, code, message, details, host"
        return f"INSERT INTO instance_faults ({columns}) VALUES ({values})"


_ENDS = {
    "hangs": UpstreamCreation.hang,
    "dies": UpstreamCreation.die,
    "aborts": UpstreamCreation.abort,
    "fails": UpstreamCreation.ask_another,
}
"""Break -> the method that writes it."""
