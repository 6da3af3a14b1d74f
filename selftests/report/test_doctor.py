"""What `doctor` says that a QEMU is asked about guests under test, and what it is not."""

from __future__ import annotations

from migrate.model import Observers, QuestionTrial
from migrate.report.doctor import observers
from selftests.doubles.qmp import observers as tried_with


def test_all_that_does_no_harm_is_named_once() -> None:
    (line,) = observers(tried_with("10.0.13"))
    assert line == (
        "yes  QEMU 10.0.13 is asked x-query-virtio, x-query-virtio-status, "
        "x-query-virtio-vhost-queue-status, x-query-virtio-queue-status"
    )


def test_what_does_harm_is_named_with_its_harm_and_the_states() -> None:
    asked, not_asked = observers(tried_with("11.1.3", x_query_virtio_status="ends"))
    assert "x-query-virtio-status" not in asked
    assert not_asked == (
        "no   x-query-virtio-status ends QEMU 11.1.3: not asked when running, stopped, migrated, "
        "incoming, loaded, resumed"
    )


def test_a_harm_with_one_kind_of_backend_alone_says_so() -> None:
    trial = QuestionTrial(command="x-a", state="running", backing="none")
    harmed = trial.model_copy(update={"backing": "vhost-user", "harm": "ends"})
    tried = Observers(qemu="9.9.9", trials=(trial, harmed), untried="")
    lines = [*observers(tried)]
    assert lines == [
        "yes  QEMU 9.9.9 is asked nothing experimental",
        "no   x-a ends QEMU 9.9.9: not asked when running (vhost-user)",
    ]
    assert tried.objection("x-a", "running") == "ends QEMU 9.9.9"
    assert tried.objection("x-b", "running") == "is not known to this QEMU"
