"""Files of a web server, by ranges (RFC 9110, sections 13 and 14). Every answer is checked against what was asked.

The standard library's client, because libraries that are friendlier hide what must be seen here: whether the answer is
a range at all, which one, of which version, and where it leads.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from msgspec import Struct

from wio import __version__
from wio.errors import UsageError, printable
from wio.places import without_secrets
from wio.remote.limits import LEAST_SPEED, timeout
from wio.remote.source import AgainError, Entry, RemoteError

_MOST_REDIRECTS = 5
_PIECE = 1 << 20
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_MISSING = {404, 410}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_EMPTY_RANGE = re.compile(r"bytes \*/0")
Origin = tuple[str, str, int]


class _Answer(Struct):
    """An answer whose body was not read yet. ``used`` is its connection, free again once all of it was read."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    origin: Origin

    def header(self, name: str) -> str:
        return self.response.getheader(name, "") or ""

    @property
    def version(self) -> tuple[str, str]:
        """The entity tag or else the time of the last change (RFC 9110, sections 8.8.2 and 8.8.3)."""
        tag = self.header("ETag")
        return ("ETag", tag) if tag else ("Last-Modified", self.header("Last-Modified"))


class HttpSource:
    """The folder of an http or https URL. A query stays with every name: shared access signatures are of a folder."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname or port == 0:
            raise UsageError(f"{without_secrets(url)} is no URL of a web server")
        login = None
        if parts.username is not None:
            name, password = unquote(parts.username), unquote(parts.password or "")
            login = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode("ascii")
        folder = quote(parts.path.rpartition("/")[0], safe="/%:@!$&'()*+,;=~") + "/"
        self._folder = urlunsplit((parts.scheme.lower(), parts.netloc.rpartition("@")[2], folder, "", ""))
        self._query = f"?{parts.query}" if parts.query else ""
        self._login = None if login is None else (_origin(self._folder), login)
        self.refused: RemoteError | None = None
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def listed(self) -> Mapping[str, Entry] | None:
        return None

    def entry(self, name: str) -> Entry | None:
        """Its first byte is asked for, not its head: signed URLs are for GET alone."""
        answer = self._asked(name, {"Range": "bytes=0-0"})
        status = answer.response.status
        if status in _MISSING:
            self._done(answer)
            return None
        if status == 403:
            # Stores that do not let everyone list say so of what is not there.
            self.refused = self._refused(answer, name)
            self._done(answer)
            return None
        if status == 416 and _EMPTY_RANGE.fullmatch(answer.header("Content-Range")):
            self._done(answer)
            return Entry(name, 0, answer.version)
        if status == 200:
            # No ranges here: the file can only be had whole.
            answer.connection.close()
            length = answer.header("Content-Length")
            if not re.fullmatch(r"[0-9]{1,19}", length):
                raise RemoteError(f"{self._shown(name)}: the server gives neither ranges nor the size of the file")
            return Entry(name, int(length), answer.version, ranges=int(length) == 0)
        size = self._range_of(answer, name, 0, 1)
        self._done(answer)
        return Entry(name, size, answer.version)

    def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        if entry.ranges:
            wanted = {"Range": f"bytes={start}-{stop - 1}"}
            if entry.version[1] and not entry.version[1].startswith("W/"):
                wanted["If-Range"] = entry.version[1]
            answer = self._asked(entry.name, wanted)
            if answer.response.status == 200:
                answer.connection.close()
                raise self._changed(entry, "the server gives another version, or no ranges any more")
            size = self._range_of(answer, entry.name, start, stop)
        else:
            answer = self._asked(entry.name, {})
            if answer.response.status != 200:
                answer.connection.close()
                raise self._refused(answer, entry.name)
            length = answer.header("Content-Length")
            size = int(length) if re.fullmatch(r"[0-9]{1,19}", length) else -1
        if size != entry.size or answer.version != entry.version:
            answer.connection.close()
            raise self._changed(entry, "size or version is another")
        yield from self._body(answer, 0 if entry.ranges else start, stop - start)

    def _body(self, answer: _Answer, skip: int, left: int) -> Iterator[bytes]:
        limit = timeout()
        began, got = time.monotonic(), 0
        try:
            while left:
                data = answer.response.read1(min(_PIECE, skip + left))
                if not data:
                    break
                now = time.monotonic()
                got += len(data)
                if now - began > limit:
                    if got < LEAST_SPEED * (now - began):
                        raise AgainError(f"{got} bytes came in {now - began:.0f} seconds")
                    began, got = now, 0
                data, skip = data[skip:], max(skip - len(data), 0)
                left -= len(data)
                if data:
                    yield data
        except (OSError, http.client.HTTPException) as error:
            raise AgainError(_reason(error)) from None
        finally:
            if left:
                answer.connection.close()
        if left:
            raise AgainError(f"the answer ends {left} bytes early")
        self._done(answer)

    def _range_of(self, answer: _Answer, name: str, start: int, stop: int) -> int:
        """The size of the file, of an answer that must be this range of it."""
        found = _CONTENT_RANGE.fullmatch(answer.header("Content-Range"))
        trouble = ""
        if answer.response.status != 206:
            error = self._refused(answer, name)
            answer.connection.close()
            raise error
        if found is None or (int(found[1]), int(found[2])) != (start, stop - 1) or int(found[3]) < stop:
            trouble = f"bytes {start} to {stop - 1} were asked for, {answer.header('Content-Range')!r} is the answer"
        elif answer.header("Content-Length") not in ("", str(stop - start)):
            trouble = f"{stop - start} bytes were asked for, {answer.header('Content-Length')} are announced"
        elif answer.header("Content-Encoding").lower() not in ("", "identity"):
            trouble = f"the answer is encoded as {answer.header('Content-Encoding')}, which was not asked for"
        if trouble or found is None:
            answer.connection.close()
            raise RemoteError(f"{self._shown(name)}: {printable(trouble)}")
        return int(found[3])

    def _refused(self, answer: _Answer, name: str) -> RemoteError:
        status = answer.response.status
        told = f"the server answers {status} {printable(answer.response.reason or '')[:100]}".rstrip()
        remedy = "a login goes into the URL, as in https://NAME:PASSWORD@HOST/..." if status in (401, 403) else None
        return RemoteError(f"{self._shown(name)}: {told}", remedy=remedy)

    def _changed(self, entry: Entry, how: str) -> RemoteError:
        return RemoteError(
            f"{self._shown(entry.name)}: changed on the server while it was read: {how}",
            remedy="try again once it stays as it is",
        )

    def _shown(self, name: str) -> str:
        return self._folder + printable(name)

    def _asked(self, name: str, headers: Mapping[str, str]) -> _Answer:
        """The answer to a GET, redirects followed. AgainError for what may pass."""
        url = self._folder + quote(name) + self._query
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._sent(url, headers)
            status = answer.response.status
            if status in _AGAIN:
                answer.connection.close()
                after = answer.header("Retry-After")
                raise AgainError(f"the server answers {status}", float(after) if re.fullmatch(r"\d{1,5}", after) else 0)
            if status not in _REDIRECTS:
                return answer
            answer.connection.close()
            url = self._redirected(url, answer.header("Location"), name)
        raise RemoteError(f"{self._shown(name)}: more than {_MOST_REDIRECTS} redirects")

    def _redirected(self, url: str, location: str, name: str) -> str:
        target = urljoin(url, location)
        try:
            scheme, _, _ = _origin(target)
        except ValueError:
            scheme = ""
        if not location or scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
            shown = printable(without_secrets(target))[:300]
            raise RemoteError(f"{self._shown(name)}: the server redirects to {shown}, which is refused")
        return urlunsplit(urlsplit(target)._replace(fragment=""))

    def _sent(self, url: str, headers: Mapping[str, str]) -> _Answer:
        origin = _origin(url)
        parts = urlsplit(url)
        sent = {"User-Agent": f"wio/{__version__}", "Accept-Encoding": "identity", **headers}
        if self._login is not None and self._login[0] == origin:
            sent["Authorization"] = self._login[1]
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        with self._lock:
            idle = self._idle.get(origin)
            kept = idle.pop() if idle else None
        for connection in (kept, None) if kept is not None else (None,):
            try:
                made, prefix, more = (connection, "", {}) if connection else _connected(origin)
                made.request("GET", prefix + target, headers={**sent, **more})
                return _Answer(made.getresponse(), made, origin)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if connection is not None:
                    # A server may end a connection that was idle; that says nothing about a new one.
                    connection.close()
                    continue
                raise AgainError(_reason(error)) from None
        raise AssertionError("unreachable")

    def _done(self, answer: _Answer) -> None:
        """The connection may be used again, if all of the answer was read."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer.response.read(_PIECE if answer.response.length is None else min(answer.response.length, 65536))
        if answer.response.isclosed() and not answer.response.will_close:
            with self._lock:
                self._idle.setdefault(answer.origin, []).append(answer.connection)
        else:
            answer.connection.close()


def _origin(url: str) -> Origin:
    """Scheme, host and port; ValueError for a URL without them."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or {"http": 80, "https": 443}.get(scheme)
    if not parts.hostname or port is None:
        raise ValueError(url)
    return scheme, parts.hostname, port


def _connected(origin: Origin) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection, by the proxy of the environment if there is one; what stands before each target; more headers."""
    scheme, host, port = origin
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    if not proxy:
        return kind(host, port, timeout=timeout()), "", {}
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    more = {}
    if parts.username is not None:
        told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        more["Proxy-Authorization"] = "Basic " + base64.b64encode(told.encode()).decode("ascii")
    made = kind(parts.hostname or "", parts.port or 80, timeout=timeout())
    if scheme == "https":
        made.set_tunnel(host, port, more)
        return made, "", {}
    bracketed = f"[{host}]" if ":" in host else host
    return made, f"http://{bracketed}:{port}", {"Host": f"{bracketed}:{port}", **more}


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte came for {timeout():g} seconds"
    return printable(without_secrets(str(getattr(error, "strerror", None) or error or type(error).__name__)))[:300]
