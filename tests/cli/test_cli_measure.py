"""vamp measure, against the definitions of include/vamp/measure.h written a second time with numpy."""
import json

import numpy
import pytest

from support import tone, write_wav

RATE = 44100


def stft(samples, size, hop):
    """Amplitudes [windows, bins] of Hann windows, a sine of amplitude 1 being 1."""
    padded = numpy.pad(samples.astype(float), size // 2, mode="reflect")
    window = 0.5 - 0.5 * numpy.cos(2 * numpy.pi * numpy.arange(size) / size)
    starts = range(0, len(samples) + 1, hop)
    return numpy.stack([abs(numpy.fft.rfft(padded[at:at + size] * window)) for at in starts]) * 4 / size


def log_mel(samples):
    """As in tools/train: [windows, 80] in dB."""
    edges = 700 * (10 ** (numpy.linspace(0, 2595 * numpy.log10(1 + RATE / 2 / 700), 82) / 2595) - 1)
    frequency = numpy.linspace(0, RATE / 2, 1025)
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    filters = numpy.minimum(rise, fall).clip(0)
    return 20 * numpy.log10((stft(samples, 2048, 512) / 2 @ filters.T).clip(1e-4))


def chroma(samples):
    amplitudes = stft(samples, 8192, 4096)
    classes = numpy.zeros((len(amplitudes), 12))
    for k in range(1, 4096):
        hertz = k * RATE / 8192
        if 55 <= hertz <= 4186:
            pitch = 12 * numpy.log2(hertz / 440)
            low = int(numpy.floor(pitch))
            classes[:, low % 12] += amplitudes[:, k] * (1 - (pitch - low))
            classes[:, (low + 1) % 12] += amplitudes[:, k] * (pitch - low)
    return classes


def centroid(samples):
    mean = stft(samples, 2048, 512)[:, :1024].sum(0)
    return (mean * numpy.arange(1024)).sum() / mean.sum() * RATE / 2048


def si_sdr(before, after):
    before, after = before.astype(float), after.astype(float)
    target = before * (before @ after) / (before @ before)
    return 10 * numpy.log10((target @ target) / ((after - target) @ (after - target) + 1e-12))


@pytest.fixture
def clips(tmp_path):
    draw = numpy.random.default_rng(5)
    before = tone(1.7)
    after = (0.7 * tone(1.7, pitch=246.9) + 0.02 * draw.standard_normal(len(before))).astype("float32")
    return before, after, write_wav(tmp_path / "before.wav", before), write_wav(tmp_path / "after.wav", after)


def measure(vamp, *arguments):
    return json.loads(vamp("measure", *arguments, "--json").stdout)


def test_definitions(vamp, clips):
    before, after, *paths = clips
    measures = measure(vamp, *paths)
    assert measures["seconds"] == pytest.approx(1.7)
    assert measures["log_mel_db"] == pytest.approx(abs(log_mel(before) - log_mel(after)).mean(), rel=1e-3)
    a, b = chroma(before), chroma(after)
    cosine = (a * b).sum(1) / numpy.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert measures["chroma_distance"] == pytest.approx(1 - cosine.mean(), rel=1e-3)
    assert measures["chroma_distance"] > 0.2
    assert measures["centroid_before_hz"] == pytest.approx(centroid(before), rel=1e-3)
    assert measures["centroid_after_hz"] == pytest.approx(centroid(after), rel=1e-3)
    assert measures["centroid_change_hz"] == pytest.approx(centroid(after) - centroid(before), rel=1e-3)
    assert measures["si_sdr_db"] == pytest.approx(si_sdr(before, after), abs=0.01)


def test_nothing_changed(vamp, clips):
    path = clips[2]
    measures = measure(vamp, path, path)
    assert (measures["log_mel_db"], measures["chroma_distance"], measures["onset_f"]) == (0, pytest.approx(0), 1)
    assert measures["loudness_change_lu"] == 0 and measures["centroid_change_hz"] == 0
    assert "changed" not in measures                          # no tokens were compared


def test_loudness_is_kept(vamp, clips, tmp_path):
    softer = write_wav(tmp_path / "softer.wav", clips[0] / 4)
    measures = measure(vamp, clips[2], softer)
    assert measures["loudness_change_lu"] == pytest.approx(-12.04, abs=0.01)
    assert measures["chroma_distance"] < 1e-6 and measures["onset_f"] == 1


def test_the_shorter_clip_decides(vamp, clips, tmp_path):
    longer = write_wav(tmp_path / "longer.wav", numpy.concatenate([clips[0], clips[0]]))
    done = vamp("measure", clips[2], longer, "--json")
    assert json.loads(done.stdout)["seconds"] == pytest.approx(1.7) and "the first 1.700 s" in done.stderr


def test_rates_and_channels_do_not_matter(vamp, tmp_path):
    one = write_wav(tmp_path / "one.wav", tone(1.0))
    other = write_wav(tmp_path / "other.wav", tone(1.0, rate=96000, channels=2), 96000)
    assert measure(vamp, one, other)["log_mel_db"] < 0.5     # the first and the last millisecond


def test_silence_has_no_loudness(vamp, clips, tmp_path):
    silence = write_wav(tmp_path / "silence.wav", numpy.zeros(RATE))
    measures = measure(vamp, clips[2], silence)
    assert measures["loudness_after_lufs"] is None and measures["si_sdr_db"] is None and measures["chroma_distance"] == 1
    assert "SI-SDR              -\n" in vamp("measure", clips[2], silence).stdout


def test_text(vamp, clips):
    text = vamp("measure", *clips[2:]).stdout
    for name in ("log-mel distance", "chroma distance", "onsets, F", "centroid, change", "loudness, change", "SI-SDR"):
        assert name in text


def test_errors(vamp, clips, tmp_path):
    assert "missing.wav" in vamp("measure", clips[2], tmp_path / "missing.wav", code=1).stderr
    (tmp_path / "text.wav").write_text("no sound")
    assert "not an audio file" in vamp("measure", tmp_path / "text.wav", clips[2], code=1).stderr
    vamp("measure", clips[2], code=2)
