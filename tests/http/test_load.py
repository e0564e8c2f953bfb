"""Sixty-four clients at once, and clients that are slow to fetch what was made."""
import random
import socket
import time

from harness import make_wav
from test_service import in_threads

PRESETS = ["subtle", "balanced", "creative", "texture", "vampnet/small", "vampnet/large", "vampnet/remix"]


def requests_of(count):
    """Clips of different lengths with different masks, seeds and steps."""
    draw = random.Random(64)
    clips = [make_wav(0.2 + 0.1 * i, seed=i) for i in range(8)]
    return [(clips[i % 8], {"preset": draw.choice(PRESETS), "seed": i,
                            "sampling": {"coarse_steps": draw.randint(2, 16), "temperature": draw.uniform(0.5, 1.5)}})
            for i in range(count)]


def test_sixty_four_at_once(start):
    """Half of them wait on the connection, half by jobs; some of the same clip. All get what each gets alone."""
    requests = requests_of(64)

    def now(request):
        answer = daemon.vamp(*request)
        assert answer.status == 200, answer.body
        return answer.body

    def later(request):
        return daemon.done(*daemon.submit(*request))[0]
    with start("--max-queue", "128") as daemon:
        alone = [now(request) for request in requests]
        together = in_threads([lambda call=(now, later)[i % 2], request=requests[i]: call(request) for i in range(64)])
        assert together == alone and len(set(alone)) == 64


def test_a_queue_for_32_with_64_clients_that_come_again(start, python_client):
    """Whoever finds the queue full is told when to come back, comes back, and is served."""
    requests = [(clip, {**params, "sampling": {"coarse_steps": 2}}) for clip, params in requests_of(64)]
    with start("--max-queue", "32") as daemon:
        alone = [daemon.vamp(*request).body for request in requests[:8]]  # which also tells it how long one takes
        client = python_client.Vampd(daemon.address, contract=daemon.document, patience=60)
        answers = in_threads([lambda request=request: client.vamp(request[0], params=request[1]).body
                              for request in requests])
        assert len(set(answers)) == 64 and answers[:8] == alone


def test_slow_readers(daemon, clip):
    """Clients that read a result a little at a time get all of it, and hold up nobody."""
    (job,) = daemon.submit(make_wav(3), {"seed": 1, "sampling": {"coarse_steps": 1}})
    whole = daemon.done(job)[0]

    def read_slowly():
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # before connecting: it bounds the window
            reader.connect(("127.0.0.1", daemon.port))
            reader.sendall(f"GET /v1/jobs/{job['id']}/audio HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while piece := reader.recv(8192):
                received += piece
                time.sleep(0.005)
        return received.split(b"\r\n\r\n", 1)[1]

    def answer_quickly():
        time.sleep(0.1)
        started = time.monotonic()
        assert daemon.get("/v1/jobs").status == 200 and daemon.vamp(clip, {"seed": 1}).status == 200
        return time.monotonic() - started
    *read, seconds = in_threads([read_slowly] * 8 + [answer_quickly])
    assert read == [whole] * 8 and seconds < 10
