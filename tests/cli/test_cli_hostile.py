"""Odd and broken inputs: a right result or one clear error, never a crash."""
import numpy
import pytest

from support import read_wav, tone, write_wav

QUICK = ["--steps", "2", "--fine-steps", "1", "--seed", "1"]


@pytest.fixture
def run(vamp, tiny_model, tmp_path):
    def call(path, **options):
        return vamp("run", "-m", tiny_model, path, "-o", tmp_path / "out.wav", *QUICK, **options)
    return call


@pytest.mark.parametrize("name, samples, rate", [
    ("silence", numpy.zeros(22050), 44100),
    ("one sample", numpy.array([0.5]), 44100),
    ("a click", numpy.array([0, 1.0, -1.0, 0] * 3), 44100),
    ("six channels", tone(0.5, channels=6), 44100),
    ("8 kHz", tone(0.5, rate=8000), 8000),
    ("192 kHz", tone(0.3, rate=192000), 192000),
    ("louder than full scale", 20 * tone(0.5), 44100),
    ("barely there", 1e-7 * tone(0.5), 44100),
    ("a constant", numpy.full(20000, 0.7), 44100)])
def test_odd_but_right(run, tmp_path, name, samples, rate):
    run(write_wav(tmp_path / "in.wav", samples, rate))
    out, out_rate = read_wav(tmp_path / "out.wav")
    assert out_rate == 44100
    assert abs(len(out) - len(samples) * 44100 / rate) <= 1
    assert numpy.isfinite(out).all() and numpy.abs(out).max() <= 1


def broken(tmp_path):
    whole = write_wav(tmp_path / "whole.wav", tone(0.5)).read_bytes()
    return {
        "text.wav": b"not audio at all, only words\n" * 20,
        "empty.wav": b"",
        "header.wav": whole[:20],
        "truncated.wav": whole[:len(whole) // 2],
        "nan.wav": whole[:-4000] + numpy.full(1000, numpy.nan, "<f4").tobytes(),
        "infinite.wav": whole[:-4] + numpy.array([numpy.inf], "<f4").tobytes(),
        "zeros.flac": bytes(5000),
        "folder.wav": None,
    }


@pytest.mark.parametrize("name", ["text.wav", "empty.wav", "header.wav", "truncated.wav", "nan.wav", "infinite.wav",
                                  "zeros.flac", "folder.wav", "missing.wav"])
def test_broken(run, tmp_path, name):
    blob = broken(tmp_path).get(name)
    if name == "folder.wav":
        (tmp_path / name).mkdir()
    elif name != "missing.wav":
        (tmp_path / name).write_bytes(blob)
    done = run(tmp_path / name, code=1)
    assert name in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out.wav").exists()


def test_an_hour_is_refused_at_once(run, tmp_path):
    """An hour of silence, as a sparse file: the header alone must decide."""
    path = write_wav(tmp_path / "hour.wav", numpy.zeros(1))
    size = 4 * 44100 * 3600
    blob = bytearray(path.read_bytes()[:-4])
    blob[4:8] = (36 + size).to_bytes(4, "little")
    blob[-4:] = size.to_bytes(4, "little")
    with open(path, "wb") as file:
        file.write(blob)
        file.truncate(len(blob) + size)
    assert "hour.wav" in run(path, code=1).stderr


HEADER = "{'descr': '<i4', 'fortran_order': False, 'shape': (14, 4), }"


def npy(header=HEADER, data=bytes(224), version=b"\x01\x00", length=None):
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY" + version + (length if length is not None else len(text)).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize("blob", [
    b"", b"\x93NUMPY", b"words", npy()[:60], npy(length=65535), npy(data=bytes(223)), npy(version=b"\x09\x00"),
    npy(HEADER.replace("14", "-14")), npy(HEADER.replace("14", "9" * 30)),
    npy(HEADER.replace("(14, 4)", "(4294967296, 4294967296)")), npy(HEADER.replace("<i4", "|O")),
    npy(HEADER.replace("<i4", ">i4")), npy(HEADER.replace("False", "True")), npy("{"), npy("{'descr': " * 11),
    npy(HEADER.replace("(14, 4)", "(14, 4, 1, 1, 1, 1)"))])
def test_broken_arrays(vamp, tiny_model, tmp_path, blob):
    (tmp_path / "codes.npy").write_bytes(blob)
    done = vamp("decode", "-m", tiny_model, tmp_path / "codes.npy", tmp_path / "out.wav", code=1)
    assert "codes.npy" in done.stderr and not (tmp_path / "out.wav").exists()
