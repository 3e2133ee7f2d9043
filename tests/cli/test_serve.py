"""The command ``serve``: its options, and what it refuses in one line."""

import socket

import pytest
import uvicorn
from level_recogniser import LevelRecogniser

from espnet_cif_hkd.cli import serve
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.server.state import state_of


def test_models_are_named_by_their_folders(tmp_path):
    folder, packed = tmp_path / "asr_x", tmp_path / "packed.v1.zip"
    folder.mkdir()
    packed.touch()
    given = [f"{folder}/", str(packed), "someone/a_model", f"mine={folder}"]

    assert list(serve.names_of(given).items()) == [
        ("asr_x", f"{folder}/"),
        ("packed.v1", str(packed)),
        ("a_model", "someone/a_model"),
        ("mine", str(folder)),
    ]


@pytest.mark.parametrize("given", [["a/x", "b/x"], ["m=a", "m=b"], ["/"], ["x", "x"]])
def test_names_must_differ(given):
    with pytest.raises(UserError, match="--model NAME="):
        serve.names_of(given)


def test_a_folder_may_have_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()

    assert serve.names_of(["lr=0.1"]) == {"lr=0.1": "lr=0.1"}


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """What is refused here is refused before a model is loaded."""

    def load(place, args):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(serve, "recogniser", load)


def refused(capsys, *arguments):
    assert serve.main(["--model", "asr_x", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(capsys, "--port", port)

    assert f"cannot listen on 127.0.0.1 port {port} (Address" in line
    assert "--port 0" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [("--host", "no.such.host.invalid"), ("--host", "192.0.2.1"), ("--host", "")],
)
def test_an_address_that_cannot_be_used(capsys, option, value):
    assert "cannot listen on" in refused(capsys, option, value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("max_mb", "-1"), ("max_mb", "nan"), ("max_seconds", "0")),
        *(("max_seconds", "inf"), ("queue", "0"), ("streams", "-1")),
        *(("port", "-1"), ("port", "99999")),
    ],
)
def test_limits(capsys, option, value):
    line = refused(capsys, f"--{option}={value}")

    assert line.startswith(f"error: --{option} ") and "give a number from" in line


def test_missing_packages(capsys, monkeypatch):
    monkeypatch.setattr(serve, "_NEEDED", {"no_such_module": "some-package"})
    line = refused(capsys)

    assert "needs some-package" in line and "pip install" in line


def test_a_model_that_cannot_be_loaded(tmp_path):
    def fail(place):
        raise UserError(f"{place}: no model")

    with pytest.raises(UserError, match="no model"):
        serve.load({"x": str(tmp_path)}, fail)


def test_messages_have_no_paths_of_models(tmp_path):
    models = serve.load({"x": str(tmp_path)}, lambda place: None)

    message = f"{tmp_path}/1epoch.pth: damaged; see /etc/x.conf\nand ~/y, 'C/D'"
    assert models.public(message) == (
        "x/1epoch.pth: damaged; see (a path) and (a path), 'C/D'"
    )


@pytest.mark.parametrize(
    ("host", "address", "warns"),
    [
        ("127.0.0.1", "http://127.0.0.1:", False),
        ("localhost", "http://localhost:", False),
        ("0.0.0.0", "http://0.0.0.0:", True),
    ],
)
def test_a_server_for_others_is_warned_about(
    host, address, warns, capfd, caplog, monkeypatch
):
    served = []
    monkeypatch.setattr(serve, "recogniser", lambda place, args: LevelRecogniser())
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda server, sockets: served.append(server.config)
    )

    given = ["--model", "a=x", "--model", "b=y", "--host", host, "--port", "0"]
    assert serve.main([*given, "--max_seconds", "30"]) == 0
    (config,) = served
    assert state_of(config.app).limits.seconds == 30
    assert list(state_of(config.app).models) == ["a", "b"]
    assert f"{address}" in capfd.readouterr().err
    assert ("neither passwords nor encryption" in caplog.text) is warns
