"""The server answers pages of its own, listens on this machine alone, and serves no file of the disk."""

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from starlette.testclient import TestClient

from statprune.errors import InputError
from statprune.explore.choices import opened
from statprune.explore.runs import Runs
from statprune.explore.server import application, bound

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(measured: Path) -> TestClient:
    return TestClient(application(opened(measured / "of-llama"), Runs()), base_url=HERE)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"origin": HERE}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "example.org"}, 400),
    ],
)
def test_only_pages_of_its_own_are_answered(client: TestClient, headers: dict[str, str], code: int) -> None:
    assert client.get("/", headers=headers).status_code == code


def test_no_file_of_the_disk_is_served(client: TestClient, measured: Path) -> None:
    for path in (measured / "of-llama" / "measurement.json", Path(__file__), Path("/etc/hostname")):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_no_call_is_listed(client: TestClient) -> None:
    found = client.get("/gradio_api/info").json()
    assert found["named_endpoints"] == {} == found["unnamed_endpoints"]


def test_it_listens_on_this_machine_and_a_taken_port_is_refused() -> None:
    with bound(0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 cannot be used"):
            bound(port)
