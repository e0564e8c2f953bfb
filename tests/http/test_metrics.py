"""GET /metrics: what Prometheus reads, and that the numbers are those of what was done."""
import re
import time

import pytest

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.eE+-]+|NaN|[+-]Inf)')
FAMILIES = {
    "vampd_requests_total": "counter", "vampd_request_seconds": "histogram", "vampd_jobs_total": "counter",
    "vampd_jobs": "gauge", "vampd_queue_seconds": "histogram", "vampd_job_seconds": "histogram",
    "vampd_batch_sequences": "histogram", "vampd_batch_rows": "histogram", "vampd_device_busy_seconds_total": "counter",
    "vampd_tokens_total": "counter", "vampd_audio_seconds_total": "counter", "vampd_store_bytes": "gauge",
    "vampd_store_free_bytes": "gauge", "vampd_connections": "gauge", "process_resident_memory_bytes": "gauge",
    "process_cpu_seconds_total": "counter", "process_start_time_seconds": "gauge", "process_open_fds": "gauge",
}


def scrape(daemon):
    """-> types of families, {(name, labels): value}; checks the form."""
    answer = daemon.get("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    types, values = {}, {}
    text = answer.body.decode()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line[7:].split()
            assert name not in types, f"{name} has two types"
            types[name] = kind
        elif not line.startswith("#"):
            found = LINE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            family = name if name in types else re.sub("_(bucket|sum|count)$", "", name)
            assert family in types, line
            key = name, tuple(sorted(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', labels or "")))
            assert key not in values, line
            values[key] = float(value)
    return types, values


def total(values, name, **labels):
    return sum(value for (found, have), value in values.items()
               if found == name and all(pair in have for pair in labels.items()))


def scrape_until(daemon, enough):
    """A request is counted when its answer has gone out, which may be after the client has read it."""
    deadline = time.monotonic() + 10
    while True:
        _, values = scrape(daemon)
        if enough(values):
            return values
        assert time.monotonic() < deadline, values
        time.sleep(0.01)


def test_families(daemon):
    types, _ = scrape(daemon)
    assert {name: types.get(name) for name in FAMILIES} == FAMILIES


def test_histograms(daemon, clip):
    daemon.vamp(clip, {"seed": 1})
    types, values = scrape(daemon)
    for name in (name for name, kind in types.items() if kind == "histogram"):
        series = {}
        for (found, labels), value in values.items():
            if found == name + "_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(rest, []).append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
        assert series, name
        for rest, buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts) and max(buckets)[0] == float("inf")
            assert counts[-1] == values[name + "_count", rest] and values[name + "_sum", rest] >= 0


def test_what_is_done_is_counted(daemon, clip):
    _, before = scrape(daemon)
    daemon.done(*daemon.submit(clip, {"seed": 1, "variations": 3}))
    assert daemon.vamp(clip, {"mask": {"mask_ratio": 2}}).status == 400
    daemon.get("/v1/jobs/0123456789abcdef01234567")
    requests = [("/v1/jobs", "202"), ("/v1/vamp", "400"), ("/v1/jobs/{id}", "404")]

    def all_counted(values):
        return all(total(values, "vampd_requests_total", route=route, status=status)
                   > total(before, "vampd_requests_total", route=route, status=status) for route, status in requests)
    after = scrape_until(daemon, all_counted)

    def grown(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)
    assert grown("vampd_jobs_total", state="done") == 3
    assert grown("vampd_requests_total", route="/v1/jobs", status="202") == 1
    assert grown("vampd_requests_total", route="/v1/vamp", status="400") == 1
    assert grown("vampd_requests_total", route="/v1/jobs/{id}", status="404") == 1
    assert grown("vampd_request_seconds_count", route="/v1/vamp") == 1
    assert grown("vampd_job_seconds_count") >= 3 and grown("vampd_batch_sequences_count") > 3
    assert grown("vampd_audio_seconds_total") == pytest.approx(3, abs=0.1)
    assert grown("vampd_tokens_total") > 0 and grown("vampd_device_busy_seconds_total") > 0
    assert grown("vampd_store_bytes") > len(clip)
    assert total(after, "vampd_store_free_bytes") > 0 and total(after, "vampd_connections") >= 1
    assert total(after, "process_resident_memory_bytes") > 1 << 20


def test_labels_come_from_the_table_not_from_outside(daemon):
    """A scanner that asks for a thousand paths does not make a thousand series."""
    for number in range(20):
        daemon.get(f"/scan/{number}")
        daemon.request(f"SCAN{number}", "/healthz")
    values = scrape_until(daemon, lambda values: total(values, "vampd_requests_total", status="404") >= 20)
    routes = {dict(labels).get("route", "") for _, labels in values}
    assert not any("scan" in route for route in routes)
