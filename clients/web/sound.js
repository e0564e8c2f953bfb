/*
 * Sound as numbers: what is drawn of it, and a WAV file of it. Pure: tests/http/web_pure.mjs.
 *
 * A browser records and plays what the daemon cannot read (WebM, AAC): such sound is sent as WAV.
 */

/* By the end of the name: what the daemon's library reads. */
const READABLE = /\.(wav|wave|flac|ogg|oga|opus|mp3|aif|aiff|aifc|au|w64|caf)$/i;

export const isReadable = (name) => READABLE.test(name);

/** Lowest and highest sample in each of `width` columns: Float32Array [low, high, low, high, ...]. */
export function peaks(samples, width) {
  const made = new Float32Array(2 * width);
  for (let column = 0; column < width; column++) {
    const start = Math.floor(column * samples.length / width);
    const end = Math.max(start + 1, Math.floor((column + 1) * samples.length / width));
    let low = Infinity, high = -Infinity;
    for (let i = start; i < end && i < samples.length; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    made[2 * column] = low === Infinity ? 0 : low;
    made[2 * column + 1] = high === -Infinity ? 0 : high;
  }
  return made;
}

/** A WAV file, 16 bit, of channels (Float32Array, all of one length): ArrayBuffer. */
export function wavOf(channels, rate) {
  const count = channels.length, length = channels[0].length, bytes = 2 * count * length;
  const view = new DataView(new ArrayBuffer(44 + bytes));
  let at = 0;
  const put = (size, value) => (view[`setUint${8 * size}`](at, value, true), at += size);
  const text = (word) => [...word].forEach((letter) => put(1, letter.charCodeAt(0)));
  const numbers = (...pairs) => pairs.forEach(([size, value]) => put(size, value));
  text("RIFF");
  put(4, 36 + bytes);
  text("WAVEfmt ");
  numbers([4, 16], [2, 1], [2, count], [4, rate], [4, 2 * count * rate], [2, 2 * count], [2, 16]);
  text("data");
  put(4, bytes);
  for (let i = 0; i < length; i++) {
    for (const channel of channels) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, channel[i])) * 32767), true);
      at += 2;
    }
  }
  return view.buffer;
}

/** 8.25 -> "8.3 s", 75 -> "1:15" */
export function lengthText(seconds) {
  if (seconds < 60) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
