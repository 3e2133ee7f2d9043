"""What one client may ask of the server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of uploads, streams and the queue.

    Attributes:
        megabytes: Largest body of a request, in 10⁶ bytes.
        seconds: Longest audio of a file or stream.
        places: Most requests that upload, wait or are decoded at the same time.
        streams: Most streams at the same time.
        upload_seconds: Longest time of an upload.
        idle_seconds: Longest silence of a client within a stream.
        picture_seconds: Longest audio for which alphas are returned.
        long_above: Seconds; longer files are recognised in windows.
    """

    megabytes: float = 100.0
    seconds: float = 7200.0
    places: int = 16
    streams: int = 4
    upload_seconds: float = 600.0
    idle_seconds: float = 60.0
    picture_seconds: float = 60.0
    long_above: float = 30.0

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)
