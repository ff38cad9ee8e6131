"""One repository of a registry, spoken to through the package ``oras`` (extra ``oci``), which knows logins and tokens.

What oras leaves open is settled here: no request goes unencrypted to another machine, wherever a registry sends it,
none waits for ever on a silent server or takes in an answer without end, and whatever goes wrong is a WioError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from wio.errors import FormatError, WioError, printable
from wio.oci.reference import Reference, is_loopback
from wio.safetensors_header import parse_object

# A registry may hash a blob of many GB again before it says that it has it.
_CONNECT_SECONDS, _SILENT_SECONDS = 10, 300
_MOST_BYTES = 4_000_000
_MOST_REDIRECTS = 5
_LOGIN = "docker login HOST, or oras login HOST, leaves the login where it is looked for (~/.docker/config.json)"


class BrokenError(WioError):
    """The connection failed or broke off: the same request may succeed later."""


class Connection:
    """Requests to the repository of ``reference``; ``requests`` counts them, those for tokens among them.

    Loopback is spoken to by plain HTTP, other hosts by HTTPS unless ``plain_http``.
    """

    def __init__(self, reference: Reference, plain_http: bool = False) -> None:
        self.reference = reference
        self.requests = 0
        insecure = plain_http or is_loopback(reference.host)
        self._library = _library()
        provider = self._library.provider
        self._registry = provider.Registry(hostname=reference.host, insecure=insecure)
        self._container = self._registry.get_container(f"{reference.host}/{reference.name}")
        self._root = f"{'http' if insecure else 'https'}://{reference.host}/v2/"
        self._guard(plain_http)
        self._choose_login(insecure)
        # oras tries five times, with waits of two minutes in all; here what is worth trying again is known better.
        self._ask = provider.Registry.do_request.__wrapped__

    def url(self, path: str) -> str:
        """The address of something in the repository: ``blobs/sha256:...``, ``manifests/v1``."""
        return f"{self._root}{self.reference.name}/{path}"

    @contextlib.contextmanager
    def asked(self, method: str, url: str, expect: tuple[int, ...], **request: Any) -> Iterator[Any]:
        """The answer to a request. WioError if its status is not one of ``expect``; BrokenError if it breaks off."""
        errors = self._library.requests.exceptions
        breaking = (errors.ConnectionError, errors.Timeout, errors.ChunkedEncodingError)
        try:
            with self._answer(method, url, request, errors) as answer:
                if answer.status_code not in expect:
                    raise self._refusal(method, answer)
                yield answer
        except breaking as error:
            raise BrokenError(f"the connection to {self.reference.host} broke: {printable(str(error))[:300]}") from None
        except errors.RequestException as error:
            raise WioError(f"{self.reference.host}: {printable(str(error))[:300]}") from None

    def location(self, answer: Any, asked: str) -> str:
        """Where an upload goes on. WioError if that is another place than this registry."""
        told = answer.headers.get("Location", "")
        try:
            joined = str(urljoin(asked, told)) if told else ""
        except ValueError:
            joined = str(told)
        self.check_location(joined)
        return joined

    def check_location(self, url: str) -> None:
        if not url.startswith(self._root):
            raise FormatError(
                f"{self.reference.host} sends the upload elsewhere, which is refused: {printable(url)[:200]}"
            )

    def _answer(self, method: str, url: str, request: dict[str, Any], errors: Any) -> Any:
        # As sent, so that a second attempt is the same request.
        headers = request.pop("headers", {})
        try:
            answer = self._ask(self._registry, url, method, headers=dict(headers), **request)
            if answer.status_code == 401 and getattr(self._registry.auth, "token", None):
                # Its token was given for another purpose, such as reading.
                self._registry.auth.token = None
                answer = self._ask(self._registry, url, method, headers=dict(headers), **request)
        except (errors.RequestException, WioError):
            raise
        except Exception as error:  # of oras, on an answer that it can make no sense of
            told = printable(str(error) or type(error).__name__)[:300]
            raise WioError(f"{self.reference.host}: {told}", remedy=_LOGIN) from None
        return answer

    def _refusal(self, method: str, answer: Any) -> WioError:
        """What the registry says of its refusal (Distribution Specification 1.1, "Error Codes")."""
        said = f"{answer.status_code} {answer.reason or ''}".strip()
        with contextlib.suppress(Exception):  # the body is only there to be read by people
            first = parse_object(next(answer.iter_content(10_000)), "an answer")["errors"][0]
            said += f", {first['code']}: {first['message']}"
        what = urlsplit(answer.url).path.removeprefix("/v2/")
        remedy = _LOGIN if answer.status_code in (401, 403) else None
        return WioError(f"{self.reference.host} refuses {method} {printable(what)}: {printable(said)}", remedy=remedy)

    def _guard(self, plain_http: bool) -> None:
        """Every request of the session, those to which a registry redirects and those for tokens included."""
        session = self._registry.session
        guarded = _guarded_adapter(self._library.requests, plain_http, self._count)
        for scheme in ("https://", "http://"):
            session.mount(scheme, guarded)
        session.max_redirects = _MOST_REDIRECTS
        # No proxy stands between a machine and itself.
        session.trust_env = not is_loopback(self.reference.host)

    def _count(self) -> None:
        self.requests += 1

    def _choose_login(self, insecure: bool) -> None:
        """Tokens, or name and password as such: the registry says which (Distribution Specification 1.1, "/v2/")."""
        errors = self._library.requests.exceptions
        try:
            answer = self._registry.session.get(self._root, allow_redirects=False)
        except errors.RequestException as error:
            told = printable(str(error))[:300]
            raise BrokenError(f"no registry answers at {self.reference.host}: {told}") from None
        if answer.status_code not in (200, 401):
            raise WioError(f"{self.reference.host} is no OCI registry: it answers {answer.status_code} to {self._root}")
        if answer.headers.get("WWW-Authenticate", "").lower().startswith("basic"):
            session = self._registry.session
            self._registry.auth = self._library.auth.get_auth_backend("basic", session, insecure)
        try:
            self._registry.auth.load_configs(self._container)
        except Exception as error:  # of a file that whatever program wrote, and of the programs that it names
            raise WioError(f"the logins of ~/.docker/config.json cannot be read: {error}", remedy=_LOGIN) from None
        basic = isinstance(self._registry.auth, self._library.auth.BasicAuth)
        if basic and not hasattr(self._registry.auth, "_basic_auth"):
            raise WioError(f"{self.reference.host} wants a login, and none is known", remedy=_LOGIN)


class _Library:
    """The modules that are spoken through, imported when a registry is."""

    def __init__(self) -> None:
        import oras.auth
        import oras.logger
        import oras.provider
        import requests

        # What goes wrong is said once, by wio.
        oras.logger.setup_logger(quiet=True)
        self.provider, self.auth, self.requests = oras.provider, oras.auth, requests


def _library() -> Any:
    try:
        return _Library()
    except ImportError as error:
        raise WioError(
            f"oras, which speaks to registries, cannot be used: {error}", remedy="pip install 'wio[oci]'"
        ) from None


def _bounded(pieces: Iterator[bytes], host: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _MOST_BYTES:
            raise WioError(f"{printable(host)} answers with more than {_MOST_BYTES} bytes where a few are expected")
        yield piece


def _guarded_adapter(requests: Any, plain_http: bool, count: Callable[[], None]) -> Any:
    class Guarded(requests.adapters.HTTPAdapter):  # type: ignore[misc]
        def send(self, request: Any, **more: Any) -> Any:
            parts = urlsplit(request.url)
            if parts.scheme != "https" and not plain_http and not is_loopback(parts.netloc):
                raise WioError(
                    f"{printable(parts.netloc)} is to be spoken to unencrypted, which is refused",
                    remedy="--plain-http allows it",
                )
            count()
            streamed = more.get("stream", False)
            more |= {"stream": True, "timeout": (_CONNECT_SECONDS, _SILENT_SECONDS)}
            answer = super().send(request, **more)
            if not streamed or answer.is_redirect:
                # requests would take in all of it. This is where it looks whether that was done.
                answer._content = b"".join(_bounded(answer.iter_content(65536), parts.netloc))
            return answer

    return Guarded()
