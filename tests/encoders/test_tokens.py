"""The token of a hub goes to the hub and nowhere else: no output, no log, no error, no repr, no pickle, no store."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = "hf_secretsecretsecretsecretsecretse"

CODE = """
import logging, pickle, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

for make in (TextEncoder, ImageEncoder, AudioEncoder, VideoEncoder):
    encoder = make("nobody/a-private-model", store=sys.argv[1])
    try:
        encoder.fit(["a"])
    except OSError:
        traceback.print_exc()
        print("refused", repr(encoder), vars(encoder), pickle.dumps(encoder))
"""


@pytest.fixture
def hub():
    """A hub that refuses everything, and the headers of what it was asked."""
    asked = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            body = json.dumps({"error": "Access to this model is restricted"}).encode()
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self):
            asked.append(self.headers.get("Authorization"))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_the_token_of_the_environment_shows_nowhere(hub, tmp_path):
    address, asked = hub
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", CODE, str(tmp_path / "store")]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.count(b"refused") == 4
    # The hub itself was told.
    assert f"Bearer {TOKEN}" in asked
    assert TOKEN.encode() not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
