"""Made-up measurements: the seam through which tests choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pairwire.server.tuning.measuring import Contender, Timings


class Stopwatch:
    """Measures by a function of the contender's name and remembers who was measured beside whom."""

    def __init__(self, us_per_token: Callable[[str, int], float]) -> None:
        """``us_per_token`` gets the name and how often it has been measured before."""
        self.rounds: list[list[str]] = []
        self._us_per_token = us_per_token
        self._count: dict[str, int] = {}

    def __call__(self, contenders: Sequence[Contender]) -> Timings:
        names = [contender.name for contender in contenders]
        self.rounds.append(names)
        times = []
        for name in names:
            times.append(self._us_per_token(name, self._count.get(name, 0)))
            self._count[name] = self._count.get(name, 0) + 1
        columns = len(contenders[0].work)
        return Timings([[time] * columns for time in times], [time / times[0] for time in times])


def by_name(times: Mapping[str, float], default: float = 10.0) -> Stopwatch:
    """The same time for a name at every measurement."""
    return Stopwatch(lambda name, _: times.get(name, default))
