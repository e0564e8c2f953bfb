"""The page that vampd serves: its bytes, its headers, and what they must not contain. Its pure modules are tested by
web_pure.mjs where there is node."""
import html.parser
import json
import os
import re
import shutil
import subprocess

import pytest

from harness import HERE, ROOT
from test_access import LAB, write_keys
from test_errors import problem

WEB = os.path.join(ROOT, "clients", "web")
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "flac": "audio/flac"}
POLICY = {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
          "img-src": "'self' blob: data:", "media-src": "'self' blob:", "base-uri": "'none'", "form-action": "'none'",
          "frame-ancestors": "'none'"}


def read(*path):
    with open(os.path.join(ROOT, *path), "rb") as file:
        return file.read()


FILES = {"/": ("clients", "web", "index.html"), "/web/vampd.js": ("clients", "js", "vampd.js"),
         "/web/demo.flac": ("models", "small", "demo.flac"),
         **{f"/web/{name}": ("clients", "web", name) for name in sorted(os.listdir(WEB)) if name not in ("index.html", "package.json")}}


class Document(html.parser.HTMLParser):
    """What a page loads, and what a policy without 'unsafe-inline' would refuse."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.inline, self.ids, self.inside, self.names = [], [], [], None, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.names.append((tag, values))
        self.inside = tag
        self.inline += [(tag, name) for name in values if name == "style" or name.startswith("on")]
        self.ids += [values["id"]] if "id" in values else []
        if tag in ("script", "link", "img", "iframe", "audio"):
            self.loaded += [values[name] for name in ("src", "href") if name in values]

    def handle_data(self, data):
        if self.inside in ("script", "style") and data.strip():
            self.inline.append((self.inside, data))

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture(scope="module")
def document():
    return Document(read("clients", "web", "index.html").decode())


@pytest.mark.parametrize("path", FILES)
def test_the_files_are_served(daemon, path):
    answer = daemon.get(path)
    assert answer.status == 200 and answer.body == read(*FILES[path])
    assert answer.headers["Content-Type"].split(";")[0] == TYPES[FILES[path][-1].rsplit(".")[-1]]


@pytest.mark.parametrize("path", ["/", "/web/page.js", "/web/style.css"])
def test_headers(daemon, path):
    headers = daemon.get(path).headers
    assert dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; ")) == POLICY
    assert headers["Cache-Control"] == "no-cache" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_not_modified(daemon):
    tags = {}
    for path in FILES:
        whole = daemon.get(path)
        tags[path] = whole.headers["ETag"]
        again = daemon.get(path, if_none_match=f'"x", W/{tags[path]}')
        assert again.status == 304 and again.headers["ETag"] == tags[path] and again.headers["Cache-Control"] == "no-cache"
        assert daemon.get(path, if_none_match='"x"').status == 200
    assert len(set(tags.values())) == len(tags)


def test_head(daemon):
    for path in ("/", "/web/page.js"):
        whole, head = daemon.get(path), daemon.request("HEAD", path)
        assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) == len(whole.body)
        assert head.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize("path", ["/web", "/web/", "/web/index.html", "/web/package.json", "/web/nothing.js", "/web/page.js/",
                                  "/web/../page.js", "/web/%2e%2e/page.js", "//", "/page.js", "/favicon.ico", "/web/PAGE.JS"])
def test_nothing_else_is(daemon, path):
    problem(daemon.get(path), 404, "not-found")
    problem(daemon.request("POST", path, b""), 404, "not-found")


def test_methods_and_queries(daemon):
    for path in ("/", "/web/page.js"):
        answer = daemon.request("POST", path, b"")
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET, HEAD"
        problem(daemon.get(f"{path}?x=1"), 400, "invalid-field", "/query/x")


def test_no_page(start):
    with start("--page=no") as daemon:
        for path in ("/", "/web/page.js"):
            problem(daemon.get(path), 404, "not-found")
            problem(daemon.request("POST", path, b""), 404, "not-found")
        assert daemon.get("/v1/models").status == 200


def test_the_page_needs_no_key_and_what_it_asks_for_does(start, tmp_path):
    with start("--keys", write_keys(tmp_path / "keys", lab=(LAB, {})), "--page=yes") as daemon:
        assert all(daemon.get(path).status == 200 for path in FILES)
        problem(daemon.get("/v1/presets"), 401, "unauthorized")


def test_nothing_inline_and_nothing_from_elsewhere(document):
    assert document.inline == [] and document.loaded
    assert all(path in FILES for path in document.loaded)
    for path, names in FILES.items():
        text = "" if path.endswith(".flac") else read(*names).decode()
        assert not re.search(r"\beval\b|new Function|innerHTML|outerHTML|insertAdjacentHTML|document[.]write", text), path
        assert not re.search(r"(?:src|href|import|fetch|url)[^\n]{0,20}https?://", text) or path == "/web/vampd.js", path


def test_every_module_that_is_imported_is_served():
    imported = {(path, name) for path, names in FILES.items() if path.endswith(".js")
                for name in re.findall(r'^(?:import|export)[^;]*?from "([^"]+)";', read(*names).decode(), re.M)}
    assert len({name for _, name in imported}) >= 12
    for path, name in imported:
        assert name.startswith("./") and f"/web/{name[2:]}" in FILES, (path, name)
    # Nor is any served that nobody imports.
    assert {f"/web/{name[2:]}" for _, name in imported} == {p for p in FILES if p.endswith(".js")} - {"/web/page.js"}


def test_the_scripts_find_their_elements(document):
    assert len(set(document.ids)) == len(document.ids)
    for path, names in FILES.items():
        for name in re.findall(r'byId\("([^"]+)"\)', read(*names).decode()) if path.endswith(".js") else ():
            assert name in document.ids, (path, name)


def test_everything_has_a_name(document):
    """Of what is operated or looked at: a label, or a text for those who do not see it."""
    labelled = {values.get("for") for tag, values in document.names if tag == "label"}
    for tag, values in document.names:
        if tag in ("canvas", "audio"):
            assert values.get("aria-label"), values
        if tag in ("select", "textarea") or tag == "input" and values["type"] not in ("checkbox",):
            assert values.get("id") in labelled, values
        for name in ("aria-labelledby", "aria-describedby"):
            assert all(one in document.ids for one in values.get(name, "").split()), values


def test_the_client_in_the_page_asks_this_daemon_only():
    assert re.search(r'connect\("",', read("clients", "web", "connection.js").decode())
    for path, names in FILES.items():
        if path.endswith(".js") and path != "/web/vampd.js":
            assert not re.search(r"\bfetch\((?!\"/web/)|XMLHttpRequest|EventSource|WebSocket|sendBeacon", read(*names).decode()), path


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_pure_modules(daemon, tmp_path):
    """tests/http/web_pure.mjs, with the contract that the daemon serves: every control's range is the contract's."""
    contract = tmp_path / "openapi.json"
    contract.write_text(json.dumps(daemon.document))
    done = subprocess.run(["node", "--test", os.path.join(HERE, "web_pure.mjs")], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "CONTRACT": str(contract)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.M)
