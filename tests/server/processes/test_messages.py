"""What is sent is what arrives."""

from pathlib import Path

from pairwire.server.config import ListenConfig, ServerConfig
from pairwire.server.processes.messages import News, Spec, decode, encode
from pairwire.server.processes.shares import Share


def test_a_message_is_one_line_whatever_it_holds() -> None:
    text = 'two\nlines, "quotes", \u2028 and Ünicode'
    line = encode(News.REPORT, text)
    assert line.count(b"\n") == 1
    assert decode(line) == (News.REPORT, text)


def test_a_spec_arrives_whole() -> None:
    config = ServerConfig(models=(Path("a b"),), listen=ListenConfig(port=7, metrics_port=-1))
    spec = Spec(number=1, share=Share((2, 3), 1), config=config)
    assert Spec.from_text(spec.to_text()) == spec
