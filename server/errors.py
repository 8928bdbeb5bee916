"""The one tree of errors; it knows no transport (rpc/status.py maps it to gRPC status codes).

PairwireError
├── InvalidInput           what was sent cannot be served: which field, why, what to do
├── ModelNotFound          no loaded model has that name
├── WrongModelKind         the model exists but cannot do that
├── ModelRefused           a model could not be loaded, exchanged or taken away; what served before still does
├── Unsupported            no model of this version can do that
├── Overloaded             the queue is full; says when to try again
├── DeadlineExceeded       the answer would come, or has come, too late
├── Cancelled              the caller has gone
├── Unauthenticated        no API key was shown, or none that is known
├── PermissionDenied       the key is known and may not do that
├── NotReady               starting or draining: another server may help
├── EngineFault            our own failure while running a batch
└── StartupError           never on the wire: the process cannot start
    ├── ConfigInvalid      an option, environment variable or file
    ├── PackageInvalid     a model package that is missing, damaged or too new
    └── RuntimeMissing     neither or both of onnxruntime's wheels are installed, or no GPU can be used

Example::

    try:
        result = await engine.score(pairs, timeout_s=0.2)
    except InvalidInput as error:
        print(error.field, error.reason)
    except Overloaded as error:
        await asyncio.sleep(error.retry_after_s)
"""

from __future__ import annotations


class PairwireError(Exception):
    """Root of all errors that Pairwire raises on purpose; ``str(error)`` is a sentence for a person."""

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self)


class InvalidInput(PairwireError):
    """Input that cannot be served. ``field`` is the path of the culprit in the request, e.g. ``documents[3]``."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    @classmethod
    def empty(cls, field: str) -> InvalidInput:
        """The error for a list without an element."""
        return cls(field, "empty; give at least one")


class ModelNotFound(PairwireError):
    """No loaded model has that name."""


class WrongModelKind(PairwireError):
    """The model exists but cannot do what was asked: it is of another kind, or its package lacks what that needs."""


class ModelRefused(PairwireError):
    """A model was not loaded, exchanged or taken away; what served before serves as before. The sentence says why."""


class Unsupported(PairwireError):
    """A protocol has a call, and no model of this version can serve it, whatever is sent."""


class Overloaded(PairwireError):
    """The queue has no room. ``retry_after_s`` is when, by the estimate of the queue, it will have."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(PairwireError):
    """The deadline has passed, or would pass before the answer.

    ``retry_after_s`` is when there will be less to do, where that is why; else None.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Cancelled(PairwireError):
    """The caller has gone; what was left of its work was dropped."""


class Unauthenticated(PairwireError):
    """Nobody knows who calls: no API key was shown, or none of this server's."""


class PermissionDenied(PairwireError):
    """The API key is known, and has no role that the call needs."""


class NotReady(PairwireError):
    """The server is starting or draining and takes no work."""

    @classmethod
    def closed(cls) -> NotReady:
        """The error for work that an engine had when it was closed."""
        return cls("the engine was closed before the request was done; try another server")


class EngineFault(PairwireError):
    """The runtime failed on a batch. Not the caller's fault."""


class StartupError(PairwireError):
    """The process cannot start; the sentence says what to change."""


class ConfigInvalid(StartupError):
    """An option has a value that cannot work."""


class PackageInvalid(StartupError):
    """A model package is missing, damaged, or of a format this version does not read."""


class RuntimeMissing(StartupError):
    """Neither or both of ``onnxruntime`` and ``onnxruntime-gpu`` are installed, or NVIDIA's driver cannot be used.

    ``cause`` says what is wrong and ``fix`` what to do, where they are known apart.
    """

    def __init__(self, cause: str, fix: str = "") -> None:
        super().__init__(f"{cause}; {fix}" if fix else cause)
        self.cause = cause
        self.fix = fix
