"""Every error that Tusi raises on purpose, in one tree.

    TusiError
      ConfigError               a recipe, flag or environment variable is wrong        CLI exit 2
      CheckpointError           a checkpoint or one of its files is not usable         CLI exit 1
      DownloadError             a download failed or what came is not what was asked   CLI exit 1
      RequestError              the caller's fault; .param names the field, .code      HTTP 400
        ContextLengthExceeded   the prompt is longer than the model or cache takes
        UnsupportedMedia        a picture or video that cannot be, or must not be, read
      CapacityError             no room now, try again; .retry_after in seconds        HTTP 429
      BackendUnavailable        an optional dependency or a device is missing          CLI exit 3, HTTP 503
        EngineRestarting        no engine lives just now; one is being started         HTTP 503, Retry-After
      EngineError               our own fault; the engine says that it is dead         HTTP 500
        ReplicaLost             the engine process died; others go on                  HTTP 503, Retry-After

A message has three parts: what happened (with the values), what was expected, what to do about it.
This module knows nothing of the rest of the package.
"""

from __future__ import annotations


class TusiError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(TusiError):
    """A recipe, flag, environment variable or argument is wrong."""

    exit_code = 2


class CheckpointError(TusiError):
    """A checkpoint directory, its config, tokenizer or tensors cannot be used as they are."""


class DownloadError(TusiError):
    """A download failed for good, or the bytes that arrived are not the ones that were promised."""


class RequestError(TusiError):
    """The request cannot be honoured as it stands; it is the caller's to change.

    param: the field at fault in the caller's own terms (`messages[2].content[0].image_url`), if known.
    code: a short machine-readable reason (`context_length_exceeded`), sent on the wire.
    """

    default_code = "invalid_request"
    exit_code = 2

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.default_code


class ContextLengthExceeded(RequestError):
    """Prompt (and requested output) are longer than the model or the KV cache takes."""

    default_code = "context_length_exceeded"


class UnsupportedMedia(RequestError):
    """A picture or video that cannot be decoded, is over a limit, or may not be fetched."""

    default_code = "unsupported_media"


class CapacityError(TusiError):
    """The queue or a pool is full just now. retry_after: seconds after which trying again makes sense."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendUnavailable(TusiError):
    """Something optional (a package, a device, a server) is needed for this and is not there."""

    exit_code = 3


class EngineRestarting(BackendUnavailable):
    """No engine process lives just now, and one is being started. retry_after: seconds until it may be there."""

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(TusiError):
    """The engine failed at its own work; requests in flight are lost and it says so."""


class ReplicaLost(EngineError):
    """The engine process that ran the request is gone; the same request may be sent again at once."""

    retry_after = 1.0
