"""The REST API, version 1: reads under GET, commands under POST, errors as problem documents."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rebalancerd import __version__
from rebalancerd.record import snapshotfile
from rebalancerd.record.planfile import document
from rebalancerd.serve import night_ahead, night_rows, power
from rebalancerd.serve.commands import Commands
from rebalancerd.serve.control import Control
from rebalancerd.serve.peer import Peer
from rebalancerd.serve.problem import CONTENT_TYPE, ProblemError, encoded, problem
from rebalancerd.serve.schemas import (
    Answer,
    ApplyRequest,
    ApprovalRequest,
    CommandAnswer,
    Explanation,
    History,
    HostRequest,
    NightAheadAnswer,
    NightsAnswer,
    PauseRequest,
    Ping,
    PlanAnswer,
    PowerAnswer,
    PowerVerdict,
    ReasonRequest,
    SnapshotAnswer,
    Status,
    VmRequest,
    Watch,
)
from rebalancerd.serve.why import explain

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 8 * 1024 * 1024


class AsciiJson(Response):
    """JSON in ASCII: text that is no valid UTF-8 (a hostile name) is escaped, never an error of its own."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode; NaN and infinity are refused, as JSON has no word for them."""
        tree = content.model_dump(mode="json") if isinstance(content, Answer) else content
        return json.dumps(tree, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def create_app(control: Control) -> FastAPI:
    """The application. It must be served where ``scope["peer"]`` names the checked peer (socket_server)."""
    app = FastAPI(
        title="rebalancerd",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        default_response_class=AsciiJson,
    )
    _problems(app)
    _reads(app, control)
    commands = Commands(control)
    _commands(app, commands)
    _power(app, control, commands)
    return app


def who(request: Request) -> str:
    """Name of the peer that asks. Refuses where the server did not name one."""
    peer = request.scope.get("peer")
    if not isinstance(peer, Peer):
        raise ProblemError("FORBIDDEN", "the server does not know who asks", status=403)
    return peer.name


By = Annotated[str, Depends(who)]


def _reads(app: FastAPI, control: Control) -> None:
    peer = [Depends(who)]

    @app.get("/v1/ping", response_model=Ping, dependencies=peer)
    def ping() -> AsciiJson:
        return AsciiJson(control.ping())

    @app.get("/v1/status", response_model=Status, dependencies=peer)
    def status() -> AsciiJson:
        return AsciiJson(control.status())

    @app.get("/v1/watch", response_model=Watch, dependencies=peer)
    def watch() -> AsciiJson:
        return AsciiJson(control.watch())

    @app.get("/v1/history", response_model=History, dependencies=peer)
    def history(
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        since: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
        vm: Annotated[str | None, Query(max_length=255)] = None,
    ) -> AsciiJson:
        return AsciiJson(control.history(limit=limit, since=since, vm=vm))

    @app.get("/v1/plan", response_model=PlanAnswer, dependencies=peer)
    def plan(current: bool = False) -> AsciiJson:
        made = control.plan(current=current)
        return AsciiJson(
            PlanAnswer(document=document(made), digest=made.digest, empty=made.is_empty, mode=control.mode.value)
        )

    @app.get("/v1/snapshot", response_model=SnapshotAnswer, dependencies=peer)
    def snapshot() -> AsciiJson:
        return AsciiJson(SnapshotAnswer(document=snapshotfile.document(control.inputs())))

    @app.get("/v1/explain/{kind}", response_model=Explanation, dependencies=peer)
    def why(kind: str, subject: Annotated[str, Query(max_length=255)] = "last") -> AsciiJson:
        return AsciiJson(explain(control, kind, subject))


def _commands(app: FastAPI, commands: Commands) -> None:
    def post(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return app.post(f"/v1/{path}", response_model=CommandAnswer)

    @post("pause")
    def pause(body: PauseRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.pause(by, seconds=body.seconds, reason=body.reason))

    @post("resume")
    def resume(body: ReasonRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.resume(by, reason=body.reason))

    @post("drain")
    def drain(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.drain(by, body.host, reason=body.reason))

    @post("undrain")
    def undrain(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.undrain(by, body.host, reason=body.reason))

    @post("approve")
    def approve(body: ApprovalRequest, by: By) -> AsciiJson:
        answer = commands.approve(by, body.plan, step=body.step, digest=body.digest, reason=body.reason)
        return AsciiJson(answer)

    @post("reject")
    def reject(body: ApprovalRequest, by: By) -> AsciiJson:
        answer = commands.reject(by, body.plan, step=body.step, digest=body.digest, reason=body.reason)
        return AsciiJson(answer)

    @post("apply")
    def apply(body: ApplyRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.apply(by, body.document, reason=body.reason))

    @post("close-breaker")
    def close_breaker(body: ReasonRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.close_breaker(by, reason=body.reason))

    @post("clear-quarantine")
    def clear_quarantine(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.clear_quarantine(by, body.host, reason=body.reason))

    @post("abort")
    def abort(body: VmRequest, by: By) -> AsciiJson:
        return AsciiJson(commands.abort(by, body.vm, reason=body.reason))


def _power(app: FastAPI, control: Control, commands: Commands) -> None:
    peer = [Depends(who)]
    name = Query(min_length=1, max_length=255)

    @app.get("/v1/power", response_model=PowerAnswer, dependencies=peer)
    def seen() -> AsciiJson:
        return AsciiJson(power.power_answer(control))

    @app.get("/v1/power/nights", response_model=NightsAnswer, dependencies=peer)
    def nights(limit: Annotated[int, Query(ge=1, le=1000)] = 7) -> AsciiJson:
        return AsciiJson(night_rows.nights(control, limit))

    @app.get("/v1/power/night-ahead", response_model=NightAheadAnswer, dependencies=peer)
    def ahead(window: Annotated[float | None, Query(gt=0, le=7 * 86400, allow_inf_nan=False)] = None) -> AsciiJson:
        return AsciiJson(night_ahead.night_ahead(control, window))

    @app.get("/v1/power/sleep", response_model=PowerVerdict, dependencies=peer)
    def would_sleep(host: Annotated[str, name], test: bool = False) -> AsciiJson:
        return AsciiJson(power.sleep_verdict(control, commands, host, test=test))

    @app.post("/v1/power-sleep", response_model=CommandAnswer)
    def sleep(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(power.sleep(control, commands, by, body.host, reason=body.reason, test=False))

    @app.post("/v1/power-test", response_model=CommandAnswer)
    def test_wake(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(power.sleep(control, commands, by, body.host, reason=body.reason, test=True))

    @app.post("/v1/power-wake", response_model=CommandAnswer)
    def wake(body: HostRequest, by: By) -> AsciiJson:
        return AsciiJson(power.wake(control, commands, by, body.host, reason=body.reason))


def _problems(app: FastAPI) -> None:
    """Every error, foreseen or not, as a problem document."""

    def answer(status: int, body: dict[str, object]) -> Response:
        return Response(encoded(body), status_code=status, media_type=CONTENT_TYPE)

    @app.middleware("http")
    async def size_limit(request: Request, call_next: Callable[[Request], Any]) -> Any:
        length = request.headers.get("content-length", "0")
        chunked = "transfer-encoding" in request.headers
        if chunked or not length.isdigit() or int(length[:12]) > MAX_BODY_BYTES:
            message = f"a request body has a stated length of at most {MAX_BODY_BYTES} bytes"
            return answer(413, problem("TOO_LARGE", message))
        return await call_next(request)

    @app.exception_handler(ProblemError)
    async def refused(_: Request, error: ProblemError) -> Response:
        return answer(error.status, error.document())

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        parts = [f"{'.'.join(str(p) for p in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors()]
        return answer(422, problem("BAD_REQUEST", "; ".join(parts), "see /v1/openapi.json"))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        hint = "see /v1/openapi.json for what there is" if error.status_code in (404, 405) else ""
        return answer(error.status_code, problem(f"HTTP_{error.status_code}", str(error.detail), hint))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        log.error("api_bug", path=request.url.path, error=type(error).__name__, bug=True, exc_info=error)
        message = f"unexpected {type(error).__name__}; the daemon's log has the details"
        return answer(500, problem("BUG", message, "please report it, with the log"))
