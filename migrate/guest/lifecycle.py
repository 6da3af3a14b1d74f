"""The guest: started warm from a saved, booted state, or cold, which is what fills the cache."""

from __future__ import annotations

import base64
import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from migrate.backends.xml import rewritten
from migrate.clock import Deadline, until
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt import CHANNEL, Domain, Hypervisor
from migrate.drivers.qmp import Monitor, monitor
from migrate.drivers.together import each
from migrate.errors import CleanupError, GuestError, HostError, LabError
from migrate.files import advice
from migrate.formats.answers import Part, Shape, Signed
from migrate.formats.xml_document import parse_xml
from migrate.guest.clock_rate import ClockRateError
from migrate.guest.domain_xml import MONITOR, NAME
from migrate.guest.identity import Identity, forget, marked, record, recorded
from migrate.images.cache import build_once, digest
from migrate.images.disk import Disk
from migrate.images.initramfs import Image
from migrate.lab.api import Host
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

Prepare = Callable[[Domain], None]
"""Called once a guest has been started cold: waits for its probe, and gives it its address."""


@dataclass(frozen=True, slots=True)
class Order:
    """A guest that is asked for."""

    xml: str
    """Nobody's yet: a saved state is kept for whoever asks for the same one."""
    image: Image | Disk
    warm: bool
    cache: Path
    """Where saved states are kept; the hosts see it under the same path."""
    save_key: str = ""
    """What else a saved state depends on, e.g. a device's features: they are not in the XML."""
    identity: Identity = field(default_factory=Identity.new)


BOOTS = 3
PREPARED = "clock-rate"
"""What a saved guest was looked at for: older saved states were not."""


def saved_state(order: Order, hypervisor: Hypervisor) -> Path:
    """Where the booted guest is kept: one for each image, domain and QEMU version."""
    versions = hypervisor.versions()
    software = versions["qemu"], versions["libvirt"]
    key = digest(order.image.digest, order.xml, order.save_key, PREPARED, *software)
    return order.cache / "warm" / f"{order.image.name}-{key}.sav"


@contextmanager
def running(
    order: Order, first: Hypervisor, hosts: Sequence[Host], prepare: Prepare, deadline: Deadline
) -> Iterator[Domain]:
    """A guest that runs on ``first`` when the block begins; ended on all ``hosts`` at its end."""
    try:
        each(hosts, lambda host: record(host, order.identity, deadline))
        yield _start(order, first, prepare, deadline)
    finally:
        _end_everywhere(hosts, order.identity)


def _start(order: Order, on: Hypervisor, prepare: Prepare, deadline: Deadline) -> Domain:
    if not order.warm:
        return _cold(order, on, prepare, deadline)
    path = saved_state(order, on)
    build_once(path, lambda beside: _cold(order, on, prepare, deadline).save(str(beside)))
    try:
        with _own_copy(path, order.identity, on) as copy:
            xml = rewritten(on.saved_xml(str(copy)), (order.identity.mark,))
            with waiting(f"the guest to be restored on host {on.host}", deadline):
                return on.restore(str(copy), deadline, xml)
    except GuestError as error:
        raise GuestError(
            error.tried,
            host=error.host,
            said=error.said,
            remedy=error.remedy or f"if this guest never starts again, delete {path}",
        ) from error


HEADER_BYTES = 1 << 20
"""Of a saved state: libvirt writes the domain's XML before all else."""


@contextmanager
def _own_copy(saved: Path, identity: Identity, on: Hypervisor) -> Iterator[Path]:
    """A copy of a saved state with the identity's UUID, while the block runs.

    libvirt restores no guest under another UUID than the saved one's (its domain's ABI), so that is
    written over in the XML of the copy, where it takes as many bytes.
    """
    # One a host, which is leased: what a controller left that was killed is written over.
    copy = saved.with_name(f"saved-{identity.lab}-{on.host}-start.sav")
    try:
        copy.unlink(missing_ok=True)
        copy.touch(0o600, exist_ok=False)  # a guest's memory: for nobody else to read
        shutil.copyfile(saved, copy)
        xml = parse_xml(on.saved_xml(str(copy)), f"read the XML in {copy}", host=on.host)
        before = xml.findtext("uuid", "")
        with copy.open("r+b") as file:
            header = file.read(HEADER_BYTES)
            file.seek(0)
            file.write(header.replace(before.encode(), identity.uuid.encode()))
        yield copy
    except OSError as error:
        remedy = advice(error, copy.parent)
        raise HostError(f"copy the saved guest {saved}", said=str(error), remedy=remedy) from error
    finally:
        copy.unlink(missing_ok=True)


def _cold(order: Order, on: Hypervisor, prepare: Prepare, deadline: Deadline) -> Domain:
    """A guest that has booted; once more if it measured its clock wrongly, :data:`BOOTS` times."""
    for _ in range(BOOTS - 1):
        try:
            return _booted(order, on, prepare, deadline)
        except ClockRateError as error:
            LOGGER.info("the guest is booted again: %s", error.said)
    return _booted(order, on, prepare, deadline)


def _booted(order: Order, on: Hypervisor, prepare: Prepare, deadline: Deadline) -> Domain:
    domain = on.create(rewritten(order.xml, (order.identity.mark,)), deadline)
    try:
        with waiting(f"the guest to boot on host {on.host}", deadline):
            prepare(domain)
    except BaseException:
        with contextlib.suppress(LabError):  # the first error is the one to tell
            domain.destroy()
        raise
    return domain


PROBE = "/usr/local/sbin/migrate-lab-probe"
"""Where the guest agent puts the probe: on the overlay, which is thrown away."""
CHUNK = 36 << 10
"""Bytes of one guest-file-write. A message of 256 KiB was never answered (QEMU 10.0); in base64
this is one of 48 KiB."""


class _Process(Part):
    """GuestExec."""

    pid: Signed


class _ExitStatus(Part):
    """GuestExecStatus."""

    exited: bool
    exitcode: Signed | None = None
    signal: Signed | None = None


HANDLE, PROCESS, EXIT_STATUS = Shape(int), Shape(_Process), Shape(_ExitStatus)
BRING_S = 60.0
"""For the probe to be brought in, from the agent's first answer on."""
POLL_S = 0.2
"""Between two asks for an agent, which says nothing by itself, or over connections made anew."""


def bring_probe(domain: Domain, probe: Path, deadline: Deadline) -> None:
    """Copy the probe into a guest that runs the QEMU guest agent, and start it there.

    Source: QEMU docs/interop/qemu-ga-ref. Raises GuestError when no agent answers by the deadline,
    or when it refuses: some distributions forbid it guest-file-write and guest-exec.
    """
    _await_agent(domain, deadline)
    deadline = deadline.sooner(BRING_S)
    try:
        asked = "guest-file-open"
        opened = domain.agent(asked, deadline, path=PROBE, mode="w")
        file = HANDLE.of(opened, asked, host=domain.host)
        content = probe.read_bytes()
        for begin in range(0, len(content), CHUNK):
            part = base64.b64encode(content[begin : begin + CHUNK]).decode()
            domain.agent("guest-file-write", deadline, handle=file, **{"buf-b64": part})
        domain.agent("guest-file-close", deadline, handle=file)
        _execute(domain, deadline, "/bin/chmod", "755", PROBE)
        words = {"path": PROBE, "arg": ["--port-name", CHANNEL, "--fifo", "10"]}
        domain.agent("guest-exec", deadline, **words)
    except HostError as error:
        raise GuestError(
            "bring the probe into the guest",
            host=domain.host,
            said=error.said,
            remedy="its guest agent has to allow guest-file-open, guest-file-write and guest-exec",
        ) from error


def _await_agent(domain: Domain, deadline: Deadline) -> None:
    def answers() -> bool:
        domain.agent("guest-ping", deadline.sooner(5))
        return True

    try:
        until(answers, deadline, POLL_S, not_yet=lambda _error: domain.state() == "running")
    except HostError as error:
        raise GuestError(
            "wait for the guest agent",
            host=domain.host,
            said=error.said,
            remedy="does the disk boot (see its console), and run qemu-guest-agent?",
        ) from error


def _execute(domain: Domain, deadline: Deadline, path: str, *words: str) -> None:
    """Run a program in the guest to its end; HostError when its status is not 0."""
    asked = "guest-exec"
    started = domain.agent(asked, deadline, path=path, arg=list(words))
    pid = PROCESS.of(started, asked, host=domain.host).pid

    def exit_status() -> _ExitStatus | None:
        asked = "guest-exec-status"
        answer = domain.agent(asked, deadline, pid=pid)
        status = EXIT_STATUS.of(answer, asked, host=domain.host)
        return status if status.exited else None

    status = until(exit_status, deadline, POLL_S)
    if status is None or status.exitcode != 0:
        said = "it has not ended" if status is None else f"it ended as {status}"
        raise HostError(f"run {path} in the guest", host=domain.host, said=said)


END_S = 20.0
"""For libvirt to end a guest: it asks QEMU first, and kills it after some 15 s."""
PID_FILE = f"/run/libvirt/qemu/{NAME}.pid"


def _end_everywhere(hosts: Sequence[Host], identity: Identity) -> None:
    """End the guest on every host, over new connections: those of the attempt may have broken."""

    def reason(host: Host) -> LabError | None:
        try:
            _end(host, identity)
        except LabError as error:
            return error
        return None

    reasons: list[Exception] = [error for error in each(hosts, reason) if error is not None]
    if reasons:
        raise CleanupError("end the guest", reasons)


def _end(host: Host, identity: Identity) -> None:
    """End the guest by libvirt, or where that does not answer, by the process id in its file."""
    try:
        with host.connect() as hypervisor:
            end_guest(host, hypervisor, identity)
    except HostError:
        signal_qemu(host, identity.uuid, "KILL")
        raise


def end_guest(host: Host, hypervisor: Hypervisor, identity: Identity) -> bool:
    """End the guest if it is on ``host``; False: it was not there. HostError, and it is left alone,
    if the domain with its UUID has not its metadata."""
    domain = hypervisor.find(identity.uuid)
    if domain is not None:
        if not identity.owns(domain) and hypervisor.find(identity.uuid) is not None:
            raise HostError(
                "end the guest",
                host=host.name,
                said=f"domain {domain.name}, UUID {domain.uuid}, has not our metadata",
                remedy=f"end it, if it is nobody's: virsh destroy {domain.uuid}",
            )
        _destroy(domain, host)
    forget(host, identity, Deadline.after(END_S))
    return domain is not None


def end_left(host: Host, hypervisor: Hypervisor) -> bool:
    """End the guests that a controller left on ``host`` when it was killed; False: none is there.

    What is not ours by UUID and metadata is left alone.
    """
    left = recorded(host, Deadline.after(END_S))
    ended = [end_guest(host, hypervisor, identity) for identity in left]
    return any(ended)


def check_name_is_free(hypervisor: Hypervisor) -> None:
    """HostError if somebody else's domain has the name that ours would get."""
    other = hypervisor.find_named(NAME)
    if other is None:
        return
    origin = "that has our metadata, but is in no journal there" if marked(other) else "not ours"
    raise HostError(
        f"start a guest called {NAME}",
        host=hypervisor.host,
        said=f"there is a domain {NAME}, UUID {other.uuid}, {other.state()}: {origin}; "
        "it was left alone",
        remedy=f"rename it (virsh domrename), or end and undefine it (virsh destroy {other.uuid}), "
        "or use another host",
    )


def _destroy(domain: Domain, host: Host) -> None:
    ending = BackgroundCall("end the guest", domain.destroy)
    with waiting(f"the guest to end on host {host.name}", 2 * END_S):
        if not ending.wait(Deadline.after(END_S)):
            signal_qemu(host, domain.uuid, "KILL")
        if not ending.wait(Deadline.after(END_S)):
            raise HostError("end the guest", host=host.name, said="libvirt does not answer")
    ending.result()


SIGNAL = """
[ -n "$2" ]
pid=$(cat "$1")
# An id may be another process's by now: libvirt gives QEMU the UUID as an argument.
tr '\\0' '\\n' < "/proc/$pid/cmdline" | grep -q -x -F -e "$2"
kill -"$3" "$pid"
"""


def signal_qemu(host: Host, uuid: str, name: str) -> bool:
    """Send a signal to the QEMU of the guest with this UUID, whatever libvirt says; False: it is
    not on ``host``."""
    words = ["sh", "-ec", SIGNAL, "sh", PID_FILE, uuid, name]
    return host.run(words, Deadline.after(END_S), check=False).status == 0


def settled(hosts: Sequence[Host], uuid: str, deadline: Deadline) -> bool:
    """Wait until no host's libvirt has a job for the guest; False: one still has at the deadline.

    For when nobody heard how a move ended: it may go on without whoever asked for it. A host that
    can't be reached is tried again until the deadline, and is a HostError then.
    """
    return until(
        lambda: not any(_at_work(host, uuid) for host in hosts),
        deadline,
        POLL_S,
        not_yet=lambda error: isinstance(error, HostError),
    )


def _at_work(host: Host, uuid: str) -> bool:
    with host.connect() as hypervisor:
        domain = hypervisor.find(uuid)
        return domain is not None and domain.in_job()


def holders(hosts: Sequence[Host], uuid: str) -> tuple[str, ...]:
    """The names of the hosts on which the guest runs now; every one is asked."""
    names = []
    for host in hosts:
        with host.connect() as hypervisor:
            domain = hypervisor.find(uuid)
            if domain is not None and domain.state() == "running":
                names.append(host.name)
    return tuple(names)


@contextmanager
def own_monitor(host: Host, deadline: Deadline) -> Iterator[Monitor]:
    """The second monitor of the guest on ``host``, beside libvirt's, while the block runs."""
    with host.dial(MONITOR, deadline) as plug, monitor(plug, host.name, deadline) as qemu:
        yield qemu
