"""The service's hosts by region, each with the backup the vendor names for a hijacked DNS.

https://www.tencentcloud.com/document/product/1047/34620
"""

from __future__ import annotations

from urllib.parse import urlsplit

REGIONS: dict[str, tuple[str, str]] = {
    "china": ("console.tim.qq.com", "adminapi.my-imcloud.com"),
    "singapore": ("adminapisgp.im.qcloud.com", "adminapisgp.my-imcloud.com"),
    "seoul": ("adminapikr.im.qcloud.com", "adminapikr.my-imcloud.com"),
    "tokyo": ("adminapijpn.im.qcloud.com", "adminapijpn.my-imcloud.com"),
    "frankfurt": ("adminapiger.im.qcloud.com", "adminapiger.my-imcloud.com"),
    "silicon_valley": ("adminapiusa.im.qcloud.com", "adminapiusa.my-imcloud.com"),
    "jakarta": ("adminapiidn.im.qcloud.com", "adminapiidn.my-imcloud.com"),
}
"""Region name → (host, backup host)."""


class Hosts:
    """The base URLs that serve one app, the one to use first.

    A host that cannot be resolved or connected to is put behind its backup and stays there until the backup
    fails in its turn: both serve the same app, so there is nothing to hurry back to.
    """

    __slots__ = ("_urls",)

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)

    @classmethod
    def of(cls, region: str | None, base_url: str | None) -> Hosts:
        """Hosts of a region, or the one host of a base URL; exactly one of the two must be given.

        Raises:
            ValueError: none or both given, an unknown region, or a base URL that is not plain http(s).
        """
        if (region is None) == (base_url is None):
            raise ValueError("give either region=… or base_url=…, one of the two")
        if base_url is not None:
            return cls(_checked(base_url))
        name = str(region).strip().lower().replace(" ", "_").replace("-", "_")
        if name not in REGIONS:
            raise ValueError(f"unknown region {region!r}; one of: {', '.join(REGIONS)}")
        return cls(*(f"https://{host}" for host in REGIONS[name]))

    @property
    def current(self) -> str:
        """The base URL to try now, without a trailing slash."""
        return self._urls[0]

    def __len__(self) -> int:
        return len(self._urls)

    def after(self, failed: str) -> str:
        """The base URL to try after ``failed``, which goes last unless somebody else has seen to that already."""
        if failed == self._urls[0]:
            self._urls.append(self._urls.pop(0))
        return self._urls[0]


def _checked(base_url: str) -> str:
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, not {type(base_url).__name__}")
    parts = urlsplit(base_url)
    _ = parts.port  # raises ValueError when it is none
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("base_url must look like https://host or http://127.0.0.1:8099, without user or query")
    return base_url.rstrip("/")
