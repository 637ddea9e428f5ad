"""The token of a hub goes to the hub and nowhere else: no output, no log, no error, no repr, no pickle, no store."""

import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

TOKEN = "hf_secretsecretsecretsecretsecretse"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# Kind -> name of a model that the hub gives to whoever has the token.
GIVEN = {kind: f"somebody/{kind}" for kind in ("text", "clip", "audio", "video")} | {"timm": "hf-hub:somebody/timm"}

CODE = """
import logging, pickle, sys, traceback, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
warnings.simplefilter("always")
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

encoders = {"text": TextEncoder, "audio": AudioEncoder, "video": VideoEncoder}
jobs, items = pickle.load(sys.stdin.buffer)
for kind, name in jobs:
    encoder = encoders.get(kind, ImageEncoder)(name, store=sys.argv[1], on_error="missing", verbose=True, device="cpu")
    try:
        encoder.fit([None])
        encoder.fit_transform([*items[kind], 3])
        print("encoded", encoder.errors_)
    except OSError:
        traceback.print_exc()
        print("refused")
    print(repr(encoder), vars(encoder), pickle.dumps(encoder))
"""


@pytest.fixture
def hub(copy_model, tmp_path):
    """A hub that gives the models of ``somebody`` to whoever has the token, and the headers of what it was asked."""
    asked = []
    for kind in GIVEN:
        copy_model(kind, tmp_path / "somebody" / kind)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            model, _, file = self.path.partition("?")[0].partition("/resolve/")
            path = tmp_path / model.strip("/") / file.partition("/")[2]
            if not model.removeprefix("/api/models").startswith("/somebody/") or asked[-1] != f"Bearer {TOKEN}":
                self.answer(403, {"X-Error-Code": "GatedRepo"}, {"error": "Access to this model is restricted"})
            elif not file and "/tree/" not in model:
                self.answer(200, {}, {"id": model.removeprefix("/api/models/"), "sha": COMMIT})
            elif path.is_file():
                self.answer(200, {"ETag": f'"{abs(hash(path))}"', "X-Repo-Commit": COMMIT}, path.read_bytes())
            else:
                self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, {"error": "No such file"})

        do_HEAD = do_GET

        def answer(self, status, headers, body):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_token_of_the_environment_shows_nowhere(hub, items_of_kinds, tmp_path):
    address, asked = hub
    kept = tmp_path / "kept"
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_ENDPOINT": address,
        "HF_HOME": str(kept / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    jobs = list(GIVEN.items())
    jobs += [(kind, name.replace("somebody", "nobody")) for kind, name in jobs]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(kept / "store")],
        input=pickle.dumps((jobs, {kind: list(items) for kind, items in items_of_kinds.items()})),
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"encoded [ItemError") == done.stdout.count(b"refused") == len(GIVEN), done.stderr.decode()
    # The hub itself was told.
    assert f"Bearer {TOKEN}" in asked
    assert b"items could not be encoded" in done.stderr
    assert TOKEN.encode() not in done.stdout + done.stderr
    paths = [path for path in kept.rglob("*") if path.is_file()]
    assert len(paths) > 10
    assert not any(TOKEN.encode() in path.read_bytes() for path in paths)


@pytest.mark.parametrize("encoder", [AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder])
def test_no_parameter_takes_a_token(encoder):
    assert not [name for name in inspect.signature(encoder).parameters if "token" in name or "auth" in name]
