"""The server gives what the command gives, refuses what it can't take in one JSON object, and keeps nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'x2ct[serve]'")
pytest.importorskip("httpx", reason="starlette's test client needs httpx: pip install 'x2ct[dev]'")

import httpx
import pydicom
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Server, files_in, serving, until
from tests.tiny_bundle import DETECTOR_MM
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError, X2CTError
from x2ct.geometry import Geometry, View
from x2ct.io.xray.readoptions import ReadOptions
from x2ct.jobs.options import Limits
from x2ct.jobs.sample import SampleJob, open_sampler, sample_files
from x2ct.serve.app import create_app
from x2ct.serve.jobs import PREFIX
from x2ct.serve.server import Service, read_token

TOKEN = "a token of 24 characters"
LONG = {"steps": "400", "samples": "8", "preview_every": "1"}  # many seconds: each evaluation is drawn
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def template(tiny_path: Path) -> SampleJob:
    return SampleJob(output=Path("volume.nii.gz"), model=str(tiny_path), threads=1)


@pytest.fixture(scope="module")
def sampler(template: SampleJob) -> Sampler:
    return open_sampler(template)


@pytest.fixture(scope="module")
def xrays() -> dict[str, bytes]:
    """Line integrals on the tiny bundle's detector, as .npy files."""
    rng = np.random.default_rng(0)
    files = {}
    for view in ("ap", "lateral"):
        stream = io.BytesIO()
        np.save(stream, rng.uniform(0, 7, (64, 64)).astype(np.float32))
        files[view] = stream.getvalue()
    return files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server of a test has its files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def client(sampler: Sampler, template: SampleJob, folder: Path) -> Iterator[Callable[..., TestClient]]:
    """A server in this process with limits and settings of a test's own."""
    with contextlib.ExitStack() as stack:

        def start(limits: Limits | None = None, **settings: Any) -> TestClient:
            app = create_app(sampler, template, limits, **settings)
            made = stack.enter_context(TestClient(app, "http://localhost", raise_server_exceptions=False))
            until(lambda: made.get("/readyz").status_code == 200)
            return made

        yield start
    assert list(folder.iterdir()) == [], "nothing is left behind"


def finished(client: TestClient | httpx.Client, name: str) -> dict[str, Any]:
    states: list[dict[str, Any]] = []

    def over() -> bool:
        states.append(client.get(f"/v1/ct/{name}").json())
        return states[-1]["state"] not in ("queued", "running")

    until(over)
    return states[-1]


# ------------------------------------------------------------------------------------------------ what it gives


def test_the_answer_is_what_the_command_writes(
    client: Callable[..., TestClient], xrays: dict[str, bytes], template: SampleJob, tmp_path_factory: Any
) -> None:
    """From a geometry of its own, and with an X-ray that is turned."""
    own = tmp_path_factory.mktemp("command")
    for view, data in xrays.items():
        (own / f"{view}.npy").write_bytes(data)
    detector: Any = {"shape": (64, 64), "spacing_mm": DETECTOR_MM}
    geometry = Geometry(tuple(View.parallel(view, angle, **detector) for view, angle in (("ap", 8), ("lateral", 95))))
    geometry.save(own / "geometry.json")
    job = replace(template, output=own / "ct.nii.gz", geometry=own / "geometry.json", seed=3, steps=4)
    job = replace(job, ap=own / "ap.npy", lateral=own / "lateral.npy", reading={"ap": ReadOptions(flip="horizontal")})
    sample_files(job)
    files = xrays | {"geometry": (own / "geometry.json").read_bytes()}
    data = {"seed": 3, "steps": 4, "reading": json.dumps({"ap": {"flip": "horizontal"}})}
    answer = client().post("/v1/ct?wait=true", files=files, data=data)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.content == (own / "ct.nii.gz").read_bytes()


def test_a_job_is_watched_and_its_files_go_as_they_are_fetched(
    client: Callable[..., TestClient], xrays: dict[str, bytes], folder: Path
) -> None:
    server = client()
    options = {"samples": 2, "steps": 3, "surface": "true", "preview_every": 1}
    answer = server.post("/v1/ct", files=xrays, data=options)
    assert answer.status_code == 202
    name = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/ct/{name}"
    state = finished(server, name)
    assert (state["state"], state["error"]) == ("done", None)
    assert state["evaluations"]["done"] == state["evaluations"]["total"] > 0
    expected = {
        "volume.nii.gz",
        "volume_000.nii.gz",
        "volume_001.nii.gz",
        "volume_std.nii.gz",
        "report.json",
        "preview.png",
        "unexplained.png",
    }
    assert set(state["files"]) - {"bone.stl"} == expected
    assert set(files_in(folder)) == set(state["files"]), "the X-rays are gone with the run"
    report = server.get(f"/v1/ct/{name}/report.json").json()
    assert [entry["file"] for entry in report["inputs"]] == ["ap", "lateral"]
    assert str(folder) not in json.dumps(report)
    assert server.get(f"/v1/ct/{name}/preview.png").content.startswith(b"\x89PNG")
    again = server.get(f"/v1/ct/{name}/preview.png")
    assert (again.status_code, again.json()["source"]) == (410, "preview.png")
    for file in set(state["files"]) - {"report.json", "preview.png"}:
        assert server.get(f"/v1/ct/{name}/{file}").status_code == 200
    assert server.get(f"/v1/ct/{name}").status_code == 404
    assert files_in(folder) == []


def test_all_files_come_in_one_answer_with_a_dicom_series(client: Callable[..., TestClient]) -> None:
    xray = (ROOT / "tests/data/chest_pa_cr.dcm").read_bytes()
    answer = client().post(
        "/v1/ct?wait=true", files={"pa": xray}, data={"format": "dicom"}, headers={"Accept": "application/zip"}
    )
    assert answer.status_code == 200, answer.text
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert set(archive.namelist()) == {"volume.nii.gz", "volume.zip", "report.json", "preview.png", "unexplained.png"}
    series = zipfile.ZipFile(io.BytesIO(archive.read("volume.zip")))
    first = pydicom.dcmread(io.BytesIO(series.read(series.namelist()[0])))
    assert (first.Modality, len(series.namelist())) == ("CT", 32)


def test_an_xray_is_read_as_it_would_be_and_turned_on_request(
    client: Callable[..., TestClient], xrays: dict[str, bytes], folder: Path
) -> None:
    server = client()
    plain = server.post("/v1/xray", files={"xray": xrays["ap"]}).json()
    assert (plain["input"]["view"], plain["input"]["calibrated"], plain["input"]["file"]) == ("ap", True, "xray")
    assert plain["picture"].startswith("data:image/png;base64,")
    said = {"view": "lateral", "reading": json.dumps({"lateral": {"rotate": 90}})}
    turned = server.post("/v1/xray", files={"xray": xrays["ap"]}, data=said).json()
    assert turned["input"]["view"] == "lateral"
    assert any("turned by 90 degrees" in note for note in turned["assumptions"])
    assert turned["picture"] != plain["picture"]
    assert files_in(folder) == []


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("files", "data", "source", "found"),
    [
        ((), {}, "X-rays", "none"),
        (("ap", "pa"), {}, "X-rays", "both --ap and --pa"),
        ((), {"ap": "hello"}, "ap", "text"),
        (("ap",), {"seed": "x"}, "seed", "'x'"),
        (("ap",), {"sede": "1"}, "sede", "'sede'"),
        (("ap",), {"samples": "17"}, "samples", "17"),
        (("ap",), {"format": "mha"}, "format", "'mha'"),
        (("ap",), {"reading": '{"ap": {"rotate": 45}}'}, "--rotate", "45"),
        (("ap",), {"reading": '{"ap": {"rotation": 90}}'}, "reading ap rotation", "'rotation'"),
        (("ap",), {"reading": "[1]"}, "reading", "[1]"),
        (("front",), {}, "front", "'front'"),
    ],
)
def test_a_wrong_request_is_refused_at_once_in_parts(
    client: Callable[..., TestClient],
    xrays: dict[str, bytes],
    folder: Path,
    files: Any,
    data: dict[str, str],
    source: str,
    found: str,
) -> None:
    texts = {name: (None, text) for name, text in (data or {"seed": "0"}).items()}
    answer = client().post("/v1/ct", files=dict.fromkeys(files, xrays["ap"]) | texts)
    problem = answer.json()
    assert (answer.status_code, problem["source"], problem["found"]) == (422, source, found)
    assert problem["expected"]
    assert files_in(folder) == []


@pytest.mark.parametrize("path", ["ct", "xray"])
def test_an_option_in_the_address_is_refused_and_not_passed_over(
    client: Callable[..., TestClient], xrays: dict[str, bytes], path: str
) -> None:
    answer = client().post(f"/v1/{path}?steps=1", files={"xray" if path == "xray" else "ap": xrays["ap"]})
    assert (answer.status_code, answer.json()["source"]) == (422, "steps")
    assert "-F steps=" in answer.json()["expected"]


def test_what_only_the_run_finds_out_is_the_jobs_error_and_names_no_path(
    client: Callable[..., TestClient], folder: Path
) -> None:
    server = client()
    secret = {"ap": ("Doe^Jane 1970.dcm", b"no picture at all" * 20)}
    waited = server.post("/v1/ct?wait=true", files=secret)
    assert waited.status_code == 422
    state = finished(server, server.post("/v1/ct", files=secret).json()["id"])
    assert (state["state"], state["files"]) == ("failed", [])
    assert state["error"] == waited.json()
    assert state["error"]["source"] == "ap"
    assert "Doe" not in waited.text and str(folder) not in waited.text
    fetched = server.get(f"/v1/ct/{state['id']}/volume.nii.gz")
    assert (fetched.status_code, fetched.json()) == (422, state["error"])
    xray = server.post("/v1/xray", files={"xray": secret["ap"]})
    assert (xray.status_code, xray.json()["source"]) == (422, "xray")
    assert files_in(folder) == []


def test_a_body_that_is_no_form_is_refused(client: Callable[..., TestClient]) -> None:
    server = client()
    assert server.post("/v1/ct", json={"ap": "x"}).status_code == 415
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"\0" * 5000):
        answer = server.post("/v1/ct", content=body, headers=headers)
        assert (answer.status_code, answer.json()["source"]) == (400, "body")
    many = {f"f{k}": (None, "x") for k in range(40)}
    assert server.post("/v1/ct", files=many).status_code == 400


def test_a_large_body_is_refused_while_it_comes(client: Callable[..., TestClient], folder: Path) -> None:
    server = client(Limits(body_bytes=200_000))
    answer = server.post("/v1/ct", files={"ap": bytes(300_000)})
    assert (answer.status_code, answer.json()["expected"]) == (413, "at most 200000 bytes")
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="ap"; filename="a"\r\n\r\n'
        while sent < 50_000_000:
            sent += 50_000
            yield bytes(50_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert server.post("/v1/ct", content=endless(), headers=headers).status_code == 413
    assert files_in(folder) == []


def test_a_token_is_asked_for_where_there_is_one(client: Callable[..., TestClient], xrays: dict[str, bytes]) -> None:
    server = client(token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": f"Basic {TOKEN}"}):
        for path in ("/v1/info", "/metrics"):
            answer = server.get(path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert server.post("/v1/ct", files=xrays, headers=headers).status_code == 401
    for path in ("/healthz", "/", "/page/app.js", "/openapi.json"):
        assert server.get(path).status_code == 200
    assert server.get("/v1/info", headers={"Authorization": f"Bearer {TOKEN}"}).json()["model"]["name"] == "tiny"


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X2CT_TOKEN", TOKEN)
    (tmp_path / "token").write_text("the one in this file\n")
    assert (read_token(None), read_token(tmp_path / "token")) == (TOKEN, "the one in this file")
    (tmp_path / "short").write_text("12345\n")
    with pytest.raises(InputError, match="at least 16"):
        read_token(tmp_path / "short")
    with pytest.raises(InputError, match="token"):
        read_token(tmp_path / "missing")


def test_pages_of_other_sites_get_nothing(client: Callable[..., TestClient], xrays: dict[str, bytes]) -> None:
    server = client(hosts=Service(SampleJob(Path("x")), host="127.0.0.1").hosts)
    assert server.get("/v1/info", headers={"Host": "localhost:8000"}).status_code == 200
    assert server.get("/v1/info", headers={"Host": "evil.example"}).status_code == 400
    headers = {"Host": "localhost:8000", "Sec-Fetch-Site": "cross-site"}
    assert server.post("/v1/ct", files=xrays, headers=headers).status_code == 403
    assert Service(SampleJob(Path("x")), host="0.0.0.0").hosts == ("*",)
    assert "ct.example" in Service(SampleJob(Path("x")), host="0.0.0.0", allowed=("ct.example",)).hosts


@pytest.mark.parametrize("hint", ["", "say --values display; or integrals"])
def test_the_parts_of_an_error_are_those_that_made_it(hint: str) -> None:
    parts = {"source": "C: ap.npy", "field": "values in mm", "found": "1, 2", "expected": "3, 4"}
    error = InputError.of(parts["source"], parts["field"], found="1, 2", expected="3, 4", hint=hint)
    assert error.parts == {"message": str(error), **parts, "hint": hint}
    short = InputError("X-rays: found none, expected --ap").parts
    assert (short["source"], short["field"], short["found"]) == ("X-rays", "", "none")
    other = X2CTError("the disk is full").parts
    assert (other["message"], other["found"]) == ("the disk is full", "")


# ------------------------------------------------------------------------------------------------ queue and time


def test_a_full_queue_says_when_to_come_again(
    client: Callable[..., TestClient], xrays: dict[str, bytes], folder: Path
) -> None:
    server = client(Limits(queue=1))
    running = server.post("/v1/ct", files=xrays, data=LONG).json()["id"]
    until(lambda: server.get(f"/v1/ct/{running}").json()["state"] == "running")
    queue = server.app.state.jobs  # type: ignore[attr-defined]
    coming = queue.reserve()  # one whose files are not there yet has its place already
    assert server.post("/v1/ct", files=xrays).status_code == 429
    queue.remove(coming)
    waiting = server.post("/v1/ct", files=xrays).json()
    assert (waiting["state"], waiting["ahead"]) == ("queued", 1)
    refused = server.post("/v1/ct", files=xrays)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    early = server.get(f"/v1/ct/{waiting['id']}/volume.nii.gz")
    assert (early.status_code, early.json()["found"]) == (409, "queued")
    until(lambda: server.get(f"/v1/ct/{running}/preview.png").status_code == 200)
    assert server.delete(f"/v1/ct/{running}").status_code == 204, "which cancels it"
    assert server.get(f"/v1/ct/{running}").status_code == 404
    assert finished(server, waiting["id"])["state"] == "done"
    assert server.delete(f"/v1/ct/{waiting['id']}").status_code == 204
    assert files_in(folder) == []
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}
    ended = {s.labels["state"]: s.value for s in families["x2ct_job_seconds"].samples if s.name.endswith("_count")}
    assert ended == {"cancelled": 1, "done": 1}
    problems = {s.labels["status"]: s.value for s in families["x2ct_problems"].samples if s.name.endswith("_total")}
    assert problems["429"] == 2
    assert families["process_resident_memory_bytes"].samples[0].value > 0


def test_a_job_that_takes_too_long_is_ended(client: Callable[..., TestClient], xrays: dict[str, bytes]) -> None:
    server = client(Limits(job_s=0.5))
    answer = server.post("/v1/ct?wait=true", files=xrays, data=LONG)
    assert (answer.status_code, answer.json()["expected"]) == (504, "at most 0.5 s")
    assert server.get("/readyz").status_code == 200
    assert server.get("/metrics").text.count("x2ct_jobs_running 0.0") == 1


def test_what_nobody_fetches_goes_after_a_while(
    client: Callable[..., TestClient], xrays: dict[str, bytes], folder: Path
) -> None:
    server = client(Limits(keep_s=0.4))
    name = server.post("/v1/ct", files=xrays).json()["id"]
    until(lambda: server.get(f"/v1/ct/{name}").status_code == 404)
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("name", "option"),
    [("queue", "--queue"), ("body_bytes", "--body"), ("job_s", "--job-timeout"), ("samples", "--max-samples")],
)
def test_a_limit_is_positive_and_named_as_its_option(name: str, option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: value: found 0, expected more than 0"):
        Limits(**{name: 0})


def test_openapi_lists_the_options_of_the_command(client: Callable[..., TestClient]) -> None:
    described = client().get("/openapi.json").json()
    form = described["paths"]["/v1/ct"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"ap", "pa", "lateral", "geometry", "seed", "steps", "solver", "samples", "force"} <= set(form["properties"])
    assert {"/v1/xray", "/v1/ct/{name}", "/v1/ct/{name}/{file}", "/healthz", "/readyz", "/metrics"} <= set(
        described["paths"]
    )


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_asks_for_nothing_from_elsewhere(client: Callable[..., TestClient]) -> None:
    server = client()
    page = server.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert server.get(f"/{asset}").status_code == 200
    own = page.text + "".join(server.get(f"/{asset}").text for asset in assets if "niivue" not in asset)
    assert not re.search(r"https?://|@import|url\(|\beval\(|innerHTML", own)
    again = {"If-None-Match": server.get("/page/niivue.js").headers["etag"]}
    assert server.get("/page/niivue.js", headers=again).status_code == 304, "2 MB that did not change"
    assert server.get("/page/nothing.js").status_code == 404
    assert server.get("/page/..%2Fapp.py").status_code == 404


def test_the_bundled_viewer_is_the_one_that_the_notice_names() -> None:
    import hashlib

    digest = hashlib.sha256((ROOT / "x2ct/serve/page/niivue.js").read_bytes()).hexdigest()
    assert digest in (ROOT / "NOTICE").read_text()


# ------------------------------------------------------------------------------------------------ Ray Serve


def test_the_script_of_the_documentation_answers_on_ray_serve_and_leaves_nothing(
    tiny_path: Path, tmp_path: Path, xrays: dict[str, bytes]
) -> None:
    pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'ray[serve]'")
    [script] = [block for block in (ROOT / "docs" / "serve.md").read_text().split("```") if "serve.run(" in block]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = f"""import signal
from ray import serve
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
serve.start(http_options={{"port": {port}}})
"""
    (tmp_path / "deploy.py").write_text(before + script.replace('"chest"', f"{str(tiny_path)!r}, threads=1"))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"}  # for its sockets, whose paths must be short
    command = [sys.executable, "deploy.py"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/readyz").status_code == 200
                return False

            until(ready)
            answer = client.post("/v1/ct?wait=true", files=xrays)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
            assert client.get("/v1/info", headers={"Host": "evil.example"}).status_code == 400
        assert list(tmp_path.glob(f"{PREFIX}*"))
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


# ------------------------------------------------------------------------------------------------ a process of its own


def test_it_listens_on_loopback_and_ends_with_0_when_idle(
    tiny_path: Path, tmp_path: Path, xrays: dict[str, bytes]
) -> None:
    stale = tmp_path / f"{PREFIX}stale"
    stale.mkdir()
    (stale / "ct.nii.gz").write_text("of a server that was killed")
    with serving(tiny_path, tmp_path, "--body-timeout", "4") as server:
        assert server.client.base_url.host == "127.0.0.1"
        assert not stale.exists()
        [own] = tmp_path.iterdir()
        assert own.stat().st_mode & 0o777 == 0o700
        slow_body(server)
        client_that_leaves(server, xrays, tmp_path)
        name = {"ap": ("Doe^Jane.npy", xrays["ap"])}
        assert server.client.post("/v1/ct?wait=true", files=name).status_code == 200
        server.client.post("/v1/ct", files={"ap": ("Doe^Jane.dcm", b"Doe^Jane" * 100)})
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == []
    assert any("job" in line and "done" in line for line in server.lines)
    assert "Doe" not in "".join(server.lines), "no log names a patient"


def slow_body(server: Server) -> None:
    """One that stops in the middle gets an answer, and its connection back."""
    url = server.client.base_url
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        head = "POST /v1/ct HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"all of it within 4 s" in answer


def client_that_leaves(server: Server, xrays: dict[str, bytes], folder: Path) -> None:
    """One that waits and leaves cancels its job, whose files go."""
    request = server.client.build_request("POST", "/v1/ct?wait=true", files=xrays, data=LONG)
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items() if name != "connection")
    url = server.client.base_url
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(f"POST /v1/ct?wait=true HTTP/1.1\r\n{head}\r\n".encode() + body)
        until(lambda: "preview.png" in files_in(folder))
    until(lambda: files_in(folder) == [])


def test_a_job_that_is_waited_for_is_finished_before_the_end(
    tiny_path: Path, tmp_path: Path, xrays: dict[str, bytes]
) -> None:
    with serving(tiny_path, tmp_path, "--grace", "250") as server:
        answers: list[httpx.Response] = []
        options = {"steps": "20", "preview_every": "1"}
        client = threading.Thread(
            target=lambda: answers.append(server.client.post("/v1/ct?wait=true", files=xrays, data=options))
        )
        client.start()
        until(lambda: "preview.png" in files_in(tmp_path))
        assert server.stop() == 0
        client.join(30)
    assert [answer.status_code for answer in answers] == [200]
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_nobody_waits_for_is_cancelled_and_the_exit_code_says_so(
    tiny_path: Path, tmp_path: Path, xrays: dict[str, bytes]
) -> None:
    with serving(tiny_path, tmp_path) as server:
        assert server.client.post("/v1/ct", files=xrays, data=LONG).status_code == 202
        until(lambda: "preview.png" in files_in(tmp_path))
        assert server.stop() == 143
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_ends_it_before_it_listens(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "x2ct", "serve", "-m", str(tmp_path / "no.x2ct"), "--port", "0"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
