"""Who may call, asked of a real server: every protocol, each with its own errors."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pairwire.cli.main import main
from pairwire.client import Client, ClientOptions, NotPermitted
from pairwire.foreign import kserve_pb2, tei_pb2
from pairwire.server.compat.http.routes import Services
from pairwire.server.compat.http.service import all_routes
from pairwire.server.rpc import codec
from pairwire.server.security.roles import ANY, INFER, NOTHING, OPERATE, Role
from pairwire.v1 import model_pb2, scoring_pb2
from pairwire.v1.model_pb2_grpc import ModelServiceStub
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server import serving
from tests.server.compat.foreign import kserve, tei
from tests.server.security.conftest import Guarded

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def code(call: Any, request: Any, key: str | None, **options: Any) -> grpc.StatusCode:
    """How a call ends; its sentence never has the key."""
    try:
        answer = call(request, metadata=bearer(key) if key else None, timeout=serving.PATIENCE_S, **options)
        if not hasattr(answer, "DESCRIPTOR"):
            list(answer)
    except grpc.RpcError as error:
        failed: Any = error
        assert not key or key not in failed.details()
        found: grpc.StatusCode = failed.code()
        return found
    return grpc.StatusCode.OK


def test_grpc_asks_every_protocol_for_a_key_and_its_role(guarded: Guarded) -> None:
    keys, ok = guarded.keys, grpc.StatusCode.OK
    score = scoring_pb2.ScoreRequest(query_documents={"query": "a", "documents": ["b"]})
    embed = tei_pb2.EmbedRequest(inputs="a")
    load = kserve_pb2.RepositoryModelLoadRequest(model_name="scorer")
    with guarded.running.channel() as channel:
        infers = (
            (ScoringServiceStub(channel).Score, score),
            (tei(channel, "Embed"), embed),
            (tei(channel, "EmbedStream"), iter([embed])),
            (tei(channel, "RerankStream"), iter([])),
            (kserve(channel, "ModelInfer"), kserve_pb2.ModelInferRequest(model_name="scorer")),
            (kserve(channel, "ModelStreamInfer"), iter([])),
        )
        for call, request in infers:
            assert code(call, request, None) is UNAUTHENTICATED
            assert code(call, request, keys["unknown"]) is UNAUTHENTICATED
            assert code(call, request, keys["operate"]) is DENIED
            assert code(call, request, keys["infer"]) not in (UNAUTHENTICATED, DENIED)
        assert code(ScoringServiceStub(channel).Score, score, keys["infer"]) is ok
        for call, request in (
            (ModelServiceStub(channel).ListModels, model_pb2.ListModelsRequest()),
            (kserve(channel, "RepositoryIndex"), kserve_pb2.RepositoryIndexRequest()),
            (kserve(channel, "ServerMetadata"), kserve_pb2.ServerMetadataRequest()),
            (tei(channel, "Info"), tei_pb2.InfoRequest()),
        ):
            assert code(call, request, None) is UNAUTHENTICATED
            assert {code(call, request, keys[role]) for role in Role} == {ok}
        assert code(kserve(channel, "RepositoryModelLoad"), load, keys["infer"]) is DENIED
        assert code(kserve(channel, "RepositoryModelLoad"), load, keys["operate"]) is grpc.StatusCode.UNIMPLEMENTED
        assert code(kserve(channel, "ServerReady"), kserve_pb2.ServerReadyRequest(), None) is ok
        assert code(health_pb2_grpc.HealthStub(channel).Check, health_pb2.HealthCheckRequest(), None) is ok
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        listing = [reflection_pb2.ServerReflectionRequest(list_services="")]
        assert code(reflect, iter(listing), None) is UNAUTHENTICATED
        assert code(reflect, iter(listing), keys["infer"]) is DENIED
        assert code(reflect, iter(listing), keys["observe"]) is ok


@pytest.mark.parametrize(
    ("path", "request_body", "of_401"),
    [
        (
            "/v1/embeddings",
            {"input": "a"},
            lambda body: (body["error"]["type"], body["error"]["code"]) == ("authentication_error", "invalid_api_key"),
        ),
        ("/v2/rerank", {"query": "q", "documents": ["a"]}, lambda body: body["message"] and body["error"]["code"]),
        ("/embed", {"inputs": "a"}, lambda body: set(body) == {"error", "error_type"}),
        ("/v2/models/scorer/infer", {"inputs": []}, lambda body: set(body) == {"error"}),
    ],
)
def test_http_asks_every_protocol_in_its_own_words(
    path: str, request_body: dict[str, object], of_401: Any, guarded: Guarded
) -> None:
    with guarded.running.client() as client:
        unknown = client.post(path, json=request_body)
        assert unknown.status_code == 401
        assert unknown.headers["www-authenticate"] == "Bearer"
        assert of_401(unknown.json())
        for headers in ({"x-api-key": guarded.keys["unknown"]}, {"authorization": "Bearer"}):
            assert client.post(path, json=request_body, headers=headers).status_code == 401
        denied = client.post(path, json=request_body, headers={"x-api-key": guarded.keys["observe"]})
        assert denied.status_code == 403
        assert "team-observe" in denied.text
        assert guarded.keys["observe"] not in denied.text
        for header in (dict(bearer(guarded.keys["infer"])), {"X-Api-Key": guarded.keys["infer"]}):
            assert client.post(path, json=request_body, headers=header).status_code not in (401, 403)


def test_http_leaves_health_open_and_closes_the_rest(guarded: Guarded) -> None:
    with guarded.running.client() as client:
        for path in ("/health", "/v2/health/ready", "/v2/health/live", "/v2/models/scorer/ready"):
            assert client.get(path).status_code == 200
        for path in ("/info", "/v1/models", "/v2", "/v2/models/scorer", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers={"x-api-key": guarded.keys["observe"]}).status_code == 200, path
        for path in ("/metrics", "/openapi.json"):
            assert client.get(path, headers={"x-api-key": guarded.keys["infer"]}).status_code == 403
        load = "/v2/repository/models/scorer/load"
        assert client.post(load, headers={"x-api-key": guarded.keys["infer"]}).status_code == 403
        assert client.post(load, headers={"x-api-key": guarded.keys["operate"]}).status_code not in (401, 403)


def test_no_route_is_open_but_those_that_are_meant_to_be(guarded: Guarded) -> None:
    app = guarded.running.application
    routes = list(
        all_routes(app_services(app), app.config, lambda name: True, app.metrics.registry, Any, Any)  # type: ignore[arg-type]
    )
    assert {route.path for route in routes if route.need == NOTHING} == {
        "/health",
        "/ping",
        "/metrics",  # by its own option
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/versions/{version}/ready",
    }
    assert {route.need for route in routes if route.method == "POST"} == {INFER, OPERATE, ANY}


def app_services(app: Any) -> Services:
    return Services(lambda: app.engine, app.roles, app.config.limits)


def test_the_metrics_port_asks_too_and_counts_what_was_refused(guarded: Guarded) -> None:
    assert httpx.get(guarded.metrics_url).status_code == 401
    assert httpx.get(guarded.metrics_url, headers={"x-api-key": guarded.keys["infer"]}).status_code == 403
    with guarded.running.channel() as channel:
        assert code(ScoringServiceStub(channel).Rerank, scoring_pb2.RerankRequest(), "wrong") is UNAUTHENTICATED
    shown = httpx.get(guarded.metrics_url, headers=dict(bearer(guarded.keys["observe"]))).text
    counted = [line for line in shown.splitlines() if line.startswith("pairwire_requests_total{")]
    assert any('code="UNAUTHENTICATED"' in line and 'rpc="Rerank"' in line for line in counted)
    assert not any(key in shown for key in guarded.keys.values())


def test_a_refusal_does_not_wait_for_the_body(guarded: Guarded) -> None:
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20000000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", guarded.running.port), timeout=serving.PATIENCE_S) as connection:
        connection.sendall(head)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")
    with guarded.running.channel() as channel:
        call: Any = channel.stream_unary("/pairwire.v1.ScoringService/Score")
        ended = threading.Event()
        nothing = (b"" for _ in range(1) if not ended.wait(serving.PATIENCE_S))  # and no end of it
        try:
            with pytest.raises(grpc.RpcError) as caught:
                call(nothing, timeout=serving.PATIENCE_S)
            assert caught.value.code() is UNAUTHENTICATED
        finally:
            ended.set()


def test_the_key_names_the_caller(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = codec.caller

    def noted() -> str:
        seen.append(original())
        return seen[-1]

    monkeypatch.setattr(codec, "caller", noted)
    with Client(f"127.0.0.1:{guarded.running.application.port}", api_key=guarded.keys["infer"]) as client:
        client.score([("a", "b")], model="scorer")
    assert seen == ["api-key:team-infer"]


def test_the_client_and_the_command_show_a_key(
    guarded: Guarded, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{guarded.running.application.port}"
    options = ClientOptions(api_key=guarded.keys["infer"])
    assert guarded.keys["infer"] not in repr(options)
    with Client(address, options=options) as client:
        assert len(client.score([("a", "b")], model="scorer").scores) == 1
    with Client(address) as client, pytest.raises(NotPermitted, match="this call needs an API key"):
        client.models()
    score = ["score", "a", "b", "--address", address, "--model", "scorer"]
    assert main(score) != 0
    assert "this call needs an API key" in capsys.readouterr().err
    file = tmp_path / "key"
    file.write_text(f"{guarded.keys['infer']}\n")
    assert main([*score, "--api-key-file", str(file)]) == 0
    monkeypatch.setenv("PAIRWIRE_API_KEY", guarded.keys["infer"])
    assert main(score) == 0
    monkeypatch.setenv("PAIRWIRE_API_KEY", "two words")
    assert main(score) != 0
    assert "two words" not in capsys.readouterr().err


def test_a_key_that_is_deleted_is_refused_within_seconds_also_on_open_streams(guarded: Guarded) -> None:
    before = guarded.file.read_text()
    embed = tei_pb2.EmbedRequest(inputs="a")
    with guarded.running.channel() as channel:
        requests: queue.Queue[Any] = queue.Queue()
        answers = tei(channel, "EmbedStream")(iter(requests.get, None), metadata=bearer(guarded.keys["infer"]))
        requests.put(embed)
        assert next(answers).embeddings
        try:
            guarded.file.write_text("")
            info = tei(channel, "Info")
            for _ in range(int(serving.PATIENCE_S / 0.02)):
                if code(info, tei_pb2.InfoRequest(), guarded.keys["infer"]) is UNAUTHENTICATED:
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("the key is good for ever")
            requests.put(embed)
            with pytest.raises(grpc.RpcError) as caught:
                next(answers)
            assert caught.value.code() is UNAUTHENTICATED
        finally:
            guarded.file.write_text(before)
            requests.put(None)
