"""What a picture or video may cost before it is refused. Values only; who spends the resource checks them."""

from __future__ import annotations

from dataclasses import dataclass

from tusi.core.errors import ConfigError, UnsupportedMedia

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Bounds on media. The defaults suit a person at their own machine; a server also forbids local files.

    max_image_bytes, max_video_bytes: size of one encoded item, whether it is read, decoded from base64 or downloaded.
    max_image_pixels: width x height of a picture, read from its header before anything is decoded.
    max_image_frames: frames or pages of a picture file; the first one is shown.
    max_frame_pixels: the same for one frame of a video, as stored.
    max_video_frames: frames that one video may contribute after sampling.
    max_video_seconds, max_source_frames: length of a video before sampling.
    max_video_index_bytes: memory for the list of all samples that a video's header claims; seen to before it is opened.
    max_listed_frames: pictures in a list that is given as a video, before sampling.
    max_images, max_videos: items in one prompt.
    max_placeholder_tokens: tokens that all media of one prompt may take together; checked before pixels are made.
    connect_timeout, read_timeout, total_timeout: seconds to reach a server, between two pieces, for the whole download.
    max_redirects: hops that a download may take; each is checked like the first.
    allow_private_addresses: permit downloads from loopback, private, link-local and other non-public addresses.
    allowed_domains: if not empty, the only hosts to download from: `example.com` is that host alone, `.example.com`
        is that host and everything under it.
    allow_local_files: permit paths and file: URLs as sources.
    allowed_local_path: if set, local files must lie under this folder (symbolic links are followed first).
    """

    max_image_bytes: int = 64 * _MIB
    max_video_bytes: int = 1024 * _MIB
    max_image_pixels: int = 120_000_000
    max_image_frames: int = 1000
    max_frame_pixels: int = 36_000_000
    max_video_frames: int = 1024
    max_video_seconds: float = 4 * 3600.0
    max_source_frames: int = 1_000_000
    max_video_index_bytes: int = 512 * _MIB
    max_listed_frames: int = 4096
    max_images: int = 64
    max_videos: int = 8
    max_placeholder_tokens: int = 131_072
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    total_timeout: float = 60.0
    max_redirects: int = 5
    allow_private_addresses: bool = False
    allowed_domains: tuple[str, ...] = ()
    allow_local_files: bool = True
    allowed_local_path: str | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"MediaLimits.{name} is {getattr(self, name)!r}; it must be more than 0. To forbid a kind of "
                    f"medium, set max_images or max_videos to 0."
                )
        for name in ("max_images", "max_videos", "max_redirects"):
            if getattr(self, name) < 0:
                raise ConfigError(f"MediaLimits.{name} is {getattr(self, name)!r}; it must be 0 or more. Correct it.")
        if isinstance(self.allowed_domains, str):
            raise ConfigError(
                f"MediaLimits.allowed_domains is the string {self.allowed_domains!r}; it must be a tuple of host "
                f"names. Write ({self.allowed_domains!r},)."
            )


_POSITIVE = (
    "max_image_bytes",
    "max_video_bytes",
    "max_image_pixels",
    "max_image_frames",
    "max_frame_pixels",
    "max_video_frames",
    "max_video_seconds",
    "max_source_frames",
    "max_video_index_bytes",
    "max_listed_frames",
    "max_placeholder_tokens",
    "connect_timeout",
    "read_timeout",
    "total_timeout",
)


def check_limit(
    actual: float, limits: MediaLimits, name: str, *, what: str, advice: str, param: str | None = None
) -> None:
    """Raise UnsupportedMedia if actual is more than `limits.<name>`; the message has both numbers and the advice."""
    limit = getattr(limits, name)
    if actual > limit:
        raise UnsupportedMedia(
            f"{what}: {actual:,} is over the limit of {limit:,} ({name}). {advice}",
            param=param,
            code="media_limit_exceeded",
        )
