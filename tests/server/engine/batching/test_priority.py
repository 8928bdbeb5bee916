"""What is more urgent waits less."""

from pairwire.server.engine.batching.priority import Priority


def test_every_priority_has_a_patience_and_higher_ones_less() -> None:
    patience = [priority.patience_s for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
    assert patience == sorted(patience)
    assert patience[0] == 0
    assert {priority.patience_s for priority in Priority} == set(patience)
