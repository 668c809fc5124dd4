"""A web server of a folder that answers requests for byte ranges."""

import contextlib
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Ranges(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send_head(self):
        """Answer with the range that is asked for: return nothing more to send."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.server.fails and self.server.fails in self.path:
            self.send_error(500)
            return None
        if not (asked and path.is_file() and self.server.has_ranges):
            return super().send_head()
        data = path.read_bytes()
        if asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        else:  # the last bytes
            first, last = max(0, len(data) - int(asked[2])), len(data) - 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[first : last + 1])
        return None


@contextlib.contextmanager
def serve_folder(folder, has_ranges=True):
    """Serve a folder; yield the server, whose ``url`` ends without a slash.

    ``asked`` has (method, path, range) of each request. Requests for names with the
    text ``fails``, if it is set, get an internal error.
    """

    def handler(*args):
        return _Ranges(*args, directory=str(folder))

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    server.asked, server.has_ranges, server.fails = [], has_ranges, None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
